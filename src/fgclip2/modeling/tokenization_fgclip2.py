"""Tokenizer of FG-CLIP 2: Gemma's vocabulary, lower-cased, ended by `<eos>`, right-padded to the length of a text head.

Transformers' own classes read the official folders without lower-casing and pad to the longest text of the batch. The
text tower reads its features at the last position, so either gives wrong embeddings without an error. This class
fixes both, whichever release of transformers wrote the folder.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer, normalizers
from transformers import BatchEncoding

from .configurations import check_sizes  # noqa: F401  # transformers 4 copies only what is named
from .inputs import is_image  # noqa: F401  # transformers 4 copies only what is named
from .text_tokenizer import TextTokenizer

DEFAULT_SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}


class FGClip2Tokenizer(TextTokenizer):
    """Turn texts into `input_ids` of exactly the length that a text head of FG-CLIP 2 was trained with.

    Texts are lower-cased, `<eos>` is appended (and kept when a text is cut), `<pad>` fills up on the right, no
    attention mask is returned (the text tower attends to its padding). Any folder with a Gemma-like `tokenizer.json`
    can be read, whatever post-processor, flags or padding side it carries. Threads may share a tokenizer.

    Args:
        tokenizer_file: path of a `tokenizer.json`.
        tokenizer_object: a `tokenizers.Tokenizer` in place of a file.
        short_length: tokens of the `"short"` and `"box"` heads, `<eos>` and padding included.
        long_length: tokens of the `"long"` head.
        **kwargs: `max_caption_tokens`, the most tokens of a text that the embedder's automatic choice gives to the
            `"short"` head (default: `short_length`); special tokens and other settings of `PreTrainedTokenizerFast`.

    Raises:
        ValueError: neither file nor object given, lengths that are not `1 <= short_length < long_length`,
            `max_caption_tokens` that is not from 0 to `short_length`, or a vocabulary without an end or padding token.

    Example:
        >>> tokenizer = FGClip2Tokenizer.from_pretrained("path/to/checkpoint")
        >>> tokenizer(["A black cat", "一只黑猫"], return_tensors="pt")["input_ids"].shape
        torch.Size([2, 64])
        >>> tokenizer("一只黑猫趴在窗台上，旁边是一盆绿植。", walk_type="long", return_tensors="pt")["input_ids"].shape
        torch.Size([1, 196])
    """

    vocab_files_names = {"tokenizer_file": "tokenizer.json"}
    default_special_tokens = DEFAULT_SPECIAL_TOKENS
    template = ("$A", "eos_token")
    pads_to_length = True
    long_length: int  # there is a head of long texts

    def __init__(
        self,
        tokenizer_file: str | None = None,
        tokenizer_object: Tokenizer | None = None,
        short_length: int = 64,
        long_length: int = 196,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer_file, tokenizer_object, short_length, long_length, **kwargs)
        self._lower_case_in_backend()

    def _prepare(self, text: str) -> str:
        """Lower-case a text as the official code asks of each caller.

        `str.lower` comes before the backend's own lower-casing because added tokens are matched before that one
        (`<TABLE>` is `<table>`), and because the two differ on the final sigma of Greek.
        """
        return text.lower()

    def _lower_case_in_backend(self) -> None:
        """Put lower-casing into tokenizer.json, for the tools that read this file alone; once, however often saved."""
        normalizer = self.backend_tokenizer.normalizer
        if normalizer is None:
            self.backend_tokenizer.normalizer = normalizers.Lowercase()
        elif normalizer.normalize_str("A") != normalizer.normalize_str("a"):
            self.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizer])

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: None = None,
        *,
        walk_type: str | None = None,
        padding: bool | str | None = "max_length",
        truncation: bool | str | None = True,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Tokenize one text or a list of texts.

        Args:
            text: a string, or a non-empty list or tuple of strings. An empty string is allowed.
            text_pair: must stay `None`; the text tower reads one text at a time.
            walk_type: the text head the ids are for: `"short"` and `"box"` (64 tokens) or `"long"` (196 tokens).
                `None` means `max_length` where given, else 64.
            padding: `"max_length"`; `True`, `"longest"` and `None` mean the same, for the features of a text depend on
                its padded length. `False` or `"do_not_pad"`: no padding.
            truncation: `True` or `None` cuts to the length, `<eos>` stays; `False` doesn't. A text of more than 65,536
                characters is cut before it is tokenized, where that gives the same ids.
            max_length: length without a `walk_type`, in tokens.
            **kwargs: as for `PreTrainedTokenizerFast.__call__`, e.g. `return_tensors="pt"`.

        Returns:
            `input_ids`: int64 of shape (B, length) with `return_tensors="pt"`, else (lists of) lists of int.

        Raises:
            ValueError: no or empty input, an element that is not a string or has a lone surrogate (half of a UTF-16
                pair, which has no UTF-8 form), pairs of texts, an unknown `walk_type`, one that contradicts
                `max_length`.
        """
        return self._encode_texts(
            text, text_pair, walk_type, _whole_length_if_longest(padding), truncation, max_length, **kwargs
        )

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str | None = True,
        max_length: int | None = None,
        *args: Any,
        walk_type: str | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Pad encoded texts to the length of a text head; `transformers.DataCollatorWithPadding` calls this.

        Args:
            encoded_inputs: a dict with `input_ids`, or a list of such dicts.
            padding: as in `__call__`.
            max_length: length in tokens, without a `walk_type`.
            *args: as for `PreTrainedTokenizerFast.pad`.
            walk_type: as in `__call__`; `None` without `max_length` means the shortest length that holds every text.
            **kwargs: as for `PreTrainedTokenizerFast.pad`.

        Raises:
            ValueError: a text longer than the length, or a `walk_type` that is unknown or contradicts `max_length`.
        """
        padding = _whole_length_if_longest(padding)
        if padding == "max_length":
            longest = _count_longest(encoded_inputs)
            if walk_type is None and max_length is None and longest > self.short_length:
                walk_type = "long"
            max_length = self._resolve_length(walk_type, max_length)
            if longest > max_length:
                raise ValueError(f"a text of {longest} tokens cannot be padded to {max_length}: truncate it first")
        return super().pad(encoded_inputs, padding, max_length, *args, **kwargs)


def _whole_length_if_longest(padding: Any) -> Any:
    """Padding to the longest text of a batch would let the features of a text depend on its neighbours."""
    return "max_length" if padding in (True, "longest", None) else padding


def _count_longest(encoded_inputs: Any) -> int:
    """Return the number of ids of the longest text in what `pad` takes."""
    is_one_dict = isinstance(encoded_inputs, Mapping)
    features = [encoded_inputs] if is_one_dict else encoded_inputs
    if not features or not all("input_ids" in feature for feature in features):
        raise ValueError(
            f"pad takes a dict with input_ids or a non-empty list of such dicts, got {encoded_inputs!r:.80}"
        )
    texts = [feature["input_ids"] for feature in features]
    if is_one_dict and len(texts[0]) > 0:
        first = texts[0][0]  # an id, or the ids of the first of several texts
        texts = texts[0] if getattr(first, "ndim", int(isinstance(first, (list, tuple)))) else texts
    return max(len(ids) for ids in texts)
