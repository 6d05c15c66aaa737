"""Tokenizing for text heads of fixed lengths, shared by the families: cut and padded per call, safe for threads."""

from collections.abc import Sequence
from contextvars import ContextVar
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer, processors
from transformers import BatchEncoding, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import TruncationStrategy
from transformers.utils import PaddingStrategy

from .configurations import WALK_TYPES
from .inputs import check_text

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
    """Lengths in tokens to which the encodings of a call are cut and padded; `None`: not."""

    cut_to: int | None
    stride: int
    pad_to: int | None
    padding_side: str


# Of the call that runs in this thread. Transformers' own classes put it into the Rust tokenizer, which threads share:
# one would pad and cut the texts of another.
_SHAPE: ContextVar[_Shape] = ContextVar("_SHAPE")


class TextTokenizer(PreTrainedTokenizerFast):
    """Turn texts into `input_ids` for a short and a long text head. Threads may share a tokenizer.

    Args:
        tokenizer_file: path of a `tokenizer.json`.
        tokenizer_object: a `tokenizers.Tokenizer` in place of a file.
        short_length: most tokens of the `"short"` and `"box"` heads, special tokens included.
        long_length: most tokens of the `"long"` head; `None`: there is none.
        max_caption_tokens: most tokens of a text that the embedder's automatic choice gives to the `"short"` head;
            `None`: `short_length`.
        **kwargs: special tokens and other settings of `PreTrainedTokenizerFast`.

    Raises:
        ValueError: neither file nor object given, lengths that are not `1 <= short_length < long_length`,
            `max_caption_tokens` that is not from 0 to `short_length`, or a vocabulary without an end or padding token.
    """

    model_input_names = ["input_ids"]
    slow_tokenizer_class = None

    # Names of special tokens where a folder holds a vocabulary only.
    default_special_tokens: ClassVar[dict[str, str]]
    # The text `$A` among its special tokens, whatever the file or its flags say.
    template: ClassVar[tuple[str, ...]]
    # Whether texts are padded to the length of their head by default, or to the longest of them.
    pads_to_length: ClassVar[bool] = False

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Hand the file to `__init__` as it is.

        Transformers 5 would take tokenizer.json apart for a class with its own `__init__`, and lose the normalizer
        and the byte fallback on the way.
        """
        return kwargs

    def __init__(
        self,
        tokenizer_file: str | None,
        tokenizer_object: Tokenizer | None,
        short_length: int,
        long_length: int | None,
        max_caption_tokens: int | None = None,
        **kwargs: Any,
    ) -> None:
        if tokenizer_file is None and tokenizer_object is None:
            raise ValueError(f"{type(self).__name__} needs a tokenizer.json: the folder has none, or no file was given")
        if short_length < 1 or (long_length is not None and long_length <= short_length):
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
            model_input_names=list(self.model_input_names),
            model_max_length=long_length or short_length,
            **kwargs,
        )
        self.short_length = short_length
        self.long_length = long_length
        self._max_caption_tokens = short_length
        if max_caption_tokens is not None:
            self.max_caption_tokens = max_caption_tokens
        self._name_special_tokens()
        # What the file keeps from the last call before it was saved.
        self.backend_tokenizer.no_padding()
        self.backend_tokenizer.no_truncation()
        self.update_post_processor()

    @property
    def max_caption_tokens(self) -> int:
        """Return how many tokens a text has at most that the embedder's automatic choice gives to the short head."""
        return self._max_caption_tokens

    @max_caption_tokens.setter
    def max_caption_tokens(self, value: int) -> None:
        if type(value) is not int or not 0 <= value <= self.short_length:
            raise ValueError(
                f"`max_caption_tokens` must be an integer from 0 to {self.short_length}, got {value!r:.80}"
            )
        self._max_caption_tokens = value
        self.init_kwargs["max_caption_tokens"] = value  # which is what is saved

    def _name_special_tokens(self) -> None:
        """Name the special tokens where the folder holds a tokenizer.json only."""
        for name, token in self.default_special_tokens.items():
            if getattr(self, name) is None and self.backend_tokenizer.token_to_id(token) is not None:
                setattr(self, name, token)
        for name in ("pad_token", self.template[-1]):
            if getattr(self, name) is None:
                token = self.default_special_tokens[name]
                raise ValueError(f"the vocabulary has no {token} and no {name} was named: pass {name}=...")

    def update_post_processor(self) -> None:
        """Put the special tokens of `template` around a text and no others, whatever the file or the flags say.

        Transformers calls this when `add_bos_token` or `add_eos_token` is set, and from within its own constructor,
        where the special tokens of a folder without a configuration have no names yet.
        """
        tokens = {
            name: str(getattr(self, name) or self.default_special_tokens[name])
            for name in self.template
            if name != "$A"
        }
        ids = {token: self.backend_tokenizer.token_to_id(token) for token in tokens.values()}
        for name, token in tokens.items():
            if ids[token] is None:
                kind = "end" if name == self.template[-1] else "start"
                raise ValueError(f"the vocabulary has no {kind} token {token!r}: pass {name}=... that it has")
        self.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=[tokens.get(name, name) for name in self.template], special_tokens=list(ids.items())
        )

    def _prepare(self, text: str) -> str:
        """Return a text as the backend is to read it."""
        return text

    def _check_and_prepare(self, text: str | Sequence[str]) -> str | list[str]:
        """Return one text or several as the backend is to read them, or raise a `ValueError` that names a wrong one."""
        if isinstance(text, str):
            return self._prepare(check_text("text", text))
        if not isinstance(text, (list, tuple)):
            raise ValueError(f"text must be a string or a list of strings, got {type(text).__name__} {text!r:.80}")
        if not text:
            raise ValueError("text is an empty list: pass at least one string")
        return [self._prepare(check_text(f"text[{index}]", item)) for index, item in enumerate(text)]

    def encode_texts(self, texts: Sequence[str], walk_type: str | None = None) -> BatchEncoding:
        """Tokenize texts as `__call__` does by default, into tensors, but several times as fast if they are short.

        Args:
            texts: A list of strings, at least one.
            walk_type: The text head that the ids are for; `None`: the short one.

        Returns:
            int64 (texts, tokens) by the names in `model_input_names`.

        Raises:
            ValueError: As `__call__`.
        """
        length = self._resolve_length(walk_type, None)
        prepared = [self._beginning(text, length) for text in self._check_and_prepare(list(texts))]
        if self.backend_tokenizer.encode_special_tokens != self.split_special_tokens:
            self.backend_tokenizer.encode_special_tokens = self.split_special_tokens
        # Without offsets, masks and token strings, which transformers' way makes of each text.
        rows = [encoding.ids for encoding in self.backend_tokenizer.encode_batch_fast(prepared)]
        # The last token of each text is its end, which stays.
        rows = [ids if len(ids) <= length else [*ids[: length - 1], ids[-1]] for ids in rows]
        counts = np.fromiter(map(len, rows), np.int64, len(rows))
        is_text = np.arange(length if self.pads_to_length else counts.max()) < counts[:, None]  # (texts, tokens)
        input_ids = np.full(is_text.shape, self.pad_token_id, np.int64)
        input_ids[is_text] = np.fromiter(chain.from_iterable(rows), np.int64, counts.sum())
        inputs = {"input_ids": input_ids, "attention_mask": is_text.astype(np.int64)}
        return BatchEncoding({name: torch.from_numpy(inputs[name]) for name in self.model_input_names})

    def _encode_texts(
        self,
        text: str | Sequence[str],
        text_pair: None,
        walk_type: str | None,
        padding: bool | str | None,
        truncation: bool | str | None,
        max_length: int | None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Check texts and tokenize them; the arguments are those of `__call__`."""
        if text_pair is not None or kwargs.get("text_target") is not None or kwargs.get("is_split_into_words"):
            raise ValueError(NO_PAIRS)
        text = self._check_and_prepare(text)
        length = self._resolve_length(walk_type, max_length)
        truncation = True if truncation is None else truncation
        if truncation not in (False, "do_not_truncate") and not kwargs.get("return_overflowing_tokens"):
            beginnings = [self._beginning(one, length) for one in ([text] if isinstance(text, str) else text)]
            text = beginnings[0] if isinstance(text, str) else beginnings
        return super().__call__(text, padding=padding, truncation=truncation, max_length=length, **kwargs)

    def _encode_and_pad(
        self,
        text: str | Sequence[str],
        text_pair: None,
        walk_type: str | None,
        padding: bool | str | None,
        truncation: bool | str | None,
        max_length: int | None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Tokenize texts and, unless `padding` says otherwise, pad them to the longest; arguments as in `__call__`."""
        pads_to_longest = padding in (True, "longest", None)
        if not pads_to_longest or isinstance(text, str):  # the longest of one text is the text
            padding = False if pads_to_longest else padding
            return self._encode_texts(text, text_pair, walk_type, padding, truncation, max_length, **kwargs)
        options = {name: kwargs.pop(name, None) for name in ("return_tensors", "pad_to_multiple_of")}
        encoded = self._encode_texts(text, text_pair, walk_type, False, truncation, max_length, **kwargs)
        return self.pad(encoded, padding="longest", **options)

    def encode(self, text: str, text_pair: None = None, **kwargs: Any) -> list[int]:
        """Return the ids of one text, special tokens included: not padded, not cut (unless asked for in `kwargs`)."""
        if text_pair is not None:
            raise ValueError(NO_PAIRS)
        if kwargs.get("padding") in (True, "longest"):
            kwargs["padding"] = False  # the longest of one text is the text
        return super().encode(self._prepare(check_text("text", text)), **kwargs)

    def tokenize(self, text: str, pair: None = None, **kwargs: Any) -> list[str]:
        """Return the tokens of one text, without special tokens."""
        if pair is not None:
            raise ValueError(NO_PAIRS)
        return super().tokenize(self._prepare(check_text("text", text)), **kwargs)

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
            # The special tokens, if there are any, are taken off first and put around what is left.
            ended = encoding.special_tokens_mask[-1]
            started = ended if self.template[0] != "$A" else 0
            encoding.truncate(len(encoding) - ended)
            if started:
                encoding.truncate(len(encoding) - started, direction="left")
            encoding.truncate(shape.cut_to - ended - started, shape.stride, self.truncation_side)
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
        if length is None:
            raise ValueError(f"walk_type='long' has no head here: texts have up to {self.short_length} tokens")
        if max_length not in (None, length):
            raise ValueError(
                f"walk_type={walk_type!r} means {length} tokens, but max_length={max_length} was given: leave out "
                f"max_length, or pass the walk_type of that length (short, box: {self.short_length}, long: "
                f"{self.long_length})"
            )
        return length
