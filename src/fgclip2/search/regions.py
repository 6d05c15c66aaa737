"""Regions of images: a grid of windows where nobody has given boxes, and their vectors as one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..embedding import EncodedImage
from .extras import NOTHING, Extra, Regions
from .scan import ImageFile

# (side, number): windows of this share of each side of the image, so many along each side, evenly spread.
GRID = ((1 / 2, 3), (1 / 3, 4))


def grid_boxes(width: int, height: int) -> list[list[float]]:
    """Return the boxes (x1, y1, x2, y2) of the windows of an image: 9 of half its sides and 16 of a third, overlapping.

    Args:
        width, height: Of the upright image in pixels.
    """
    return [
        [column * width, row * height, (column + side) * width, (row + side) * height]
        for side, number in GRID
        for row in (place * (1 - side) / (number - 1) for place in range(number))
        for column in (place * (1 - side) / (number - 1) for place in range(number))
    ]


def regions_of(encoded: EncodedImage) -> Regions | None:
    """Return the regions of an image that was embedded with them, as an index keeps them; `None` without."""
    if encoded.image_size is None or encoded.boxes is None or encoded.regions is None:
        return None
    height, width = encoded.image_size
    return Regions((width, height), encoded.boxes, encoded.regions)


class RegionTable(NamedTuple):
    """The regions of all entries of an index.

    Attributes:
        rows: The row of the entry of each region, rising, int64 (R,).
        boxes: Float32 (R, 4), (x1, y1, x2, y2) in pixels.
        vectors: Float32 (R, D), L2-normalised.
    """

    rows: np.ndarray
    boxes: np.ndarray
    vectors: np.ndarray

    @classmethod
    def of(cls, files: Sequence[ImageFile], extras: Mapping[ImageFile, Extra], width: int) -> RegionTable:
        """Gather the regions of files, whose vectors have `width` values."""
        found = [(row, extras.get(file, NOTHING).regions) for row, file in enumerate(files)]
        regions = [its for _, its in found if its is not None]
        rows = np.array([row for row, its in found if its is not None], np.int64)
        return cls(
            np.repeat(rows, [len(its.boxes) for its in regions]),
            np.concatenate([np.zeros((0, 4), np.float32), *(its.boxes for its in regions)]),
            np.concatenate([np.zeros((0, width), np.float32), *(its.vectors for its in regions)]),
        )
