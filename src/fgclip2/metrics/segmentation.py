"""Mean intersection over union."""

from __future__ import annotations

import numpy as np

from .intervals import class_mean_interval


def class_areas(predicted: np.ndarray, truth: np.ndarray, classes: int, ignored: int | None = None) -> np.ndarray:
    """Count pixels of each class in one image; those of several images add up.

    Args:
        predicted: Integer, shape (H, W), classes from 0.
        truth: Integer, shape (H, W).
        classes: How many there are.
        ignored: Value in `truth` of pixels that don't count, whatever is predicted there.

    Returns:
        int64, shape (3, classes): where truth and prediction agree, by truth, by prediction.

    Raises:
        ValueError: Shapes differ, or a counted pixel has another value than a class.
    """
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.shape != truth.shape:
        raise ValueError(f"predicted has shape {predicted.shape} and truth {truth.shape}; they must be the same")
    counted = np.full(truth.shape, True) if ignored is None else truth != ignored
    predicted, truth = predicted[counted], truth[counted]
    for name, values in (("predicted", predicted), ("truth", truth)):
        wrong = values[(values < 0) | (values >= classes)]
        if len(wrong):
            raise ValueError(f"{name} has the value {wrong[0]}; classes go from 0 to {classes - 1}")
    counts = (truth[truth == predicted], truth, predicted)
    return np.stack([np.bincount(values, minlength=classes) for values in counts])


def class_iou(areas: np.ndarray) -> np.ndarray:
    """Return IoU of each class, NaN if it is not in the truth: (3, classes) of `class_areas` -> (classes,)."""
    both, truth, predicted = np.asarray(areas, dtype=np.float64)
    return np.divide(both, truth + predicted - both, out=np.full_like(both, np.nan), where=truth > 0)


def mean_iou(areas: np.ndarray) -> float:
    """Return the mean of `class_iou` over the classes that occur in the truth, as detectron2's evaluator has it.

    Args:
        areas: Of `class_areas`: (3, classes), or (images, 3, classes), which are added up.

    Returns:
        NaN if none occurs.
    """
    areas = np.asarray(areas)
    iou = class_iou(areas.sum(axis=0) if areas.ndim == 3 else areas)
    return float(iou[~np.isnan(iou)].mean()) if not np.isnan(iou).all() else float("nan")


def mean_iou_interval(areas: np.ndarray) -> tuple[float, float] | None:
    """Return a 95% interval over images of `mean_iou`, by `class_mean_interval`: of the same classes in every resample.

    Args:
        areas: Of `class_areas`, (images, 3, classes).

    Returns:
        None where it can't be told, as where every pixel is right.

    Raises:
        ValueError: No class occurs in the truth.
    """
    both, truth, predicted = np.moveaxis(np.asarray(areas, dtype=np.float64), 1, 0)  # (images, classes) each
    union = truth + predicted - both
    image, its_class = np.nonzero((union > 0) & truth.any(axis=0))
    place = image, its_class
    return class_mean_interval(both[place], union[place], its_class, image, truth[place] > 0)
