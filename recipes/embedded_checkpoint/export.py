"""Write the checkpoint that ships: half-precision weights and the processor's files."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from fgclip2.modeling.image_processing_fgclip2 import FGClip2ImageProcessor
from fgclip2.modeling.modeling_fgclip2 import FGClip2Model
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer


def export(model: FGClip2Model, tokenizer: FGClip2Tokenizer, folder: Path, max_num_patches: int) -> None:
    """Save a float16 copy of the model and a processor with this patch budget.

    Its configuration names float32, which transformers then computes in wherever nothing else is asked for: the file
    stays small, and on a CPU the numbers are those of the embedder.
    """
    small = copy.deepcopy(model).to(torch.float16)
    small.save_pretrained(folder)
    small.config.dtype = torch.float32
    small.config.save_pretrained(folder)
    FGClip2Processor(FGClip2ImageProcessor(max_num_patches=max_num_patches), tokenizer).save_pretrained(folder)
