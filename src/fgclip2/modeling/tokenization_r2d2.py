"""Tokenizer of R2D2: the pieces of words of a Chinese BERT, cut to the length of the text tower."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import BatchEncoding

from .configurations import check_sizes  # noqa: F401  # transformers 4 copies only what is named
from .inputs import is_image  # noqa: F401  # transformers 4 copies only what is named
from .text_tokenizer import LONG_TEXT, TextTokenizer

PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
LONGEST_WORD = 100  # characters; what is longer is unknown


def bert_tokenizer(vocab_file: str) -> Tokenizer:
    """Return BERT's tokenizer of the file that folders without a tokenizer.json have.

    Texts are lower-cased and lose their accents; each Chinese character is a word, and words are cut into the longest
    pieces that the vocabulary has.

    Args:
        vocab_file: Path of a vocab.txt: a token in each line, by id.

    Raises:
        ValueError: The vocabulary lacks a special token.
    """
    # Not splitlines(): some tokens are characters that end a line to Python.
    lines = Path(vocab_file).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    vocabulary = {line.rstrip("\r"): index for index, line in enumerate(lines)}
    if missing := [token for token in (PAD, UNKNOWN, START, END) if token not in vocabulary]:
        raise ValueError(f"{vocab_file} is no vocabulary of BERT: it lacks {', '.join(missing)}")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = [token for token in (PAD, UNKNOWN, START, END, MASK) if token in vocabulary]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return tokenizer


class R2D2Tokenizer(TextTokenizer):
    """Turn texts into `input_ids` and `attention_mask` for the text tower of R2D2.

    Start and end token are put around each text and kept when it is cut. Padding is masked and changes nothing. Threads
    may share a tokenizer.

    Args:
        tokenizer_file: path of a `tokenizer.json`.
        tokenizer_object: a `tokenizers.Tokenizer` in place of a file.
        vocab_file: path of a `vocab.txt`, read where there is no `tokenizer.json`.
        short_length: most tokens of a text, start and end included.
        **kwargs: special tokens and other settings of `PreTrainedTokenizerFast`.

    Raises:
        ValueError: no file or object given, or a vocabulary without a start, end or padding token.

    Example:
        >>> tokenizer = R2D2Tokenizer.from_pretrained("path/to/checkpoint")
        >>> tokenizer(["一只黑猫", "a black cat"], return_tensors="pt")["attention_mask"].shape
        torch.Size([2, 6])
        >>> tokenizer("一只黑猫", padding="max_length", return_tensors="pt")["input_ids"].shape
        torch.Size([1, 64])
    """

    vocab_files_names = {"vocab_file": "vocab.txt", "tokenizer_file": "tokenizer.json"}
    model_input_names = ["input_ids", "attention_mask"]
    default_special_tokens = {
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "cls_token": START,
        "sep_token": END,
        "mask_token": MASK,
    }
    template = ("cls_token", "$A", "sep_token")

    def __init__(
        self,
        tokenizer_file: str | None = None,
        tokenizer_object: Tokenizer | None = None,
        vocab_file: str | None = None,
        short_length: int = 64,
        **kwargs: Any,
    ) -> None:
        if tokenizer_file is None and tokenizer_object is None and vocab_file is not None:
            tokenizer_object = bert_tokenizer(vocab_file)
        kwargs.pop("long_length", None)  # saved as None
        super().__init__(tokenizer_file, tokenizer_object, short_length, None, **kwargs)

    def __call__(
        self,
        text: str | Sequence[str],
        text_pair: None = None,
        *,
        padding: bool | str | None = True,
        truncation: bool | str | None = True,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Tokenize one text or a list of texts.

        Args:
            text: a string, or a non-empty list or tuple of strings. An empty string is allowed.
            text_pair: must stay `None`; the text tower reads one text at a time.
            padding: `True`, `"longest"` or `None`: to the longest of the texts; `"max_length"`: as in the official
                code; `False` or `"do_not_pad"`: none.
            truncation: `True` or `None` cuts to the length, the end token stays; `False` doesn't.
            max_length: length in tokens, if not `short_length`.
            **kwargs: as for `PreTrainedTokenizerFast.__call__`, e.g. `return_tensors="pt"`.

        Returns:
            `input_ids` and `attention_mask` (1 for tokens, 0 for padding): int64 of shape (B, length) with
            `return_tensors="pt"`, else (lists of) lists of int.

        Raises:
            ValueError: no or empty input, an element that is not a string or has a lone surrogate (half of a UTF-16
                pair, which has no UTF-8 form), or pairs of texts.
        """
        return self._encode_and_pad(text, text_pair, None, padding, truncation, max_length, **kwargs)

    def _beginning(self, text: str, length: int) -> str:
        """Return a long text's beginning that has the same first `length` tokens, or the text if it may have others.

        A word is cut by itself, so only the tokens of the beginning's last word may differ from those of the text.
        """
        beginning = text[:LONG_TEXT]
        if len(beginning) < len(text):
            tokens = self.backend_tokenizer.encode(beginning, add_special_tokens=False)
            if len(tokens) < length + LONGEST_WORD:
                return text
        return beginning


__all__ = ["R2D2Tokenizer"]
