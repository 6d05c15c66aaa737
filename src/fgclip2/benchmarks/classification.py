"""Zero-shot classification of whole images."""

from __future__ import annotations

import numpy as np

from .data_sets import ClassificationData
from .encoding import Encoder
from .labels import label_vectors
from .scores import Scores, accuracies, class_ranks
from .settings import ClassificationSettings


def evaluate(data: ClassificationData, encoder: Encoder, settings: ClassificationSettings, language: str) -> Scores:
    """Top-1 and top-5 accuracy, over images (micro) and as the mean over classes (macro).

    Returns:
        Scores; `per_item` has the rank of each image's class, 0 for images that can't be read or don't count.

    Raises:
        ValueError: No image can be read.
    """
    used = len(data.images) // settings.whole_batches_of * settings.whole_batches_of
    if not used:
        raise ValueError(f"{len(data.images)} images are no whole batch; whole_batches_of={settings.whole_batches_of}")
    encoded = encoder.images(data.images[:used], settings.max_num_patches)
    classes = np.asarray(data.classes, dtype=np.int64)
    encoded.check_some(len(encoded.vectors))
    names = label_vectors(encoder, data.names[language], settings.templates, language, settings.walk_type)
    ranks = class_ranks(encoded.vectors, names, classes[encoded.owners], encoder.model)
    per_item = np.zeros(len(classes), dtype=np.int64)
    per_item[encoded.owners] = ranks
    return Scores(accuracies(ranks, classes[encoded.owners], encoded.owners), {"rank": per_item}, encoded.problems)
