"""Habits of the released scripts of FG-CLIP 2 that nobody else should copy: for the preset `released` alone."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer
from transformers import BatchEncoding, PreTrainedTokenizerFast

from ..modeling.text_tokenizer import TextTokenizer
from ..modeling.tokenization_fgclip2 import FGClip2Tokenizer
from .models import BenchmarkModel


def lower_cases(model: BenchmarkModel) -> bool:
    """Return whether a model lower-cases all texts, as those of this package do."""
    return isinstance(getattr(getattr(model, "processor", None), "tokenizer", None), TextTokenizer)


def keep_case(model: BenchmarkModel) -> BenchmarkModel:
    """Return a model that reads texts as they are written, as FG-CLIP 2 does where a script forgets lower case."""
    tokenizer = getattr(getattr(model, "processor", None), "tokenizer", None)
    if not isinstance(tokenizer, FGClip2Tokenizer):
        return model
    twin: Any = copy.copy(model)
    processor = copy.copy(twin.processor)
    processor.tokenizer = CaseKeepingTokenizer(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
        short_length=tokenizer.short_length,
        long_length=tokenizer.long_length,
        **tokenizer.special_tokens_map,
    )
    twin.processor = processor
    return twin


class CaseKeepingTokenizer(FGClip2Tokenizer):
    """[`FGClip2Tokenizer`] without its lower-casing."""

    def _lower_case_in_backend(self) -> None:
        """Take it out where it was put in."""
        state = json.loads(self.backend_tokenizer.to_str())
        state["normalizer"] = _without_lower_casing(state["normalizer"])
        self._tokenizer = Tokenizer.from_str(json.dumps(state))

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
        """As [`FGClip2Tokenizer`] does."""
        length = self._resolve_length(walk_type, max_length)
        options = {"padding": padding, "truncation": truncation, "max_length": length, **kwargs}
        return PreTrainedTokenizerFast.__call__(self, text, **options)

    def encode_texts(self, texts: Sequence[str], walk_type: str | None = None) -> BatchEncoding:
        """As [`FGClip2Tokenizer`] does."""
        return self(list(texts), walk_type=walk_type, return_tensors="pt")


def _without_lower_casing(normalizer: dict[str, Any] | None) -> dict[str, Any] | None:
    if normalizer is None or normalizer["type"] == "Lowercase":
        return None
    if normalizer["type"] == "Sequence":
        kept = [_without_lower_casing(part) for part in normalizer["normalizers"]]
        return {**normalizer, "normalizers": [part for part in kept if part is not None]}
    return normalizer
