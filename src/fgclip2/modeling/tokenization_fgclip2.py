"""Tokenizer of FG-CLIP 2: Gemma's vocabulary, lower-cased, ended by `<eos>`, right-padded to the length of a text head.

Transformers' own classes read the official folders without lower-casing and pad to the longest text of the batch. The
text tower reads its features at the last position, so either gives wrong embeddings without an error. This class
fixes both, whichever release of transformers wrote the folder.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from tokenizers import Encoding, Tokenizer, normalizers, processors
from transformers import BatchEncoding, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

from .configuration_fgclip2 import WALK_TYPES
from .inputs import check_text

DEFAULT_SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}

# Settings that folders of other tokenizer classes carry and that must not win over the contract of this class.
# `processor_class` and `auto_map` name the classes of the folder that was read; whoever saves writes their own.
OVERRULED_SETTINGS = (
    "padding_side",
    "truncation_side",
    "model_input_names",
    "model_max_length",
    "add_bos_token",
    "add_eos_token",
    "processor_class",
    "auto_map",
)

LONG_TEXT = 2**16  # characters; shorter ones are tokenized whole before they are cut

NO_PAIRS = (
    "the text tower reads one plain text at a time: pairs of texts, target texts and split words are not supported, "
    "pass several texts as one list of strings"
)


class _Shape(NamedTuple):
    """How the encodings of a call are cut and padded, in tokens; `None`: not."""

    cut_to: int | None
    stride: int
    pad_to: int | None
    padding_side: str


# Of the call that runs in this thread. Transformers' own classes put it into the Rust tokenizer, which threads share:
# one would pad and cut the texts of another.
_SHAPE: ContextVar[_Shape] = ContextVar("_SHAPE")


class FGClip2Tokenizer(PreTrainedTokenizerFast):
    """Turn texts into `input_ids` of exactly the length that a text head of FG-CLIP 2 was trained with.

    Texts are lower-cased, `<eos>` is appended (and kept when a text is cut), `<pad>` fills up on the right, no
    attention mask is returned (the text tower attends to its padding). Any folder with a Gemma-like `tokenizer.json`
    can be read, whatever post-processor, flags or padding side it carries. Threads may share a tokenizer.

    Args:
        tokenizer_file: path of a `tokenizer.json`.
        tokenizer_object: a `tokenizers.Tokenizer` in place of a file.
        short_length: tokens of the `"short"` and `"box"` heads, `<eos>` and padding included.
        long_length: tokens of the `"long"` head.
        **kwargs: special tokens and other settings of `PreTrainedTokenizerFast`.

    Raises:
        ValueError: neither file nor object given, lengths that are not `1 <= short_length < long_length`, or a
            vocabulary without an end or padding token.

    Example:
        >>> tokenizer = FGClip2Tokenizer.from_pretrained("path/to/checkpoint")
        >>> tokenizer(["A black cat", "一只黑猫"], return_tensors="pt")["input_ids"].shape
        torch.Size([2, 64])
        >>> tokenizer("一只黑猫趴在窗台上，旁边是一盆绿植。", walk_type="long", return_tensors="pt")["input_ids"].shape
        torch.Size([1, 196])
    """

    vocab_files_names = {"tokenizer_file": "tokenizer.json"}
    model_input_names = ["input_ids"]
    slow_tokenizer_class = None

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Hand the file to `__init__` as it is.

        Transformers 5 would take tokenizer.json apart for a class with its own `__init__`, and lose the normalizer
        and the byte fallback on the way.
        """
        return kwargs

    def __init__(
        self,
        tokenizer_file: str | None = None,
        tokenizer_object: Tokenizer | None = None,
        short_length: int = 64,
        long_length: int = 196,
        **kwargs: Any,
    ) -> None:
        if tokenizer_file is None and tokenizer_object is None:
            raise ValueError("FGClip2Tokenizer needs a tokenizer.json: the folder has none, or no file was given")
        if not 1 <= short_length < long_length:
            raise ValueError(f"need 1 <= short_length < long_length, got {short_length} and {long_length}")
        for key in OVERRULED_SETTINGS:
            kwargs.pop(key, None)
        super().__init__(
            tokenizer_file=tokenizer_file,
            tokenizer_object=tokenizer_object,
            short_length=short_length,
            long_length=long_length,
            padding_side="right",
            truncation_side="right",
            model_input_names=["input_ids"],
            model_max_length=long_length,
            **kwargs,
        )
        self.short_length = short_length
        self.long_length = long_length
        self._name_special_tokens()
        self._lower_case_in_backend()
        # What the file keeps from the last call before it was saved.
        self.backend_tokenizer.no_padding()
        self.backend_tokenizer.no_truncation()
        self.update_post_processor()

    def _name_special_tokens(self) -> None:
        """Name Gemma's special tokens where the folder holds a tokenizer.json only."""
        for name, token in DEFAULT_SPECIAL_TOKENS.items():
            if getattr(self, name) is None and self.backend_tokenizer.token_to_id(token) is not None:
                setattr(self, name, token)
        for name in ("pad_token", "eos_token"):
            if getattr(self, name) is None:
                raise ValueError(
                    f"the vocabulary has no {DEFAULT_SPECIAL_TOKENS[name]} and no {name} was named: pass {name}=..."
                )

    def _lower_case_in_backend(self) -> None:
        """Put lower-casing into tokenizer.json, for the tools that read this file alone; once, however often saved."""
        normalizer = self.backend_tokenizer.normalizer
        if normalizer is None:
            self.backend_tokenizer.normalizer = normalizers.Lowercase()
        elif normalizer.normalize_str("A") != normalizer.normalize_str("a"):
            self.backend_tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizer])

    def update_post_processor(self) -> None:
        """Append `<eos>` and nothing else, whatever the file or the flags say.

        Transformers calls this when `add_bos_token` or `add_eos_token` is set, and from within its own constructor,
        where the special tokens of a folder without a configuration have no names yet.
        """
        eos = str(self.eos_token or DEFAULT_SPECIAL_TOKENS["eos_token"])
        eos_id = self.backend_tokenizer.token_to_id(eos)
        if eos_id is None:
            raise ValueError(f"the vocabulary has no end token {eos!r}: pass eos_token=... that it has")
        self.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=["$A", eos], special_tokens=[(eos, eos_id)]
        )

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
        if text_pair is not None or kwargs.get("text_target") is not None or kwargs.get("is_split_into_words"):
            raise ValueError(NO_PAIRS)
        text = _lower_case(text)
        length = self._resolve_length(walk_type, max_length)
        truncation = True if truncation is None else truncation
        if truncation not in (False, "do_not_truncate") and not kwargs.get("return_overflowing_tokens"):
            beginnings = [self._beginning(one, length) for one in ([text] if isinstance(text, str) else text)]
            text = beginnings[0] if isinstance(text, str) else beginnings
        return super().__call__(
            text, padding=_whole_length_if_longest(padding), truncation=truncation, max_length=length, **kwargs
        )

    def encode(self, text: str, text_pair: None = None, **kwargs: Any) -> list[int]:
        """Return the ids of one text, `<eos>` included: not padded, not cut (unless asked for in `kwargs`)."""
        if text_pair is not None:
            raise ValueError(NO_PAIRS)
        if kwargs.get("padding") in (True, "longest"):
            kwargs["padding"] = False  # the longest of one text is the text
        return super().encode(check_text("text", text).lower(), **kwargs)

    def tokenize(self, text: str, pair: None = None, **kwargs: Any) -> list[str]:
        """Return the tokens of one text, without `<eos>`."""
        if pair is not None:
            raise ValueError(NO_PAIRS)
        return super().tokenize(check_text("text", text).lower(), **kwargs)

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

    def set_truncation_and_padding(
        self,
        padding_strategy: PaddingStrategy,
        truncation_strategy: TruncationStrategy,
        max_length: int | None,
        stride: int,
        pad_to_multiple_of: int | None,
        padding_side: str | None = None,
    ) -> None:
        """Note how this call cuts and pads its texts; transformers calls this before it encodes them.

        Raises:
            ValueError: padding to the longest text of a batch is asked for.
        """
        if padding_strategy == PaddingStrategy.LONGEST:
            raise ValueError("texts can't be padded to the longest of them: call the tokenizer itself, or pad()")
        pad_to = max_length if padding_strategy == PaddingStrategy.MAX_LENGTH else None
        if pad_to is not None and pad_to_multiple_of:
            pad_to = -(-pad_to // pad_to_multiple_of) * pad_to_multiple_of
        cut_to = None if truncation_strategy == TruncationStrategy.DO_NOT_TRUNCATE else max_length
        _SHAPE.set(_Shape(cut_to, stride, pad_to, padding_side or self.padding_side))

    def _convert_encoding(self, encoding: Encoding, *args: Any, **kwargs: Any) -> Any:
        """Cut and pad what the Rust tokenizer made of a text, then convert it as transformers does."""
        shape = _SHAPE.get()
        if shape.cut_to is not None and len(encoding) > shape.cut_to:
            # The end token, if there is one, is taken off first and put behind the cut.
            ended = encoding.special_tokens_mask[-1]
            encoding.truncate(len(encoding) - ended)
            encoding.truncate(shape.cut_to - ended, shape.stride, self.truncation_side)
            encoding = self.backend_tokenizer.post_process(encoding, add_special_tokens=bool(ended))
        if shape.pad_to is not None:
            padding = {"pad_id": self.pad_token_id, "pad_token": self.pad_token, "pad_type_id": self.pad_token_type_id}
            encoding.pad(shape.pad_to, direction=shape.padding_side, **padding)
        return super()._convert_encoding(encoding, *args, **kwargs)

    def _beginning(self, text: str, length: int) -> str:
        """Return a long text's beginning that has the same first `length` tokens, or the text if none is found.

        Merges before the end of a token don't cross it, so the text up to there has the same tokens by itself. Of as
        many successive ends as the longest token has characters one is the end of a token of the whole text: first
        tokens that are equal for all of these ends are those of the text.
        """
        if len(text) <= LONG_TEXT:
            return text
        longest = max(map(len, self.get_vocab()))
        size = 8 * length
        while size * longest <= len(text):  # else it is less work to tokenize the whole text
            beginnings = [text[: size - shorter] for shorter in range(longest)]
            encodings = self.backend_tokenizer.encode_batch(beginnings, add_special_tokens=False)
            first_tokens = {tuple(encoding.ids[:length]) for encoding in encodings}
            if len(first_tokens) == 1 and all(len(tokens) == length for tokens in first_tokens):
                return beginnings[0]
            size *= 2
        return text

    def _resolve_length(self, walk_type: str | None, max_length: int | None) -> int:
        """Return the number of tokens that `walk_type` and `max_length` agree on."""
        if walk_type is not None and walk_type not in WALK_TYPES:
            raise ValueError(f"walk_type must be one of {', '.join(map(repr, WALK_TYPES))} or None, got {walk_type!r}")
        if max_length is not None and (not isinstance(max_length, int) or max_length < 1):
            raise ValueError(f"max_length must be a positive number of tokens, got {max_length!r}")
        if walk_type is None and max_length is not None:
            return max_length
        length = self.long_length if walk_type == "long" else self.short_length
        if max_length not in (None, length):
            raise ValueError(
                f"walk_type={walk_type!r} means {length} tokens, but max_length={max_length} was given: leave out "
                f"max_length, or pass the walk_type of that length (short, box: {self.short_length}, long: "
                f"{self.long_length})"
            )
        return length


def _lower_case(text: str | Sequence[str]) -> str | list[str]:
    """Check texts and lower-case them as the official code asks of each caller.

    `str.lower` comes before the backend's own lower-casing because added tokens are matched before that one
    (`<TABLE>` is `<table>`), and because the two differ on the final sigma of Greek.
    """
    if isinstance(text, str):
        return check_text("text", text).lower()
    if not isinstance(text, (list, tuple)):
        raise ValueError(f"text must be a string or a list of strings, got {type(text).__name__} {text!r:.80}")
    if not text:
        raise ValueError("text is an empty list: pass at least one string")
    return [check_text(f"text[{index}]", item).lower() for index, item in enumerate(text)]


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
