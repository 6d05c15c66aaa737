"""An English text, cut into fixed expressions of the lexicon, words, numbers and signs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from .vocabulary import Form, Vocabulary

_TOKEN = re.compile(r"[A-Za-z\u00c0-\u024f]+(?:['’-][A-Za-z\u00c0-\u024f]+)*|\d+(?:[.,]\d+)*|\S")


@dataclass(frozen=True)
class Unit:
    """A word, number, sign or fixed expression of the text."""

    text: str
    start: int
    end: int
    forms: tuple[Form, ...]

    @property
    def lower(self) -> str:
        return self.text.lower().replace("’", "'")

    def form(self, *sections: str) -> Form | None:
        return next((form for form in self.forms if form.word.category.section in sections), None)

    def is_sign(self) -> bool:
        return not self.text[0].isalnum()


def english_units(text: str, vocabulary: Vocabulary) -> list[Unit]:
    """Cut a text into its longest known expressions, and single words elsewhere."""
    tokens = list(_TOKEN.finditer(text))
    units, index = [], 0
    while index < len(tokens):
        length = next(
            length
            for length in range(min(vocabulary.longest_english, len(tokens) - index), 0, -1)
            if length == 1 or _key(tokens[index : index + length], text) in vocabulary.english_expressions
        )
        start, end = tokens[index].start(), tokens[index + length - 1].end()
        key = _key(tokens[index : index + length], text)
        units.append(Unit(text[start:end], start, end, tuple(vocabulary.english.get(key, ()))))
        index += length
    return units


def _key(tokens: list[re.Match[str]], text: str) -> str:
    """Return the expression as the lexicon has it; parts are joined only over white space."""
    gaps = [text[a.end() : b.start()] for a, b in pairwise(tokens)]
    return " ".join(token.group().lower() for token in tokens) if all(gap.isspace() for gap in gaps) else ""
