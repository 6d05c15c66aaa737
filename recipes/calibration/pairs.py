"""Pairs of composed scenes, and of pictures that people described, with their cosines: what matches and what does not.

A pair matches if the text was written for the image or region; the others are texts of other scenes. Which head reads a
caption is decided by its length, as the embedder does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fgclip2 import Embedder
from fgclip2.drawings.photographs import load_described
from fgclip2.drawings.scene_sets import SceneSet
from fgclip2.languages import LANGUAGES

OTHERS = 100  # texts of other scenes for each text of its own
HARD = "another thing"  # phrases that are true of the region but for the thing

# (role, language) -> kind of pairs -> what they show
AllPairs = dict[tuple[str, str], dict[str, "Pairs"]]


class Pairs(NamedTuple):
    """Cosines (N,) of pairs, and whether each matches."""

    cosines: np.ndarray
    matches: np.ndarray


def draw_pairs(
    images: np.ndarray, texts: np.ndarray, image_of: Sequence[int], owners: np.ndarray, rng: np.random.Generator
) -> Pairs:
    """Pair each text with its own image, and with images that it was not written for.

    Args:
        images: Vectors of images or regions (I, D).
        texts: Vectors of texts (T, D).
        image_of: (T,) which image each text is of.
        owners: (I,) the scene of each image or region: those of the text's own scene are never "others".
        rng: Draws the others.
    """
    rows = np.asarray(image_of)
    own = np.einsum("td,td->t", images[rows], texts)
    drawn = rng.integers(0, len(images), (len(texts), OTHERS))  # (T, OTHERS)
    is_other = owners[drawn] != owners[rows][:, None]
    others = np.einsum("tkd,td->tk", images[drawn], texts)[is_other]
    return Pairs(np.r_[own, others], np.r_[np.ones(len(own), bool), np.zeros(len(others), bool)])


def scene_pairs(
    embedder: Embedder, scenes: SceneSet, count: int, budgets: Sequence[int], seed: int
) -> dict[int, AllPairs]:
    """Return the pairs of the first `count` scenes of a set at each patch budget; texts are encoded once.

    Regions also have phrases of another thing that are true in all else, a kind of pairs by themselves.
    """
    numbers = range(count)
    images, boxes = [scenes.image(number) for number in numbers], [scenes.boxes(number) for number in numbers]
    scene_of = np.repeat(numbers, [len(its) for its in boxes])
    captions = {
        language: [
            record[field] for field in ("short_caption", "caption") for record in scenes.records[language][:count]
        ]
        for language in LANGUAGES
    }
    regions = {
        language: [region for record in scenes.records[language][:count] for region in record["bbox_info"]]
        for language in LANGUAGES
    }
    caption_vectors = {language: encode_captions(embedder, captions[language]) for language in LANGUAGES}
    phrases = {
        language: {
            "phrases": [region["short_expr"] for region in its],
            "names": [region["category"] for region in its],
            HARD: [next(iter(region["short_expr_negs"].values())) for region in its],  # the first is of another thing
        }
        for language, its in regions.items()
    }
    phrase_vectors = {
        language: {kind: embedder.encode_texts(texts, role="region_phrase") for kind, texts in kinds.items()}
        for language, kinds in phrases.items()
    }
    found: dict[int, AllPairs] = {}
    for budget in budgets:
        rng = np.random.default_rng(seed)
        image_vectors = embedder.encode_images(images, max_num_patches=budget)
        region_vectors = np.concatenate(embedder.encode_regions(images, boxes, max_num_patches=budget))
        found[budget] = {}
        for language in LANGUAGES:
            found[budget] |= caption_pairs(image_vectors, caption_vectors[language], [*numbers] * 2, language, rng)
            its = phrase_vectors[language]
            of_regions = {
                kind: draw_pairs(region_vectors, its[kind], np.arange(len(scene_of)), scene_of, rng)
                for kind in ("phrases", "names")
            }
            cosines = np.einsum("rd,rd->r", region_vectors, its[HARD])
            of_regions[HARD] = Pairs(cosines, np.zeros(len(cosines), bool))
            found[budget]["region_phrase", language] = of_regions
    return found


def encode_captions(embedder: Embedder, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors (T, D) of captions, and the role (T,) that their length gives each."""
    return embedder.encode_texts(captions), np.array(embedder.roles_of(captions))


def caption_pairs(
    images: np.ndarray,
    captions: tuple[np.ndarray, np.ndarray],
    image_of: Sequence[int],
    language: str,
    rng: np.random.Generator,
) -> AllPairs:
    """Return the pairs of captions by the head that reads them, (role, language) -> {"captions": pairs}.

    Args:
        images: Vectors (I, D).
        captions: Of [`encode_captions`].
        image_of: (T,) the image of each.
        language: Of the captions.
        rng: Draws the others.
    """
    vectors, roles = captions
    found: AllPairs = {}
    for role in sorted(set(roles.tolist())):
        rows = np.flatnonzero(roles == role)
        pairs = draw_pairs(images, vectors[rows], np.asarray(image_of)[rows], np.arange(len(images)), rng)
        found[role, language] = {"captions": pairs}
    return found


def described_pairs(embedder: Embedder, cache: Path, budgets: Sequence[int], seed: int) -> dict[int, AllPairs]:
    """Return the pairs of photographs and drawings from elsewhere, which people described in both languages."""
    pictures = [picture for name in ("boards", "stamps") for picture in load_described(cache, name)]
    of_language: dict[str, tuple[list[int], tuple[np.ndarray, np.ndarray]]] = {}
    for language in LANGUAGES:
        texts = [
            (number, text)
            for length in ("short", "long")
            for number, picture in enumerate(pictures)
            if (text := getattr(picture, f"{length}_{language}"))
        ]
        of_language[language] = [number for number, _ in texts], encode_captions(embedder, [text for _, text in texts])
    found: dict[int, AllPairs] = {}
    for budget in budgets:
        rng = np.random.default_rng(seed)
        images = embedder.encode_images([picture.path for picture in pictures], max_num_patches=budget)
        found[budget] = {}
        for language, (image_of, captions) in of_language.items():
            found[budget] |= caption_pairs(images, captions, image_of, language, rng)
    return found


def joined(pairs: Sequence[Pairs]) -> Pairs:
    """Return all pairs as one."""
    return Pairs(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))
