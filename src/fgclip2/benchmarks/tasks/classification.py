"""Zero-shot classification of whole images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...checks import check_positive_integer
from ..base import DataSet, LabelSettings
from ..encoding import Encoder
from ..labels import label_vectors
from ..scores import Scores, accuracies, class_ranks


@dataclass(frozen=True)
class ClassificationData(DataSet):
    """Images with a class each."""

    classes: Sequence[int]  # of each image, an index into the names
    names: Mapping[str, Sequence[str]]  # language -> names of all classes


@dataclass(frozen=True)
class ClassificationSettings(LabelSettings):
    """Settings of zero-shot classification of whole images."""

    whole_batches_of: int = 1  # images after the last whole batch of so many don't count

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_integer("whole_batches_of", self.whole_batches_of)


def evaluate(data: ClassificationData, encoder: Encoder, settings: ClassificationSettings, language: str) -> Scores:
    """Compute top-1 and top-5 accuracy, over images (micro) and as the mean over classes (macro).

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
    names = label_vectors(encoder, data.names[language], settings, language)
    ranks = class_ranks(encoded.vectors, names, classes[encoded.owners], encoder.model)
    per_item = np.zeros(len(classes), dtype=np.int64)
    per_item[encoded.owners] = ranks
    return Scores(accuracies(ranks, classes[encoded.owners], encoded.owners), {"rank": per_item}, encoded.problems)
