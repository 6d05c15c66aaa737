"""Making vocabularies; the tokenizer itself is `fgclip2.modeling.tokenization_fgclip2`, exported with checkpoints."""
