"""Mean intersection over union over the classes that occur in the truth, over the pixels of all images."""

import evaluate
import numpy as np

from fgclip2.benchmarks.evaluate_modules import metric_info
from fgclip2.metrics import class_areas, class_iou, mean_iou


class MeanClassIoU(evaluate.Metric):
    """Mean intersection over union of class maps, as `fgclip2.metrics.mean_iou`, for images of any sizes.

    Args:
        predictions: For each image its class map (H, W), classes from 0.
        references: The true ones.
        classes: How many there are.
        ignored: Value of references where nothing counts; None by default.

    Returns:
        "miou", a share of 1; "class_iou", for each class, NaN where it does not occur.
    """

    def _info(self):
        return metric_info(__doc__, self.__doc__, predictions=[["int64"]], references=[["int64"]])

    def _compute(self, predictions, references, classes, ignored=None):
        maps = zip(predictions, references, strict=True)
        areas = np.sum([class_areas(*pair, classes, ignored) for pair in maps], axis=0)
        return {"miou": mean_iou(areas), "class_iou": class_iou(areas).tolist()}
