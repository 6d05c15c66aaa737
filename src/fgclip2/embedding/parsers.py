"""Phrases of a query by a parser in place of the rules of `phrases.py`; each needs an extra of this package."""

from __future__ import annotations

from itertools import groupby

from .._imports import require

_BETWEEN = tuple("vpcxdyu")  # jieba's tags of verbs, prepositions, conjunctions, signs, adverbs and particles


def split_by_jieba(text: str) -> list[str]:
    """Return what stands between the verbs, prepositions, conjunctions and signs of a Chinese text.

    Parts of speech are those that jieba finds. It knows more words than the rules of [`split_phrases`], but nothing of
    sentences: what is said of a thing elsewhere, such as in brackets or after 在, becomes a phrase of its own.

    Args:
        text: A query or a caption.

    Returns:
        The phrases in their order, each once; a text without one is its own and only phrase.

    Raises:
        ImportError: The extra `jieba` is not installed.

    Example:
        >>> split_by_jieba("左边有红色的碗和猫")
        ['左边', '红色的碗', '猫']
    """
    posseg = require("jieba.posseg", "jieba")

    def is_between(pair: tuple[str, str]) -> bool:
        word, tag = pair
        return tag.startswith(_BETWEEN) and word != "的"

    words = ((word, tag) for word, tag in posseg.cut(text))
    runs = ("".join(word for word, _ in run) for between, run in groupby(words, is_between) if not between)
    phrases = (run.strip("的 ") for run in runs)
    return list(dict.fromkeys(phrase for phrase in phrases if phrase)) or [text]
