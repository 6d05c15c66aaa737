"""The concepts that the artists draw: human-written English and Chinese names, keywords and groups.

Names and keywords are the Unicode CLDR's annotations of emoji; groups and subgroups are those of emoji-test.txt, as
emojibase has them. Skin tones, gendered doubles, families, country flags and key caps are left out, which leaves 1430
concepts; 837 of them are things (animals, food, places, vehicles, objects), which scenes and tests are made of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..files import decode_json, read_json, replacing
from ..languages import LANGUAGES, Language
from .sources import NAMES, fetch, read_member
from .splits import held_out_keys

THING_GROUPS = ("animals-nature", "food-drink", "travel-places", "activities", "objects")
MAX_KEYWORD_OVERLAP = 0.5

_SKIPPED_SUBGROUPS = frozenset({"country-flag", "subdivision-flag", "keycap", "skin-tone", "hair-style"})
# An insult, plain or symbolic flags (a white one is invisible on white).
_SKIPPED_NAMES = frozenset(
    {"middle finger", "black flag", "white flag", "rainbow flag", "transgender flag", "pirate flag"}
)
# Joined sequences that only repeat a neutral concept with a gender, a family composition or a direction.
_REPEATED_PERSON = re.compile(r"^(man|woman|family|kiss:|couple with heart:)|facing right$")
_CLOCK_FACE = re.compile(r"(o[’']clock|-thirty)$")
_JOINER, _GENDER_SIGNS = "\u200d", "\u2640\u2642"
_VARIATION_SELECTORS = re.compile("[\ufe0e\ufe0f]")
# CLDR 48 calls the llama by the name of the rhea, a bird (one character differs).
_CORRECTED_ZH = {"美洲鸵": "美洲驼"}
# Words that say nothing about which thing it is.
_STOP_WORDS = frozenset({"a", "an", "and", "at", "in", "of", "on", "the", "to", "with", "without", "face"})


@dataclass(frozen=True)
class Concept:
    """One thing that can be drawn, with its names in both languages."""

    key: str  # hex code points without variation selectors, e.g. "1f436"
    name_en: str
    name_zh: str
    keywords_en: tuple[str, ...]
    keywords_zh: tuple[str, ...]
    group: str
    subgroup: str
    is_thing: bool
    is_held_out: bool = False

    def name(self, language: str) -> str:
        """Return its name in "en" or "zh"."""
        return self.name_zh if language == "zh" else self.name_en


@dataclass(frozen=True)
class ConceptTable:
    """All concepts; a concept's id is its row. Columns are lists or numpy arrays of that order."""

    concepts: tuple[Concept, ...]

    def __len__(self) -> int:
        return len(self.concepts)

    def __getitem__(self, concept_id: int) -> Concept:
        return self.concepts[concept_id]

    def __iter__(self) -> Iterator[Concept]:
        return iter(self.concepts)

    @cached_property
    def names_en(self) -> list[str]:
        """List the English names."""
        return [concept.name_en for concept in self.concepts]

    @cached_property
    def names_zh(self) -> list[str]:
        """List the Chinese names."""
        return [concept.name_zh for concept in self.concepts]

    @cached_property
    def is_thing(self) -> np.ndarray:
        """Tell things, (N,) bool: animals, food, places, vehicles and objects."""
        return np.array([concept.is_thing for concept in self.concepts], dtype=bool)

    @cached_property
    def is_held_out(self) -> np.ndarray:
        """Tell what is held out, (N,) bool: no drawing, name or keyword of these may be trained on."""
        return np.array([concept.is_held_out for concept in self.concepts], dtype=bool)

    @cached_property
    def thing_ids(self) -> np.ndarray:
        """List the things, (T,) int: the candidates of every test."""
        return np.flatnonzero(self.is_thing)

    @cached_property
    def train_ids(self) -> np.ndarray:
        """List the things that may be trained on, (N',) int."""
        return np.flatnonzero(self.is_thing & ~self.is_held_out)

    @cached_property
    def near_synonyms(self) -> np.ndarray:
        """Tell pairs, (N, N) bool, that must not serve as each other's negatives; see `near_synonym_matrix`."""
        return near_synonym_matrix(self.concepts)


