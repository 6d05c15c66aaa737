"""Many real pictures of few drawings: each on a plain background, at another size and place, maybe mirrored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

SMALLEST = 0.5  # size of a drawing, as a share of that of its picture


def varied_drawings(cutouts: np.ndarray, count: int) -> Iterator[Image.Image]:
    """Yield pictures of drawings, the same ones each time, of which no two are equal.

    Args:
        cutouts: Uint8 (N, side, side, 4), whose last channel says where the drawing is.
        count: How many; each drawing comes about count / N times.
    """
    order = np.random.default_rng(0).permutation(len(cutouts))
    seen = set()
    for number in range(count):
        picture = _vary(cutouts[order[number % len(order)]], np.random.default_rng((1, number)))
        seen.add(hashlib.blake2b(picture.tobytes(), digest_size=16).digest())
        assert len(seen) == number + 1, f"picture {number} is equal to an earlier one"
        yield picture


def _vary(cutout: np.ndarray, chance: np.random.Generator) -> Image.Image:
    side = len(cutout)
    drawing = Image.fromarray(cutout)
    if chance.random() < 0.5:
        drawing = ImageOps.mirror(drawing)
    size = int(chance.integers(round(SMALLEST * side), side + 1))
    drawing = drawing.resize((size, size), Image.Resampling.LANCZOS)
    left, top = chance.integers(0, side - size + 1, 2).tolist()
    picture = Image.new("RGB", (side, side), tuple(chance.integers(0, 256, 3).tolist()))
    picture.paste(drawing, (left, top), drawing)
    return picture
