"""Classification of boxes by the names of categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...checks import check_choice, check_flag
from ...modeling.interface import Role
from ..base import CROP_EDGES, ROLE_OF_METHOD, Box, DataSet, LabelSettings
from ..encoding import Encoder
from ..labels import label_vectors
from ..scores import Scores, accuracies, class_ranks


@dataclass(frozen=True)
class RegionData(DataSet):
    """Boxes with a category each."""

    boxes: Sequence[Sequence[Box]]  # of each image
    categories: Sequence[Sequence[int]]  # of each box, an index into the names
    names: Mapping[str, Sequence[str]]  # language -> names of all categories

    @property
    def items(self) -> int:
        """See the base class."""
        return sum(map(len, self.boxes))


@dataclass(frozen=True)
class RegionSettings(LabelSettings):
    """Settings of the classification of boxes."""

    method: str = "roi"  # region features; "crop": what is in the box as an image of its own
    crowds: bool = True  # whether boxes of crowds count
    crop_edges: str = "outward"  # of `method="crop"`, see `CROP_EDGES`

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("method", self.method, ROLE_OF_METHOD)
        check_choice("crop_edges", self.crop_edges, CROP_EDGES)
        check_flag("crowds", self.crowds)

    @property
    def role(self) -> Role:
        """See the base class."""
        return ROLE_OF_METHOD[self.method]


def evaluate(data: RegionData, encoder: Encoder, settings: RegionSettings, language: str) -> Scores:
    """Compute top-1 and top-5 accuracy among all categories, over boxes (micro) and as the mean over categories.

    Returns:
        Scores; `per_item` has the rank of each box's category, 0 for boxes of images that can't be read.

    Raises:
        ValueError: No image can be read, or the model has no region features.
    """
    encoded = encoder.regions(data.images, data.boxes, settings.max_num_patches, settings.method, settings.crop_edges)
    counts = np.array([len(boxes) for boxes in data.boxes])
    is_used = np.repeat(encoded.rows > 0, counts)
    categories = np.concatenate([np.asarray(its, dtype=np.int64) for its in data.categories])[is_used]
    encoded.check_some(len(encoded.vectors))
    names = label_vectors(encoder, data.names[language], settings, language)
    ranks = class_ranks(encoded.vectors, names, categories, encoder.model)
    per_item = np.zeros(len(is_used), dtype=np.int64)
    per_item[is_used] = ranks
    return Scores(accuracies(ranks, categories, encoded.owners), {"rank": per_item}, encoded.problems)
