"""The three test protocols, from solved by pixels to not: clean, placed and photo.

clean: the drawing fills a white canvas. placed: at a random scale and place on white. photo: the same scale and place
on a crop of a photograph that no training picture has as its background.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from fgclip2.checks import check_choice
from fgclip2.drawings.backgrounds import load_backgrounds, paste, pyramid, random_crops, random_square, white_canvas
from fgclip2.drawings.concepts import ConceptTable
from fgclip2.drawings.cutouts import load_cutouts
from fgclip2.drawings.splits import BackgroundSplit

Protocol = Literal["clean", "placed", "photo"]
PROTOCOLS: tuple[Protocol, ...] = ("clean", "placed", "photo")


@dataclass(frozen=True)
class ProtocolSet:
    """Test pictures of one artist under one protocol: one of each thing that the artist drew, held out or not."""

    images: list[Image.Image]  # N RGB images, all of the canvas size
    concept_ids: np.ndarray  # (N,) int64, ascending

    @property
    def pixels(self) -> np.ndarray:
        """(N, H, W, 3) uint8."""
        return np.stack([np.asarray(image) for image in self.images])


def build_protocol_set(
    cache: Path,
    table: ConceptTable,
    artist: str,
    protocol: Protocol,
    canvas: int = 64,
    background_split: BackgroundSplit = "test",
    seed: int = 0,
) -> ProtocolSet:
    """Make a test set; the same arguments give the same pixels.

    Args:
        cache: the folder that was built.
        table: the concepts.
        artist: a name of `splits.ARTIST_SPLITS`.
        protocol: "clean", "placed" or "photo".
        canvas: side of the pictures in pixels, e.g. 64 or 96.
        background_split: whose photographs "photo" uses; with the validation artist, "validation".
        seed: of scale, place and background. Each concept draws its own, so they don't depend on the other concepts.

    Returns:
        The pictures and their concepts.

    Raises:
        ValueError: no such artist, protocol or split.
    """
    check_choice("protocol", protocol, PROTOCOLS)
    all_ids, rgba = load_cutouts(cache, artist)
    concept_ids, first = np.unique(all_ids, return_index=True)
    things = table.is_thing[concept_ids]
    concept_ids, first = concept_ids[things], first[things]
    photographs = [pyramid(photo) for photo in load_backgrounds(cache, background_split)] if protocol == "photo" else []
    images = []
    for concept_id, row in zip(concept_ids, first, strict=True):
        rng = np.random.default_rng([seed, int(concept_id)])
        cutout = Image.fromarray(rgba[row])
        if protocol == "clean":
            images.append(paste(white_canvas(canvas), cutout, (0, 0, canvas, canvas)))
            continue
        box = random_square(canvas, canvas, rng)  # drawn first: the same place in "placed" and "photo"
        background = white_canvas(canvas)
        if protocol == "photo":
            background = Image.fromarray(random_crops(photographs, 1, canvas, canvas, rng)[0])
        images.append(paste(background, cutout, box))
    return ProtocolSet(images, concept_ids)