def build_concepts(cache: Path) -> ConceptTable:
    """Fetch the name packages, write `cache/concepts.json` and return the table."""
    archives = {key: fetch(source, cache) for key, source in NAMES.items()}
    annotations: dict[Language, dict[str, dict[str, list[str]]]] = {}
    for language in LANGUAGES:
        derived_path = f"package/annotationsDerived/{language}/annotations.json"
        derived = decode_json(read_member(archives["cldr-derived"], derived_path))
        plain = decode_json(read_member(archives["cldr"], f"package/annotations/{language}/annotations.json"))
        annotations[language] = {**derived["annotationsDerived"]["annotations"], **plain["annotations"]["annotations"]}
    emoji = decode_json(read_member(archives["emojibase"], "package/en/data.json"))
    messages = decode_json(read_member(archives["emojibase"], "package/en/messages.json"))
    table = split_concepts(select_concepts(emoji, messages, annotations))
    rows = [asdict(concept) for concept in table]
    with replacing(cache / "concepts.json") as unfinished:
        unfinished.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    return table


def load_concepts(cache: Path) -> ConceptTable:
    """Read the table that `build_concepts` wrote.

    Raises:
        FileNotFoundError: It was not built; the message has the command.
    """
    path = Path(cache) / "concepts.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; run: python -m fgclip2.drawings --cache {cache}")
    rows = read_json(path)
    for row in rows:
        row.update({column: tuple(row[column]) for column in ("keywords_en", "keywords_zh")})
    return ConceptTable(tuple(Concept(**row) for row in rows))


def select_concepts(
    emoji: Sequence[Mapping[str, Any]],
    messages: Mapping[str, Any],
    annotations: Mapping[Language, Mapping[str, Mapping[str, list[str]]]],
) -> list[Concept]:
    """Make the concepts, in the order of `emoji`.

    Args:
        emoji: The content of emojibase's `data.json`.
        messages: The content of emojibase's `messages.json`, which names groups and subgroups.
        annotations: Language -> emoji without variation selectors -> CLDR's `tts` (name) and `default` (keywords).

    Returns:
        The concepts, none held out yet.
    """
    groups = {entry["order"]: entry["key"] for entry in messages["groups"]}
    # An obsolete subgroup shares its number with a newer one, which comes later and wins.
    subgroups = {entry["order"]: entry["key"] for entry in messages["subgroups"]}
    concepts = []
    for entry in emoji:
        if "group" not in entry or subgroups[entry["subgroup"]] in _SKIPPED_SUBGROUPS:
            continue
        gendered = "gender" in entry or any(sign in entry["emoji"] for sign in _GENDER_SIGNS)
        if _JOINER in entry["emoji"] and (gendered or _REPEATED_PERSON.search(entry["label"])):
            continue
        text = _VARIATION_SELECTORS.sub("", entry["emoji"])
        names = {language: annotations[language][text]["tts"][0] for language in LANGUAGES}
        keywords = {language: tuple(annotations[language][text].get("default", ())) for language in LANGUAGES}
        group = groups[entry["group"]]
        if names["en"] not in _SKIPPED_NAMES:
            concepts.append(
                Concept(
                    key="-".join(f"{ord(character):x}" for character in text),
                    name_en=names["en"],
                    name_zh=_CORRECTED_ZH.get(names["zh"], names["zh"]),
                    keywords_en=keywords["en"],
                    keywords_zh=tuple(_CORRECTED_ZH.get(word, word) for word in keywords["zh"]),
                    group=group,
                    subgroup=subgroups[entry["subgroup"]],
                    is_thing=group in THING_GROUPS and not _CLOCK_FACE.search(names["en"]),
                )
            )
    return concepts


