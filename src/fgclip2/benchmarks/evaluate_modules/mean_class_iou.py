"""Mean intersection over union of class maps."""

import datasets
import evaluate
import numpy as np

from fgclip2.metrics import class_areas, class_iou, mean_iou

_DESCRIPTION = "Mean intersection over union over the classes that occur in the truth, over the pixels of all images."
_INPUTS = """
Args:
    predictions: For each image its class map (H, W), classes from 0.
    references: The true ones.
    classes: How many there are.
    ignored: Value of references where nothing counts; None by default.

Returns:
    "miou", a share of 1; "class_iou", for each class, NaN where it does not occur.
"""


class MeanClassIoU(evaluate.Metric):
    """`fgclip2.metrics.mean_iou` of images of any sizes."""

    def _info(self):
        class_map = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": class_map, "references": class_map}),
        )

    def _compute(self, predictions, references, classes, ignored=None):
        maps = zip(predictions, references, strict=True)
        areas = np.sum([class_areas(*pair, classes, ignored) for pair in maps], axis=0)
        return {"miou": mean_iou(areas), "class_iou": class_iou(areas).tolist()}
