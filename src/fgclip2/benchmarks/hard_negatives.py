"""Choosing the true text of a box among false ones."""

from __future__ import annotations

import numpy as np

from ..metrics import hard_negative_wins
from .data_sets import HardNegativeData
from .encoding import Encoder
from .scores import Scores, mean
from .settings import HardNegativeSettings


def evaluate(data: HardNegativeData, encoder: Encoder, settings: HardNegativeSettings, language: str) -> Scores:
    """Share of boxes whose true text is more similar than every false one.

    Returns:
        Scores; `per_item` has 1 for each box that is won, 0 for one that is lost, NaN where the image can't be read.

    Raises:
        ValueError: No image can be read, or the model has no region features.
    """
    encoded = encoder.regions(data.images, data.boxes, settings.max_num_patches, settings.method)
    encoded.check_some(len(encoded.vectors))
    is_used = np.repeat(encoded.rows > 0, [len(each) for each in data.boxes])
    texts = [of_box for of_image in data.texts for of_box in of_image]
    used = [of_box for of_box, its in zip(texts, is_used, strict=True) if its]
    counts = [len(of_box) for of_box in used]
    vectors = encoder.texts([text for of_box in used for text in of_box], settings.walk_type)
    cosines = (np.repeat(encoded.vectors, counts, axis=0) * vectors).sum(axis=1)  # equal texts: equal to the bit
    wins = hard_negative_wins(np.split(cosines, np.cumsum(counts)[:-1]), settings.ties)  # type: ignore[arg-type]
    per_item = np.full(len(texts), np.nan)
    per_item[is_used] = wins
    return Scores({"hard_negative_accuracy": mean(wins, encoded.owners)}, {"won": per_item}, encoded.problems)
