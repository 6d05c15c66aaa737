"""Tokenizer of FG-CLIP, the first version: CLIP's vocabulary, cut to the length of a text head.

The text tower reads its features at a text's end token and attends to nothing behind it, so texts need no padding but
to equal lengths.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import BatchEncoding

from .configurations import check_sizes  # noqa: F401  # transformers 4 copies only what is named
from .inputs import is_image  # noqa: F401  # transformers 4 copies only what is named
from .text_tokenizer import TextTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
END_OF_WORD = "</w>"

# A word, a digit or a run of other signs; English endings such as 's are apart.
_PIECES = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def clip_tokenizer(vocab_file: str, merges_file: str) -> Tokenizer:
    """Return CLIP's tokenizer of the two files that folders without a tokenizer.json have.

    Args:
        vocab_file: Path of a vocab.json: token -> id.
        merges_file: Path of a merges.txt: a merge in each line, by rank.

    Raises:
        ValueError: A file is broken, or they don't fit each other.
    """
    lines = Path(merges_file).read_text(encoding="utf-8").split("\n")
    try:
        pairs = [line.split() for line in lines if line and not line.startswith("#version")]
        merges = [(first, second) for first, second in pairs]
        vocabulary = json.loads(Path(vocab_file).read_text(encoding="utf-8"))
        model = models.BPE(
            vocabulary,
            merges,
            unk_token=END,
            continuing_subword_prefix="",
            end_of_word_suffix=END_OF_WORD,
            fuse_unk=False,
        )
    except Exception as error:  # the library tokenizers has no class of its own for its errors
        raise ValueError(f"{vocab_file} and {merges_file} are no vocabulary with its merges: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (START, END)])
    return tokenizer


class FGClipTokenizer(TextTokenizer):
    """Turn texts into `input_ids` for the text heads of FG-CLIP.

    The vocabulary lower-cases by itself; a start and an end token are put around each text and kept when it is cut; no
    attention mask is returned. Threads may share a tokenizer.

    Args:
        tokenizer_file: path of a `tokenizer.json`.
        tokenizer_object: a `tokenizers.Tokenizer` in place of a file.
        vocab_file, merges_file: paths of a `vocab.json` and a `merges.txt`, read where there is no `tokenizer.json`.
        short_length: most tokens of the `"short"` and `"box"` heads, start and end included.
        long_length: most tokens of the `"long"` head.
        **kwargs: special tokens and other settings of `PreTrainedTokenizerFast`.

    Raises:
        ValueError: no file or object given, broken files, lengths that are not `1 <= short_length < long_length`, or a
            vocabulary without a start or end token.

    Example:
        >>> tokenizer = FGClipTokenizer.from_pretrained("path/to/checkpoint")
        >>> tokenizer(["a photo of a cat", "two dogs"], return_tensors="pt")["input_ids"].shape
        torch.Size([2, 7])
        >>> tokenizer("两只狗", padding="max_length", max_length=248, return_tensors="pt")["input_ids"].shape
        torch.Size([1, 248])
    """

    vocab_files_names = {"vocab_file": "vocab.json", "merges_file": "merges.txt", "tokenizer_file": "tokenizer.json"}
    default_special_tokens = {"pad_token": END, "eos_token": END, "bos_token": START, "unk_token": END}
    template = ("bos_token", "$A", "eos_token")

    def __init__(
        self,
        tokenizer_file: str | None = None,
        tokenizer_object: Tokenizer | None = None,
        vocab_file: str | None = None,
        merges_file: str | None = None,
        short_length: int = 77,
        long_length: int = 248,
        **kwargs: Any,
    ) -> None:
        if tokenizer_file is None and tokenizer_object is None and vocab_file is not None and merges_file is not None:
            tokenizer_object = clip_tokenizer(vocab_file, merges_file)
        super().__init__(tokenizer_file, tokenizer_object, short_length, long_length, **kwargs)
        if getattr(self.backend_tokenizer.model, "end_of_word_suffix", None) == END_OF_WORD:
            # CLIP's own files leave these marks of word ends in what is decoded.
            self.backend_tokenizer.decoder = decoders.Sequence(
                [decoders.ByteLevel(), decoders.Replace(END_OF_WORD, " "), decoders.Strip(" ", 0, 1)]
            )

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: None = None,
        *,
        walk_type: str | None = None,
        padding: bool | str | None = True,
        truncation: bool | str | None = True,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Tokenize one text or a list of texts.

        Args:
            text: a string, or a non-empty list or tuple of strings. An empty string is allowed.
            text_pair: must stay `None`; the text tower reads one text at a time.
            walk_type: the text head the ids are for: `"short"` and `"box"` (up to 77 tokens) or `"long"` (up to 248).
                `None` means `max_length` where given, else 77. Pass the same to the model.
            padding: `True`, `"longest"` or `None`: to the longest of the texts, which changes no features;
                `"max_length"`: as in the official code; `False` or `"do_not_pad"`: none.
            truncation: `True` or `None` cuts to the length, the end token stays; `False` doesn't.
            max_length: length without a `walk_type`, in tokens.
            **kwargs: as for `PreTrainedTokenizerFast.__call__`, e.g. `return_tensors="pt"`.

        Returns:
            `input_ids`: int64 of shape (B, length) with `return_tensors="pt"`, else (lists of) lists of int.

        Raises:
            ValueError: no or empty input, an element that is not a string or has a lone surrogate (half of a UTF-16
                pair, which has no UTF-8 form), pairs of texts, an unknown `walk_type`, one that contradicts
                `max_length`.
        """
        return self._encode_and_pad(text, text_pair, walk_type, padding, truncation, max_length, **kwargs)


__all__ = ["FGClipTokenizer"]
