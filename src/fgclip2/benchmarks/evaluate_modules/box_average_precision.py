"""Average precision of boxes under the rules of COCO."""

import datasets
import evaluate

from fgclip2.metrics import coco_average_precision

_DESCRIPTION = "Average precision of boxes by pycocotools under the rules of COCO, boxes of all sizes together."
_INPUTS = """
Args:
    predictions: For each image {"boxes": (B, 4), "labels": (B,), "scores": (B,)}; boxes are x, y, width and height in
        pixels, as COCO has them, labels integers.
    references: For each image {"boxes": (A, 4), "labels": (A,), "iscrowd": (A,)}; iscrowd is 1 for the box of a crowd,
        which is neither to be found nor counted against a box in it, else 0.
    max_detections: Of a label in an image, those of the highest scores; 100 by default.

Returns:
    "ap" (mean over labels and overlaps of 0.5, 0.55 to 0.95), "ap50", "ap75", shares of 1; NaN without any reference.
"""


class BoxAveragePrecision(evaluate.Metric):
    """`fgclip2.metrics.coco_average_precision` of boxes by image."""

    def _info(self):
        boxes = datasets.Sequence(datasets.Sequence(datasets.Value("float64")))
        labels, scores = datasets.Sequence(datasets.Value("int64")), datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": {"boxes": boxes, "labels": labels, "scores": scores},
                    "references": {"boxes": boxes, "labels": labels, "iscrowd": labels},
                }
            ),
        )

    def _compute(self, predictions, references, max_detections=100):
        found = _entries(predictions, "score", "scores")
        annotations = _entries(references, "iscrowd", "iscrowd")
        categories = {entry["category_id"] for entry in (*found, *annotations)}
        truth = {
            "images": [{"id": index} for index in range(len(references))],
            "categories": [{"id": each} for each in categories],
            "annotations": annotations,
        }
        return coco_average_precision(truth, found, max_detections)


def _entries(images, field, column):
    """One object for each box of all images, in COCO's form."""
    return [
        {"image_id": index, "category_id": label, "bbox": box, field: value}
        for index, image in enumerate(images)
        for box, label, value in zip(image["boxes"], image["labels"], image[column], strict=True)
    ]
