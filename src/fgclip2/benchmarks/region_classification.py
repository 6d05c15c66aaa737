"""Classification of boxes by the names of categories."""

from __future__ import annotations

import numpy as np

from .data_sets import RegionData
from .encoding import Encoder
from .labels import label_vectors
from .scores import Scores, accuracies, class_ranks
from .settings import RegionSettings


def evaluate(data: RegionData, encoder: Encoder, settings: RegionSettings, language: str) -> Scores:
    """Top-1 and top-5 accuracy among all categories, over boxes (micro) and as the mean over categories (macro).

    Returns:
        Scores; `per_item` has the rank of each box's category, 0 for boxes of images that can't be read.

    Raises:
        ValueError: No image can be read, or the model has no region features.
    """
    encoded = encoder.regions(data.images, data.boxes, settings.max_num_patches, settings.method)
    counts = np.array([len(each) for each in data.boxes])
    is_used = np.repeat(encoded.rows > 0, counts)
    categories = np.concatenate([np.asarray(each, dtype=np.int64) for each in data.categories])[is_used]
    encoded.check_some(len(encoded.vectors))
    names = label_vectors(encoder, data.names[language], settings.templates, language, settings.walk_type)
    ranks = class_ranks(encoded.vectors, names, categories, encoder.model)
    per_item = np.zeros(len(is_used), dtype=np.int64)
    per_item[is_used] = ranks
    return Scores(accuracies(ranks, categories, encoded.owners), {"rank": per_item}, encoded.problems)
