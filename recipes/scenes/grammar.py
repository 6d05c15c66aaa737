"""A caption grammar: what is known of a scene, said in free wording, in English and Chinese.

`language/patterns_*.json` has sentence patterns and `language/words_*.json` has synonyms, both split into training,
validation and test, so that a model is measured on sentences and words that it was not trained on. A pattern says one
object by its `item` (the first one by its `first`, one without a plate by its `bare`, where it has them), joins the
items and puts them into its `whole`. What stands in brackets is left out where one of its slots has nothing to say.
Synonyms of things are CLDR keywords of the concept, chosen by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fgclip2.drawings.concepts import ConceptTable
from fgclip2.drawings.phrases import (
    COLOURS,
    POSITIONS,
    SHAPES,
    SIZES,
    Description,
    is_mass,
    is_plural,
    portion,
    takes_particle,
    with_article,
)
from fgclip2.drawings.scenes import Scene
from fgclip2.files import read_json
from fgclip2.languages import LANGUAGES, Language
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer

from .unknown_words import made_up

GrammarSplit = Literal["train", "validation", "test"]
GRAMMAR_SPLITS: tuple[GrammarSplit, ...] = ("train", "validation", "test")
FOLDER = Path(__file__).parent / "language"
SHORT_TOKENS, LONG_TOKENS = 64, 196  # what the heads for short and for long captions read

_SAID_SHARE = 0.7  # of the properties of an object, in captions that don't say everything
_COUNTS = {"en": ("one thing", "two things", "three things", "four things", "five things"), "zh": tuple("一两三四五")}
_OPTIONAL = re.compile(r"\[([^][]*)\]")
_SLOT = re.compile(r"{(\w+)}")
_ARTICLE = re.compile(r"\ba (\S+)")
_SENTENCE_START = re.compile(r"(^|[.?!] )([a-z])")
# "in the upper left corner" -> "upper left corner", as people write into a search box
_BEFORE_SIDE = re.compile(r"^(at|in|on|to|near|towards) the ")

Slots = Mapping[str, str | None]  # None: unsaid


@dataclass(frozen=True)
class SceneFacts:
    """All that captions may say of a scene, in no language.

    Args:
        background_colour: Of a plain background; None for a photograph.
        objects: In the order of the scene's regions; the size of medium ones is None, for nobody mentions it.
    """

    background_colour: str | None
    objects: tuple[Description, ...]


def facts_of(scene: Scene) -> SceneFacts:
    """Return what is known of a scene as it was made."""
    truths = (region.truth for region in scene.regions)
    return SceneFacts(
        scene.background_colour,
        tuple(replace(truth, size=truth.size if truth.size in SIZES else None) for truth in truths),
    )


class Grammar:
    """Writes captions and region phrases with the patterns and the synonyms of one split.

    Args:
        table: The concepts.
        tokenizer: Counts the tokens of captions.
        language: Of the texts.
        split: "train", "validation" or "test".
        synonym_share: How often a word is replaced by a synonym of the split where there is one: 0 keeps the words of
            the composed captions, 1 avoids them.
        whole_share: How often a caption says everything that fits; the others say some of the objects and properties.
        unknown_share: Of the words that `synonym_share` replaces, names of things left out, those that a made-up word
            stands in for, in training only.
    """

    def __init__(
        self,
        table: ConceptTable,
        tokenizer: FGClip2Tokenizer,
        language: Language,
        split: GrammarSplit,
        synonym_share: float,
        whole_share: float = 1.0,
        unknown_share: float = 0.0,
    ):
        patterns = read_json(FOLDER / f"patterns_{language}.json")
        words = read_json(FOLDER / f"words_{language}.json")
        self.table, self.tokenizer, self.language, self.split = table, tokenizer, language, split
        self.synonym_share, self.whole_share, self.unknown_share = synonym_share, whole_share, unknown_share
        self.patterns: list[dict[str, Any]] = patterns["captions"][split]
        self.region_patterns: list[str] = patterns["regions"]
        self.words, self.same_words = words[split], words["same"]
        self.measures = {noun: measure for measure, nouns in words.get("measures", {}).items() for noun in nouns}

    def caption(self, facts: SceneFacts, rng: np.random.Generator, max_tokens: int) -> str:
        """Say the objects of a scene, in any order, by one of the patterns.

        Args:
            facts: What is known of the scene.
            rng: Random state; the same one gives the same caption.
            max_tokens: `SHORT_TOKENS` or `LONG_TOKENS`; objects that don't fit are left out.
        """
        pattern = self.patterns[rng.integers(len(self.patterns))]
        said = [facts.objects[index] for index in rng.permutation(len(facts.objects))]
        is_whole = rng.random() < self.whole_share
        if not is_whole:
            templates = [pattern[name] for name in ("item", "first", "bare") if name in pattern]
            count = rng.integers(1, len(said) + 1)
            said = [_some_of(one, _needs_place(*templates), rng) for one in said[:count]]
        while True:
            text = self.render(pattern, said, self._background(facts, rng) if is_whole else None, rng)
            if len(self.tokenizer(text, padding=False, truncation=False)["input_ids"]) <= max_tokens:
                return text
            assert len(said) > 1, text
            said.pop()

    def region_phrase(self, said: Description, rng: np.random.Generator) -> str:
        """Say one object by a noun phrase, with some of its properties unless everything is to be said."""
        pattern = self.region_patterns[rng.integers(len(self.region_patterns))]
        if rng.random() >= self.whole_share:
            said = _some_of(said, _needs_place(pattern), rng)
        return _finished(_filled(pattern, self._slots(said, rng)))

    def render(
        self, pattern: Mapping[str, Any], said: Sequence[Description], background: str | None, rng: np.random.Generator
    ) -> str:
        """Return the caption that a pattern makes of objects in their order."""
        items, verb = [], None
        for index, one in enumerate(said):
            slots = self._slots(one, rng)
            verb = verb or slots["is"]  # of the first: "There is a bomb", "There are scissors"
            item = pattern["item"] if index or "first" not in pattern else pattern["first"]
            items.append(_filled(item if one.colour else pattern.get("bare", item), slots))
        separator, before_last = pattern["join"]
        listed = separator.join(items[:-1]) + before_last + items[-1] if len(items) > 1 else items[0]
        count = _COUNTS[self.language][len(said) - 1]
        return _finished(
            _filled(pattern["whole"], {"items": listed, "is": verb, "count": count, "background": background})
        )

    def _slots(self, said: Description, rng: np.random.Generator) -> Slots:
        own = LANGUAGES.index(self.language)
        concept = self.table[said.concept_id]
        place = side = plate = size = predicate = None
        if said.position:
            place = self._word("places", POSITIONS[said.position][own], rng)
            side = _BEFORE_SIDE.sub("", place)
        if said.colour and said.shape:
            plate = self._option("plates", said.shape, rng).format(
                colour=self._word("colours", COLOURS[said.colour][own], rng), shape=SHAPES[said.shape][own]
            )
        noun = self._word("things", concept.name(self.language), rng)
        if said.size:
            size = self._word("sizes", said.size, rng, SIZES[said.size][own])
            predicate = self._word("predicates", said.size, rng, SIZES[said.size][own])
        common = {"place": place, "plate": plate, "predicate": predicate}
        if self.language == "zh":
            if size in ("大", "小") and takes_particle(noun):
                size += "的"
            measure = self.measures.get(noun, self.measures.get(concept.name_zh, "一个"))
            phrases = {"noun": noun, "np": (size or "") + noun, "m": measure, "c": measure.removeprefix("一")}
            board = plate and plate.replace("的", "")  # where one more 的 would be too many
            return {**common, **phrases, "board": board, "is": ""}
        is_own_name = noun == concept.name_en
        noun = portion(noun) if size else noun
        plural = is_plural(concept.name_en)
        article = "" if plural or (is_own_name and is_mass(concept.name_en) and not size) else "a "
        sized = f"{size} {noun}" if size else noun
        phrases = {"a": article, "noun": noun, "nb": sized, "np": article + sized, "side": side}
        forms = {"is": "are", "has": "have", "s": ""} if plural else {"is": "is", "has": "has", "s": "s"}
        return {**common, **phrases, **forms, "them": "them" if plural else "it"}

    def _word(self, kind: str, key: str, rng: np.random.Generator, own: str | None = None) -> str:
        """Return a synonym of `key`, or `own` (by default `key` itself)."""
        if kind != "things" and self._is_unknown(rng):
            side = key[:-1] if self.language == "zh" else _BEFORE_SIDE.sub("", key)
            return made_up(self.language, kind, own or key, side, rng)
        synonyms = self.words[kind].get(key, ())
        if synonyms and rng.random() < self.synonym_share:
            return synonyms[rng.integers(len(synonyms))]
        return own or key

    def _is_unknown(self, rng: np.random.Generator) -> bool:
        return self.unknown_share > 0 and rng.random() < self.synonym_share * self.unknown_share

    def _option(self, kind: str, key: str, rng: np.random.Generator) -> str:
        """Return a template with other words, or one with the words of the composed captions."""
        if self._is_unknown(rng):
            return made_up(self.language, f"{key} {kind}", "", "", rng)
        words = self.words if rng.random() < self.synonym_share else self.same_words
        return words[kind][key][rng.integers(len(words[kind][key]))]

    def _background(self, facts: SceneFacts, rng: np.random.Generator) -> str:
        if facts.background_colour is None:
            return self._option("backgrounds", "photograph", rng)
        colour = self._word("colours", COLOURS[facts.background_colour][LANGUAGES.index(self.language)], rng)
        return self._option("backgrounds", "plain", rng).format(colour=colour)


def build_grammars(
    table: ConceptTable,
    tokenizer: FGClip2Tokenizer,
    split: GrammarSplit,
    synonym_share: float,
    **shares: float,
) -> dict[str, Grammar]:
    """Return the grammar of each language; arguments as those of `Grammar`."""
    return {language: Grammar(table, tokenizer, language, split, synonym_share, **shares) for language in LANGUAGES}


def _needs_place(*templates: str) -> bool:
    """Tell whether one of the templates says a position outside of brackets."""
    return any({"place", "side"} & set(_SLOT.findall(_OPTIONAL.sub("", template))) for template in templates)


def _some_of(said: Description, needs_place: bool, rng: np.random.Generator) -> Description:
    """Leave out some of the properties."""
    size, plate, place = rng.random(3) < _SAID_SHARE
    return Description(
        said.concept_id,
        said.size if size else None,
        said.colour if plate else None,
        said.shape if plate else None,
        said.position if place or needs_place else None,
    )


def _filled(template: str, slots: Slots) -> str:
    """Fill the slots, and drop each part in brackets that has an unsaid one."""

    def kept(match: re.Match[str]) -> str:
        return "" if any(slots[name] is None for name in _SLOT.findall(match[1])) else match[1]

    return _OPTIONAL.sub(kept, template).format_map(slots)


def _finished(text: str) -> str:
    """Choose "a" or "an" by the next sound, and begin English sentences with a capital letter."""
    text = _ARTICLE.sub(lambda match: with_article(match[1], "plate"), text)
    if text.endswith((".", "?", "!")):
        text = _SENTENCE_START.sub(lambda match: match[1] + match[2].upper(), text)
    return text
