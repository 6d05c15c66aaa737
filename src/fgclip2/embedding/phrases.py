"""From a query to the phrases in it, by rules and the lexicon: one phrase for each thing that the query speaks of.

A phrase is a noun with all that the query says of it, wherever that stands: adjectives, counts, relative clauses,
brackets, places, and what is said later of "it" or "the" same thing. So "There is a box, which is big, on the left" and
"On the left is a big box" give the same phrase.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from ..languages import detect_language
from ..lexicon import Vocabulary, load_vocabulary
from .phrases_chinese import chinese_phrases
from .phrases_english import english_phrases

Splitter = Callable[[str], Sequence[str]]  # a text -> its phrases, at least one

# Signs after which the language may change; a full stop or a comma within a number is none.
_PART = re.compile(r".+?(?:[,.;:!?](?=\s|$)|[，。；：！？、（）()\n]|$)", re.DOTALL)


def split_phrases(text: str, vocabulary: Vocabulary | None = None) -> list[str]:
    """Return the phrases of a Chinese or English text, or of one that has both.

    A clause that says what is not there ("there is no dog", 没有狗) is no phrase beside others, nor is the picture
    itself ("a photo of", 图里). A negation within a phrase ("a beach without people", 没有人的海滩) stays in it.

    Args:
        text: A query or a caption.
        vocabulary: Lexicon of [`load_vocabulary`]; `None`: that of the package.

    Returns:
        The phrases in their order, each once; a text without a noun phrase is its own and only phrase.

    Example:
        >>> split_phrases("There is a box, which is big, on the left. A cat and two dogs sit beside it.")
        ['a big box on the left', 'a cat', 'two dogs sit beside it']
        >>> split_phrases("图里有炸弹（在右侧）、红色的碗和一只猫。")
        ['右侧的炸弹', '红色的碗', '一只猫']
    """
    vocabulary = vocabulary or load_vocabulary()
    phrases: list[str] = []
    for language, parts in groupby(_parts(text), key=detect_language):
        split = chinese_phrases if language == "zh" else english_phrases
        phrases += split("".join(parts), vocabulary)
    return list(dict.fromkeys(phrases)) or [text]


def _parts(text: str) -> Iterator[str]:
    """Yield the text between signs, each part with its sign; parts without a letter go with what is before them."""
    waiting = ""
    for match in _PART.finditer(text):
        if any(character.isalpha() for character in match.group()):
            if waiting:
                yield waiting
            waiting = match.group()
        else:
            waiting += match.group()
    if waiting:
        yield waiting
