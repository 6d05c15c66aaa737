"""A pair of image and text that people said of whether they match."""

from __future__ import annotations

from typing import NamedTuple


class LabelledPair(NamedTuple):
    """An image, or a box in it, and a text.

    Attributes:
        image: Path of the image.
        text: The text.
        matches: Whether it is true of the image, or of the box; `None` where nobody has said it.
        box: x1, y1, x2, y2 in pixels of the upright image; `None`: the pair is of the whole image.
        source: Where the pair stands, e.g. `"pairs.jsonl:17"`, for error messages.
    """

    image: str
    text: str
    matches: bool | None
    box: tuple[float, float, float, float] | None = None
    source: str = ""
