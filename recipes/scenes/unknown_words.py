"""Made-up words for training captions, so that a text tower learns to read a sentence past words that it doesn't know.

A tower that has only ever met known words takes an unknown one for some other, and finds another picture. A made-up
word in a caption says nothing of the picture: what can be learnt from it is to go by the rest, and by what is known
within a compound ("wremish-blue", 罗红色).
"""

from __future__ import annotations

import numpy as np

from fgclip2.languages import Language

# Parts of made-up English words; those of the run that made what ships, so leave them as they are.
_STARTS = "b c d f g h j k l m n p r s t v w z bl br cr dr fl gl gr pl sc sk sl sp st str th tr wh wr".split()  # noqa: SIM905
_VOWELS = ("a", "e", "i", "o", "u", "y", "ai", "ea", "ee", "oa", "oo", "ou")
_ENDS = "ble ck d l ld m n nd ng nt p r rd rm s sh sk ss st t th ve x y ish ous ine al er".split()  # noqa: SIM905

# What a made-up word may stand in for: templates of the word, its first character, and what is known of it
_TEMPLATES: dict[Language, dict[str, tuple[str, ...]]] = {
    "en": {
        "sizes": ("{word}",),
        "predicates": ("{word}",),
        "colours": ("{word}", "{word}-{own}", "{word} {own}"),
        "places": ("in the {side} {word}", "{word} the {side}", "on the {word} {side}", "{word} at the {side}"),
        "round plates": ("{{colour}} {word}", "round {{colour}} {word}", "{{colour}} round {word}"),
        "square plates": ("{{colour}} {word}", "square {{colour}} {word}", "{{colour}} square {word}"),
        "plain backgrounds": ("on a {{colour}} {word}", "{word} a {{colour}} background"),
        "photograph backgrounds": ("{word} a photograph", "on a {word}"),
    },
    "zh": {
        "sizes": ("{word}的",),
        "predicates": ("{word}",),
        "colours": ("{word}色", "{character}{own}", "{word}{own}"),
        "places": ("{side}{character}", "{side}{word}", "{word}{side}"),
        "round plates": ("{{colour}}{word}", "{{colour}}圆形{word}", "圆形的{{colour}}{word}"),
        "square plates": ("{{colour}}{word}", "{{colour}}方形{word}", "方形的{{colour}}{word}"),
        "plain backgrounds": ("{{colour}}{word}上", "{word}的{{colour}}背景上"),
        "photograph backgrounds": ("{word}照片上", "一张{word}上"),
    },
}


def made_up(language: Language, kind: str, own: str, side: str, rng: np.random.Generator) -> str:
    """Return words to say in place of `own`, with one that doesn't exist.

    Args:
        language: Of the words.
        kind: "sizes", "predicates", "colours", "places", or shape and "plates", kind and "backgrounds"; those of the
            latter two are templates of `colour`.
        own: What the composed captions say.
        side: Of a place, what must stay: "top left", 左上.
        rng: Random state; the same one gives the same words.
    """
    templates = _TEMPLATES[language][kind]
    word = _english_word(rng) if language == "en" else _chinese_word(rng)
    return templates[rng.integers(len(templates))].format(word=word, character=word[0], own=own, side=side)


def _english_word(rng: np.random.Generator) -> str:
    parts = [part for _ in range(1 + rng.integers(2)) for part in (str(rng.choice(_STARTS)), str(rng.choice(_VOWELS)))]
    return "".join(parts) + str(rng.choice(_ENDS))


def _chinese_word(rng: np.random.Generator) -> str:
    """Return two of the 3,755 most frequent characters, which GB 2312 lists first; a small vocabulary lacks many."""
    return "".join(
        bytes([0xB0 + int(row), 0xA1 + int(column)]).decode("gb2312")
        for row, column in zip(rng.integers(0, 39, 2), rng.integers(0, 94, 2), strict=True)
    )
