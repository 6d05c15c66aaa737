"""Choosing the true text of a box among false ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...checks import check_choice
from ...metrics import hard_negative_wins
from ...modeling.interface import Role
from ..base import CROP_EDGES, ROLE_OF_METHOD, Box, DataSet, Settings
from ..encoding import Encoder
from ..scores import Scores, mean


@dataclass(frozen=True)
class HardNegativeData(DataSet):
    """Boxes, each with its true text, the first, and false ones."""

    boxes: Sequence[Sequence[Box]]  # of each image
    texts: Sequence[Sequence[Sequence[str]]]  # of each box

    @property
    def items(self) -> int:
        """See the base class."""
        return sum(map(len, self.boxes))

    @property
    def own_texts(self) -> Sequence[str]:
        """See the base class."""
        return [text for of_image in self.texts for of_box in of_image for text in of_box]


@dataclass(frozen=True)
class HardNegativeSettings(Settings):
    """Settings of choosing the true text of a box."""

    method: str = "roi"  # as in `RegionSettings`
    ties: str = "wrong"  # whether a true text that a false one equals is a success: "wrong", "right"
    crop_edges: str = "outward"  # of `method="crop"`, see `CROP_EDGES`

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("method", self.method, ROLE_OF_METHOD)
        check_choice("crop_edges", self.crop_edges, CROP_EDGES)
        check_choice("ties", self.ties, ("wrong", "right"))

    @property
    def role(self) -> Role:
        """See the base class."""
        return ROLE_OF_METHOD[self.method]


def evaluate(data: HardNegativeData, encoder: Encoder, settings: HardNegativeSettings, language: str) -> Scores:
    """Compute the share of boxes whose true text is more similar than every false one.

    Returns:
        Scores; `per_item` has 1 for each box that is won, 0 for one that is lost, NaN where the image can't be read.

    Raises:
        ValueError: No image can be read, or the model has no region features.
    """
    encoded = encoder.regions(data.images, data.boxes, settings.max_num_patches, settings.method, settings.crop_edges)
    encoded.check_some(len(encoded.vectors))
    is_used = np.repeat(encoded.rows > 0, [len(boxes) for boxes in data.boxes])
    texts = [of_box for of_image in data.texts for of_box in of_image]
    used = [of_box for of_box, its in zip(texts, is_used, strict=True) if its]
    counts = [len(of_box) for of_box in used]
    vectors = encoder.texts([text for of_box in used for text in of_box], settings.role)
    cosines = (np.repeat(encoded.vectors, counts, axis=0) * vectors).sum(axis=1)  # equal texts: equal to the bit
    wins = hard_negative_wins(np.split(cosines, np.cumsum(counts)[:-1]), settings.ties)  # type: ignore[arg-type]
    per_item = np.full(len(texts), np.nan)
    per_item[is_used] = wins
    return Scores({"hard_negative_accuracy": mean(wins, encoded.owners)}, {"won": per_item}, encoded.problems)
