"""Regions of images for which nobody has given boxes: a grid of windows."""

from __future__ import annotations

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
