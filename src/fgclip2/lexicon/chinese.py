"""A Chinese text, cut into the longest expressions of the lexicon."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .vocabulary import Vocabulary, Word

NUMERALS = "一二两三四五六七八九十百千万几半0123456789"
_LATIN = re.compile("[A-Za-z]+")
_POINTERS = ("这", "那", "每", "这两", "那两")


@dataclass(frozen=True)
class Unit:
    """An expression of the lexicon, a number with its measure word, a Latin word, or one character."""

    text: str
    start: int
    end: int
    words: tuple[Word, ...] = ()
    measure: str = ""  # 只 of 两只 and of 这只
    number: str = ""  # 两 of 两只
    is_whole: bool = False  # a word that the lexicon lists only so that nobody looks into it

    def word(self, *sections: str) -> Word | None:
        return next((word for word in self.words if word.category.section in sections), None)


def chinese_units(text: str, vocabulary: Vocabulary) -> list[Unit]:
    """Cut a text into its longest known expressions."""
    units: list[Unit] = []
    position = 0
    while position < len(text):
        unit = _counted(text, position, vocabulary) or _known(text, position, vocabulary)
        if unit is None:
            latin = _LATIN.match(text, position)
            end = latin.end() if latin else position + 1
            unit = Unit(text[position:end], position, end)
        units.append(unit)
        position = unit.end
    return units


def _known(text: str, position: int, vocabulary: Vocabulary) -> Unit | None:
    for length in range(min(vocabulary.longest_chinese, len(text) - position), 0, -1):
        part = text[position : position + length]
        if part in vocabulary.chinese_expressions:
            words = tuple(vocabulary.chinese.get(part, ()))
            return Unit(part, position, position + length, words, is_whole=not words)
    return None


def _counted(text: str, position: int, vocabulary: Vocabulary) -> Unit | None:
    """Return 两只, 十一个 or 这辆 at a position; no word such as 一起 or 三角形, nor 三 of 三条纹."""
    pointer = text[position] in _POINTERS
    if not pointer and text[position] not in NUMERALS:
        return None
    known = _known(text, position, vocabulary)
    if known is not None and len(known.text) > 1:
        return None
    end = position + 1
    while end < len(text) and text[end] in NUMERALS and not (pointer and text[end] in "百千万"):
        end += 1
    measure = text[end : end + 1]
    following = _known(text, end, vocabulary) if end < len(text) else None
    if measure not in vocabulary.rules["zh"]["measures"] or text[end + 1 : end + 2] == measure:
        return None
    if following is not None and len(following.text) > 1:
        return None
    number = "" if pointer else text[position:end]
    return Unit(text[position : end + 1], position, end + 1, measure=measure, number=number)
