"""Pairs of composed scenes, of single drawings, and of pictures that people described: what matches and what does not.

A pair matches if the text was written for the image or region. The others are texts of other images, without those that
may be true of the image, too: where all things that a text names are there, or near synonyms of them. Which head reads
a caption is decided by its length, as the embedder does it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from fgclip2 import Embedder
from fgclip2.drawings.concepts import ConceptTable
from fgclip2.drawings.photographs import load_described
from fgclip2.drawings.phrases import with_article
from fgclip2.drawings.scene_sets import SceneSet
from fgclip2.drawings.splits import BackgroundSplit, artists
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.pixels import patch_budget

from ..embedded_checkpoint.protocols import build_protocol_set

OTHERS = 100  # texts of other images for each text of its own
SIDE = 96  # of single drawings in pixels: 36 patches
SCENES, DRAWINGS, DESCRIBED = "scenes", "drawings", "described"  # kinds of captions
PHRASES, NAMES = "phrases", "names"  # kinds of texts of regions
HARD = "another thing"  # phrases that are true of the region but for the thing

Budget = int | str
# (role, language) -> kind of pairs -> what they show
AllPairs = dict[tuple[str, str], dict[str, "Pairs"]]


class Pairs(NamedTuple):
    """Cosines (N,) of pairs, whether each matches, and the number of the image that its text was written for."""

    cosines: np.ndarray
    matches: np.ndarray
    owners: np.ndarray


class Captions(NamedTuple):
    """Captions in one language.

    Attributes:
        texts: Vectors (T, D).
        roles: (T,), that the length of each gives it.
        image_of: (T,) the number of the image that each was written for.
        may_match: Booleans (T, I): which images each may be true of, its own included.
    """

    texts: np.ndarray
    roles: np.ndarray
    image_of: np.ndarray
    may_match: np.ndarray


def draw_pairs(
    images: np.ndarray, texts: np.ndarray, image_of: np.ndarray, may_match: np.ndarray, rng: np.random.Generator
) -> Pairs:
    """Pair each text with its own image, and with images that it is not true of.

    Args:
        images: Vectors of images or regions (I, D).
        texts: Vectors of texts (T, D).
        image_of: (T,) which image each text is of.
        may_match: Booleans (T, I): the images that are never "others".
        rng: Draws the others.
    """
    own = np.einsum("td,td->t", images[image_of], texts)
    drawn = rng.integers(0, len(images), (len(texts), OTHERS))  # (T, OTHERS)
    is_other = ~np.take_along_axis(may_match, drawn, axis=1)
    others = np.einsum("tkd,td->tk", images[drawn], texts)[is_other]
    owners = np.r_[image_of, np.repeat(image_of, is_other.sum(axis=1))]
    return Pairs(np.r_[own, others], np.r_[np.ones(len(own), bool), np.zeros(len(others), bool)], owners)


def may_be_true(named: Sequence[Collection[int]], shown: Sequence[Collection[int]], table: ConceptTable) -> np.ndarray:
    """Return which texts may be true of which images, booleans (T, I): all that they name is there, or a near synonym.

    Args:
        named: The concepts that each text names.
        shown: The concepts that each image shows.
        table: The concepts.
    """
    alike = table.near_synonyms | np.eye(len(table), dtype=bool)
    there = np.stack([alike[list(its)].any(axis=0) for its in shown])  # (I, concepts)
    return np.stack([there[:, list(its)].all(axis=1) for its in named])


def scene_pairs(
    embedder: Embedder, scenes: SceneSet, table: ConceptTable, budgets: Sequence[Budget], seed: int
) -> dict[Budget, AllPairs]:
    """Return the pairs of scenes, and of their regions, at each patch budget; texts are encoded once.

    Regions also have phrases of another thing that are true in all else, a kind of pairs by themselves.
    """
    numbers = range(len(scenes))
    images, boxes = [scenes.image(number) for number in numbers], [scenes.boxes(number) for number in numbers]
    concept_of = {table[row].name_en: row for row in table.thing_ids.tolist()}
    things = [[concept_of[region["category"]] for region in row["bbox_info"]] for row in scenes.records["en"]]
    may_match = may_be_true(things, things, table)  # (scenes, scenes)
    captions = {}
    phrases: dict[str, dict[str, np.ndarray]] = {}
    for language in LANGUAGES:
        records = scenes.records[language]
        texts = [record[field] for field in ("short_caption", "caption") for record in records]
        captions[language] = encode_captions(embedder, texts, [*numbers] * 2, np.tile(may_match, (2, 1)))
        regions = [region for record in records for region in record["bbox_info"]]
        of_kind = {
            PHRASES: [region["short_expr"] for region in regions],
            NAMES: [region["category"] for region in regions],
            HARD: [next(iter(region["short_expr_negs"].values())) for region in regions],  # first: of another thing
        }
        phrases[language] = {kind: embedder.encode_texts(its, role="region_phrase") for kind, its in of_kind.items()}
    scene_of = np.repeat(numbers, list(map(len, boxes)))  # (regions,)
    alone = [[concept] for its in things for concept in its]
    never_other = may_be_true(alone, alone, table) | (scene_of[:, None] == scene_of)  # (regions, regions)

    def pairs_at(budget: Budget) -> AllPairs:
        rng = np.random.default_rng(seed)
        vectors = embedder.encode_images(images, max_num_patches=budget)
        of_regions = np.concatenate(embedder.encode_regions(images, boxes, max_num_patches=budget))
        found: AllPairs = {}
        for language in LANGUAGES:
            found |= caption_pairs(vectors, captions[language], language, SCENES, rng)
            kinds = region_pairs(of_regions, phrases[language], scene_of, never_other, rng)
            found["region_phrase", language] = kinds
        return found

    return at_budgets(images, budgets, pairs_at)


def region_pairs(
    regions: np.ndarray,
    phrases: dict[str, np.ndarray],
    scene_of: np.ndarray,
    never_other: np.ndarray,
    rng: np.random.Generator,
) -> dict[str, Pairs]:
    """Return the pairs of regions and phrases by kind; those of one scene have one owner.

    Args:
        regions: Vectors (R, D).
        phrases: Kind -> vectors (R, D), one of each region.
        scene_of: (R,) the number of the scene of each region.
        never_other: Booleans (R, R), see [`draw_pairs`].
        rng: Draws the others.
    """
    own = np.arange(len(regions))
    kinds = {kind: draw_pairs(regions, phrases[kind], own, never_other, rng) for kind in (PHRASES, NAMES)}
    kinds = {kind: pairs._replace(owners=scene_of[pairs.owners]) for kind, pairs in kinds.items()}
    cosines = np.einsum("rd,rd->r", regions, phrases[HARD])
    return {**kinds, HARD: Pairs(cosines, np.zeros(len(cosines), bool), scene_of)}


def drawing_pairs(
    embedder: Embedder, cache: Path, split: BackgroundSplit, table: ConceptTable, budgets: Sequence[Budget], seed: int
) -> dict[Budget, AllPairs]:
    """Return the pairs of single drawings by the artist of a split, at each patch budget.

    One of each thing that was trained on, by turns on white and on a photograph, and called by its name alone or in a
    template.
    """
    (artist,) = artists(split)
    sets = [build_protocol_set(cache, table, artist, protocol, SIDE, split) for protocol in ("clean", "photo")]
    concepts = sets[0].concept_ids.tolist()
    known = [row for row, concept in enumerate(concepts) if not table.is_held_out[concept]]
    images = [sets[number % 2].images[row] for number, row in enumerate(known)]
    alone = [[concepts[row]] for row in known]
    may_match = may_be_true(alone, alone, table)
    captions = {
        language: encode_captions(
            embedder,
            [text_of_drawing(table, concepts[row], language, number) for number, row in enumerate(known)],
            range(len(known)),
            may_match,
        )
        for language in LANGUAGES
    }
    return pairs_of_captions(embedder, images, captions, budgets, DRAWINGS, seed)


def text_of_drawing(table: ConceptTable, concept: int, language: str, number: int) -> str:
    """Return the name of a thing, or of two in four drawings a text with it."""
    name = table[concept].name(language)
    if number % 4 < 2:
        return name
    return f"a picture of {with_article(name, name)}" if language == "en" else f"一张{name}的图片"


def described_pairs(embedder: Embedder, cache: Path, budgets: Sequence[Budget], seed: int) -> dict[Budget, AllPairs]:
    """Return the pairs of photographs and drawings from elsewhere, which people described in both languages."""
    pictures = [picture for name in ("boards", "stamps") for picture in load_described(cache, name)]
    captions = {}
    for language in LANGUAGES:
        texts = [
            (number, text)
            for length in ("short", "long")
            for number, picture in enumerate(pictures)
            if (text := getattr(picture, f"{length}_{language}"))
        ]
        image_of = np.array([number for number, _ in texts])
        of_image: list[set[str]] = [set() for _ in pictures]
        for number, text in texts:
            of_image[number].add(text)
        may_match = np.array([[text in its for its in of_image] for _, text in texts])
        captions[language] = encode_captions(embedder, [text for _, text in texts], image_of, may_match)
    return pairs_of_captions(embedder, [picture.path for picture in pictures], captions, budgets, DESCRIBED, seed)


def pairs_of_captions(
    embedder: Embedder,
    images: Sequence[Image.Image | Path],
    captions: dict[str, Captions],
    budgets: Sequence[Budget],
    kind: str,
    seed: int,
) -> dict[Budget, AllPairs]:
    """Return the pairs of images and their captions at each patch budget."""

    def pairs_at(budget: Budget) -> AllPairs:
        rng = np.random.default_rng(seed)
        vectors = embedder.encode_images(images, max_num_patches=budget)
        found: AllPairs = {}
        for language, its in captions.items():
            found |= caption_pairs(vectors, its, language, kind, rng)
        return found

    return at_budgets(images, budgets, pairs_at)


def at_budgets(
    images: Sequence[Image.Image | Path], budgets: Sequence[Budget], pairs_at: Callable[[Budget], AllPairs]
) -> dict[Budget, AllPairs]:
    """Return the pairs at each budget; where `"auto"` gives all images what another budget does, they are the same."""
    found: dict[Budget, AllPairs] = {}
    for budget in budgets:
        spent = budget
        if budget == "auto" and all(isinstance(image, Image.Image) for image in images):
            of_images = {patch_budget(image.height, image.width) for image in images}  # type: ignore[union-attr]
            spent = of_images.pop() if len(of_images) == 1 else budget
        found[budget] = found[spent] if spent in found else pairs_at(spent)
    return found


def encode_captions(
    embedder: Embedder, captions: Sequence[str], image_of: Sequence[int] | np.ndarray, may_match: np.ndarray
) -> Captions:
    """Encode captions in one language, each by the head that its length gives it."""
    roles = np.array(embedder.roles_of(captions))
    return Captions(embedder.encode_texts(captions), roles, np.asarray(image_of), may_match)


def caption_pairs(
    images: np.ndarray, captions: Captions, language: str, kind: str, rng: np.random.Generator
) -> AllPairs:
    """Return the pairs of captions by the head that reads them, (role, language) -> {kind: pairs}.

    Args:
        images: Vectors (I, D).
        captions: Of these images.
        language: Of the captions.
        kind: What the pairs are called.
        rng: Draws the others.
    """
    found: AllPairs = {}
    for role in sorted(set(captions.roles.tolist())):
        rows = np.flatnonzero(captions.roles == role)
        pairs = draw_pairs(images, captions.texts[rows], captions.image_of[rows], captions.may_match[rows], rng)
        found[role, language] = {kind: pairs}
    return found


def joined(pairs: Sequence[Pairs]) -> Pairs:
    """Return all pairs as one."""
    return Pairs(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))


def merged(first: AllPairs, second: AllPairs) -> AllPairs:
    """Return the kinds of both, by role and language."""
    return {key: first.get(key, {}) | second.get(key, {}) for key in first | second}
