"""False variants of a phrase, by the rules of its language or by a generator of one's own."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from random import Random

from ..languages import LANGUAGES, Language, detect_language
from .chinese import chinese_slots
from .edits import Edit, Slot
from .english import english_slots
from .vocabulary import KINDS, Kind, Vocabulary, load_vocabulary

Generator = Callable[[str, int, Language], Sequence[str]]

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
        language: None: what `detect_language` says of the text.
        seed: The same text, seed and arguments give the same negatives, everywhere.
        vocabulary: None: the one in the package.
        kinds: Of `KINDS`; the rules make these only.
        generator: Instead of the rules: any callable `(text, count, language) -> texts`, e.g. a language model. Its
            texts are checked, repeated ones left out, and at most `count` taken.

    Returns:
        At most `count` negatives, all different from the text and from each other (case, width, white space and a full
        stop at the end don't count).

    Raises:
        ValueError: An argument, or a text from the generator, can't be used; names it.
    """
    _check(text, count, kinds)
    if language is not None and language not in LANGUAGES:
        raise ValueError(f"language is {language!r}; allowed: None, {', '.join(LANGUAGES)}")
    language = language or detect_language(text)
    if generator is not None:
        return _from_generator(text, count, language, generator)
    find_slots = chinese_slots if language == "zh" else english_slots
    slots = list(find_slots(text, vocabulary or load_vocabulary()))
    random = Random(f"{seed}\n{text}")
    order = random.sample(list(kinds), len(kinds))
    by_kind = [_in_turns([slot for slot in slots if slot[0].kind == kind], random) for kind in order]
    return _distinct(text, count, (_negative(text, edit) for edit in _interleave(by_kind)))


def normalize(text: str) -> str:
    """What two texts must differ in: not case, width, white space or a full stop at the end."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .。!?;,")


def _check(text: str, count: int, kinds: Sequence[Kind]) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"text is {text!r}; allowed: a text that is not empty")
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ValueError(f"count is {count!r}; allowed: a positive integer")
    strange = [kind for kind in kinds if kind not in KINDS] if not isinstance(kinds, str) else [kinds]
    if strange or not kinds or len(set(kinds)) != len(kinds):
        raise ValueError(f"kinds is {kinds!r}; allowed: a sequence of {', '.join(KINDS)}, each once")


def _in_turns(slots: list[Slot], random: Random) -> Iterator[Edit]:
    """The changes of one kind: in random order, one place after another."""
    shuffled = [random.sample(slot, len(slot)) for slot in random.sample(slots, len(slots))]
    return _interleave([iter(slot) for slot in shuffled])


def _interleave(iterators: list[Iterator[Edit]]) -> Iterator[Edit]:
    while iterators:
        remaining = []
        for iterator in iterators:
            edit = next(iterator, None)
            if edit is not None:
                yield edit
                remaining.append(iterator)
        iterators = remaining


def _negative(text: str, edit: Edit) -> HardNegative:
    return HardNegative(edit.apply(text), edit.kind, text[edit.start : edit.end], edit.replacement)


def _distinct(text: str, count: int, negatives: Iterator[HardNegative]) -> list[HardNegative]:
    """The first `count` negatives that differ from the text and from each other."""
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
        raise ValueError(f"generator gave {produced!r} for {text!r}; allowed: a sequence of texts")
    for number, each in enumerate(produced):
        reason = _why_unusable(text, each, language)
        if reason:
            raise ValueError(f"generator gave {each!r} (number {number}) for {text!r}; {reason}")
    return _distinct(text, count, (_difference(text, each.strip()) for each in produced))


def _why_unusable(text: str, produced: object, language: Language) -> str | None:
    if not isinstance(produced, str) or not normalize(produced):
        return "allowed: a text that is not empty"
    if normalize(produced) == normalize(text):
        return "allowed: a text that differs from it"
    if language == "zh" and not _HAN.search(produced):
        return "allowed: a Chinese text"
    if language == "en" and _HAN.search(produced) and not _HAN.search(text):
        return "allowed: an English text"
    return None


def _difference(text: str, other: str) -> HardNegative:
    """Name the place where two texts differ: from the first to the last differing word, in Chinese character."""
    pattern = r"[A-Za-z0-9'’-]+|\s+|."
    old, new = re.findall(pattern, text), re.findall(pattern, other)
    first = _common_length(old, new)
    last = _common_length(old[first:][::-1], new[first:][::-1])
    replaced, replacement = ("".join(each[first : len(each) - last]).strip() for each in (old, new))
    return HardNegative(other, "generator", replaced, replacement)


def _common_length(first: list[str], second: list[str]) -> int:
    """How many items two lists begin with in common."""
    equal = (a == b for a, b in zip(first, second, strict=False))
    return len(list(takewhile(bool, equal)))
