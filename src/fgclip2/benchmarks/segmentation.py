"""Segmentation by names of classes, without training: the class whose text is nearest to the dense features of a pixel.

The paper's numbers are of another kind: of a head (Cat-Seg) trained on COCO-Stuff on top of the model.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from ..metrics import class_areas, mean_iou, mean_iou_interval
from .data_sets import SegmentationData
from .encoding import Encoder
from .image_files import ImageFile
from .labels import label_vectors
from .readers.segmentation import read_mask
from .scores import Estimate, Scores
from .settings import SegmentationSettings

_MAPS_AT_ONCE = 16  # maps of an image's full size in memory; a data set may have hundreds of classes


def evaluate(data: SegmentationData, encoder: Encoder, settings: SegmentationSettings, language: str) -> Scores:
    """Mean over classes of intersection over union, each over all images; its interval is over images.

    Args:
        data: With masks of their images' sizes, as `check_masks` makes sure; others are stretched.
        encoder, settings, language: As of every kind.

    Returns:
        Scores; `per_item` has the share of right pixels of each image, NaN where it can't be read or no pixel counts.

    Raises:
        ValueError: No image can be read, no pixel counts, a mask can't be used, or the model has no dense features.
    """
    names = label_vectors(encoder, data.names[language], settings.templates, language, settings.walk_type)
    classes = len(names)

    def areas_of(cosines: np.ndarray, mask: ImageFile) -> np.ndarray:
        truth = read_mask(mask, classes, data.ignored)
        predicted = predict(cosines, truth.shape, settings.background_threshold)
        return class_areas(predicted, truth, classes, data.ignored).ravel()

    others = {"background_threshold": settings.background_threshold, "ignored": data.ignored}
    encoded = encoder.heatmaps(data.images, data.masks, names, settings.max_num_patches, areas_of, others)
    encoded.check_some(len(encoded.vectors))
    areas = encoded.vectors.reshape(-1, 3, classes)
    if not areas[:, 1].any():
        raise ValueError(
            f"{data.masks[0].path.parent}: every pixel of the masks is {data.ignored}, which does not count"
        )
    right, counted, _ = areas.sum(axis=2).T
    per_item = np.full(len(data.images), np.nan)
    per_item[encoded.owners[counted > 0]] = right[counted > 0] / counted[counted > 0]
    metrics = {"miou": Estimate(mean_iou(areas), len(areas), partial(mean_iou_interval, areas))}
    return Scores(metrics, {"pixel_accuracy": per_item}, encoded.problems)


def predict(cosines: np.ndarray, size: tuple[int, ...], background_threshold: float = -1.0) -> np.ndarray:
    """The class of each pixel: the one of the highest cosine, of equal ones the first.

    Args:
        cosines: Float32 (classes, height, width) on the grid of patches; interpolated.
        size: (height, width) in pixels.
        background_threshold: Pixels whose highest cosine is below it get class 0.

    Returns:
        Int64 of shape `size`.
    """
    highest = torch.full(size, -torch.inf)
    predicted = torch.zeros(size, dtype=torch.int64)
    for start in range(0, len(cosines), _MAPS_AT_ONCE):
        some = torch.from_numpy(cosines[None, start : start + _MAPS_AT_ONCE])
        maps = F.interpolate(some, size, mode="bilinear", antialias=True)[0]  # (some classes, *size)
        best, its_class = maps.max(dim=0)
        predicted = torch.where(best > highest, start + its_class, predicted)
        highest = torch.maximum(best, highest)
    return predicted.masked_fill(highest < background_threshold, 0).numpy()
