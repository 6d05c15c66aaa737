"""The two languages of the package: their names, and how the language of a text is told."""

from __future__ import annotations

import re
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")  # a data set's `languages` are indices into this

_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_LATIN_WORD = re.compile("[A-Za-z\u00c0-\u024f]+")


def detect_language(text: str) -> Language:
    """Return "zh" if a text has at least as many Chinese characters as Latin words, and any at all; else "en".

    So a Latin name within a Chinese sentence, or a Chinese sign within an English one, does not change it.
    """
    if text.isascii():
        return "en"
    characters = len(_HAN.findall(text))
    return "zh" if characters and characters >= len(_LATIN_WORD.findall(text)) else "en"
