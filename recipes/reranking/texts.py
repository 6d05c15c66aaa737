"""Captions of validation scenes in other words and orders than the generated ones, from what scenes are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fgclip2.drawings.concepts import Concept, ConceptTable
from fgclip2.drawings.phrases import COLOURS, POSITIONS, SHAPES, Description, is_plural, listing, with_article
from fgclip2.drawings.scene_sets import SceneSet, scene_builder
from fgclip2.languages import LANGUAGES, Language

SIZE_WORDS = {"small": ("tiny", "小小的"), "large": ("big", "巨大的")}


def clauses(concept: Concept, truth: Description, language: Language) -> str:
    """Say everything of a thing in clauses behind its noun."""
    position = POSITIONS[truth.position or (1, 1)][LANGUAGES.index(language)]
    if language == "zh":
        text = f"{concept.name_zh}在{position}"
        text += f"，看上去很{'大' if truth.size == 'large' else '小'}" if truth.size in SIZE_WORDS else ""
        return text + (f"，底下是{COLOURS[truth.colour][1]}的{SHAPES[truth.shape][1]}板" if truth.colour else "") + "。"
    text = f"{with_article(concept.name_en, concept.name_en)} {position}"
    verb, has = ("are", "have") if is_plural(concept.name_en) else ("is", "has")
    text += f" that {verb} {truth.size}" if truth.size in SIZE_WORDS else ""
    plate = f"{SHAPES[truth.shape][0]} {COLOURS[truth.colour][0]} plate" if truth.colour else ""
    return text + (f" and {has} {with_article(plate, 'plate')} beneath it" if plate else "")


def words(concept: Concept, truth: Description, language: Language) -> str:
    """Say everything of a thing in words that the generated captions don't have."""
    index = LANGUAGES.index(language)
    size = SIZE_WORDS[truth.size][index] if truth.size in SIZE_WORDS else ""
    if language == "zh":
        plate = f"摆在{COLOURS[truth.colour][1]}{SHAPES[truth.shape][1]}垫子上" if truth.colour else ""
        return f"{POSITIONS[truth.position or (1, 1)][1]}能看到一个{size}{concept.name_zh}{plate}"
    noun = f"{size} {concept.name_en}".strip()
    text = noun if is_plural(concept.name_en) else with_article(noun, concept.name_en if not size else "")
    plate = f"{COLOURS[truth.colour][0]} {SHAPES[truth.shape][0]} base" if truth.colour else ""
    return text + (f" standing on {with_article(plate, 'plate')}" if plate else "")


def captions(
    of_thing: Callable[[Concept, Description, Language], str], scene, table: ConceptTable, language: Language
) -> str:
    """Return a caption that speaks of the things of a scene in reverse order."""
    things = [of_thing(table[r.truth.concept_id], r.truth, language) for r in reversed(scene.regions)]
    if language == "zh":
        return "".join(things) if of_thing is clauses else "，".join(things) + "。"
    return "There is " + listing(things, "en") + "." if of_thing is words else "; ".join(things) + "."


def validation_texts(
    cache: Path, table: ConceptTable, scenes: SceneSet, seed: int, count: int
) -> dict[str, dict[str, list[str]]]:
    """Return for each kind of caption and each language the captions of the first scenes.

    Args:
        cache: The folder of the demo data.
        table: The concepts.
        scenes: The validation scenes.
        seed: That they were made with: they are made again, for the records don't say all.
        count: How many scenes.
    """
    builder = scene_builder(cache, table, "validation")
    made = [builder.build(np.random.default_rng([seed, number])) for number in range(count)]
    texts: dict[str, dict[str, list[str]]] = {
        kind: {language: [row[field] for row in rows[:count]] for language, rows in scenes.records.items()}
        for kind, field in (("long", "caption"), ("short", "short_caption"))
    }
    for of_thing in (clauses, words):
        texts[of_thing.__name__] = {
            language: [captions(of_thing, scene, table, language) for scene in made] for language in LANGUAGES
        }
    return texts