def split_concepts(
    concepts: Sequence[Concept],
    choose: Callable[[Sequence[str], Mapping[str, Sequence[str]]], set[str]] = held_out_keys,
) -> ConceptTable:
    """Mark the concepts that are held out, and take their names out of the others' keywords.

    A concept is eligible only if it has no near synonym, in the strict sense, among all concepts (things or not), so
    that neither a drawing nor a text that is trained on shows it under another name.

    Args:
        concepts: None of them is held out.
        choose: `splits.held_out_keys`, or a stand-in of the same signature.

    Returns:
        The table.
    """
    leaks = np.logical_or.reduce(near_synonym_matrix(concepts, strict=True), axis=1)  # (N,)
    eligible: dict[str, list[str]] = {}
    for concept, leak in zip(concepts, leaks, strict=True):
        if concept.is_thing and not leak:
            eligible.setdefault(concept.group, []).append(concept.key)
    keys = choose([concept.group for concept in concepts if concept.is_thing], eligible)
    held_out = [concept for concept in concepts if concept.key in keys]
    return ConceptTable(
        tuple(
            replace(concept, is_held_out=True) if concept.key in keys else _without_names_of(concept, held_out)
            for concept in concepts
        )
    )


def near_synonym_matrix(concepts: Sequence[Concept], strict: bool = False) -> np.ndarray:
    """Tell which concepts could pass for one another.

    Two concepts are near synonyms where, in either language, one name contains the other (dog, guide dog), or over
    half of all the keywords of the two are common to both.

    Args:
        concepts: N concepts.
        strict: Take half of the smaller keyword set as enough. This also finds mere relatives (dog, cat), good for
            saying what is surely new to a model, too much for choosing negatives.

    Returns:
        (N, N) bool, symmetric, False on the diagonal.
    """
    words = _incidence([_words(concept.name_en) for concept in concepts])
    common, sizes = words @ words.T, words.sum(axis=1)
    contains = (common == sizes[None, :]) & (sizes[None, :] > 0)  # [i, j]: name i has all the words of name j
    contains |= np.array([[b.name_zh in a.name_zh for b in concepts] for a in concepts], dtype=bool)
    matrix = contains | contains.T
    for keywords in ([c.keywords_en for c in concepts], [c.keywords_zh for c in concepts]):
        incidence = _incidence(keywords)  # (N, V)
        common, sizes = incidence @ incidence.T, incidence.sum(axis=1)
        smaller = np.minimum(sizes[:, None], sizes[None, :])
        overlap = common / np.maximum(smaller if strict else sizes[:, None] + sizes[None, :] - common, 1)  # (N, N)
        matrix |= overlap > MAX_KEYWORD_OVERLAP
    np.fill_diagonal(matrix, False)
    return matrix


def _words(name: str) -> frozenset[str]:
    """Return the content words of an English name, singular enough to match each other."""
    words = re.findall(r"[\w’']+", name.lower())
    return frozenset(word.removesuffix("s") if len(word) > 3 else word for word in words) - _STOP_WORDS


def _incidence(sets: Sequence[Collection[str]]) -> np.ndarray:
    """Return (N, V) float32: 1 where set i has word v."""
    column = {word: index for index, word in enumerate(dict.fromkeys(word for words in sets for word in words))}
    matrix = np.zeros((len(sets), len(column)), dtype=np.float32)
    for row, words in enumerate(sets):
        matrix[row, [column[word] for word in words]] = 1
    return matrix


def _without_names_of(concept: Concept, held_out: Sequence[Concept]) -> Concept:
    """Drop keywords that name a held-out concept, in whole words (English) or as a substring (Chinese)."""
    keywords_en = tuple(k for k in concept.keywords_en if not any(_words(h.name_en) <= _words(k) for h in held_out))
    keywords_zh = tuple(k for k in concept.keywords_zh if not any(h.name_zh in k for h in held_out))
    return replace(concept, keywords_en=keywords_en, keywords_zh=keywords_zh)
