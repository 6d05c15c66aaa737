"""False variants of a phrase, by the rules of its language or by a generator of one's own."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from random import Random

from ..checks import check_choice, check_positive_integer
from ..languages import LANGUAGES, Language, detect_language
from ..lexicon import KINDS, Kind, Vocabulary, load_vocabulary
from .chinese import chinese_slots
from .edits import Edit
from .english import english_slots

Generator = Callable[[str, int, Language], Sequence[str]]

_WORD = re.compile(r"[A-Za-z0-9'’-]+|\s+|.")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


@dataclass(frozen=True)
class HardNegative:
    """A text that differs from a true one in one place, and is false where that is true."""

    text: str
    kind: str  # "attribute", "count", "relation" or "object"; "generator": from a generator of one's own
    replaced: str  # what stood there
    replacement: str


def generate_hard_negatives(
    text: str,
    count: int = 10,
    language: Language | None = None,
    seed: int = 0,
    vocabulary: Vocabulary | None = None,
    kinds: Sequence[Kind] = KINDS,
    generator: Generator | None = None,
) -> list[HardNegative]:
    """Make false variants of a phrase, each by one change of an attribute, a count, a relation or an object.

    The kinds take turns, and within a kind the places of the text; what is put in a place is drawn uniformly from the
    words of the same category that exclude what was there.

    Args:
        text: A true phrase, Chinese or English.
        count: How many at most; fewer where the text has fewer places to change.
        language: The language of the text; None lets `detect_language` tell it.
        seed: The same text, seed and arguments give the same negatives, everywhere.
        vocabulary: Words and their alternatives; None takes those of the package.
        kinds: Those of `KINDS` that the rules shall make.
        generator: Instead of the rules: any callable `(text, count, language) -> texts`, e.g. a language model. Its
            texts are checked, repeated ones left out, and at most `count` taken.

    Returns:
        At most `count` negatives, all different from the text and from each other (case, width, white space and a full
        stop at the end don't count).

    Raises:
        ValueError: An argument, or a text from the generator, can't be used; names it.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"text must be a text that is not empty, got {text!r}")
    check_positive_integer("count", count)
    strange = [kind for kind in kinds if kind not in KINDS] if not isinstance(kinds, str) else [kinds]
    if strange or not kinds or len(set(kinds)) != len(kinds):
        raise ValueError(f"kinds must be a sequence of {', '.join(KINDS)}, none of them twice, got {kinds!r}")
    check_choice("language", language, (None, *LANGUAGES))
    language = language or detect_language(text)
    if generator is not None:
        return _from_generator(text, count, language, generator)
    find_slots = chinese_slots if language == "zh" else english_slots
    slots = list(find_slots(text, vocabulary or load_vocabulary()))
    random = Random(f"{seed}\n{text}")
    order = random.sample(list(kinds), len(kinds))
    by_kind = []
    for kind in order:  # places in random order, the changes of each too, and one place after another
        of_kind = [slot for slot in slots if slot[0].kind == kind]
        shuffled = [random.sample(slot, len(slot)) for slot in random.sample(of_kind, len(of_kind))]
        by_kind.append(_interleave([iter(slot) for slot in shuffled]))
    negatives = (
        HardNegative(edit.apply(text), edit.kind, text[edit.start : edit.end], edit.replacement)
        for edit in _interleave(by_kind)
    )
    return _distinct(text, count, negatives)


def normalize(text: str) -> str:
    """Return what two texts must differ in: not case, width, white space or a full stop at the end."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .。!?;,")


def _interleave(iterators: list[Iterator[Edit]]) -> Iterator[Edit]:
    while iterators:
        remaining = []
        for iterator in iterators:
            edit = next(iterator, None)
            if edit is not None:
                yield edit
                remaining.append(iterator)
        iterators = remaining


def _distinct(text: str, count: int, negatives: Iterator[HardNegative]) -> list[HardNegative]:
    """Return the first `count` negatives that differ from the text and from each other."""
    seen, kept = {normalize(text)}, []
    for negative in negatives:
        key = normalize(negative.text)
        if key not in seen:
            seen.add(key)
            kept.append(negative)
        if len(kept) == count:
            break
    return kept


def _from_generator(text: str, count: int, language: Language, generator: Generator) -> list[HardNegative]:
    produced = generator(text, count, language)
    if isinstance(produced, str) or not isinstance(produced, Sequence):
        raise ValueError(f"generator must give a sequence of texts for {text!r}, got {produced!r}")
    for number, other in enumerate(produced):
        wanted = None
        if not isinstance(other, str) or not normalize(other):
            wanted = "a text that is not empty"
        elif normalize(other) == normalize(text):
            wanted = "a text that differs from it"
        elif language == "zh" and not _HAN.search(other):
            wanted = "a Chinese text"
        elif language == "en" and _HAN.search(other) and not _HAN.search(text):
            wanted = "an English text"
        if wanted:
            raise ValueError(f"generator must give {wanted} for {text!r}, got {other!r} (number {number})")
    negatives = []
    for other in map(str.strip, produced):
        # The texts differ from the first to the last differing word, in Chinese character.
        old, new = _WORD.findall(text), _WORD.findall(other)
        first = _common_length(old, new)
        last = _common_length(old[first:][::-1], new[first:][::-1])
        replaced, replacement = ("".join(words[first : len(words) - last]).strip() for words in (old, new))
        negatives.append(HardNegative(other, "generator", replaced, replacement))
    return _distinct(text, count, iter(negatives))


def _common_length(first: list[str], second: list[str]) -> int:
    """Return how many items two lists begin with in common."""
    equal = (a == b for a, b in zip(first, second, strict=False))
    return len(list(takewhile(bool, equal)))
