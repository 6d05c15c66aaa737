"""Average precision of boxes by pycocotools under the rules of COCO, boxes of all sizes together."""

import evaluate

from fgclip2.benchmarks.evaluate_modules import metric_info
from fgclip2.metrics import coco_average_precision

BOXES = {"boxes": [["float64"]], "labels": ["int64"]}


class BoxAveragePrecision(evaluate.Metric):
    """Average precision of boxes by image, as `fgclip2.metrics.coco_average_precision`.

    Args:
        predictions: For each image {"boxes": (B, 4), "labels": (B,), "scores": (B,)}; boxes are x, y, width and height
            in pixels, as COCO has them, labels integers.
        references: For each image {"boxes": (A, 4), "labels": (A,), "iscrowd": (A,)}; iscrowd is 1 for the box of a
            crowd, which is neither to be found nor counted against a box in it, else 0.
        max_detections: How many of a label in an image count, those of the highest scores; 100 by default.

    Returns:
        "ap" (mean over labels and overlaps of 0.5, 0.55 to 0.95), "ap50", "ap75", shares of 1; NaN without any
        reference.
    """

    def _info(self):
        predictions, references = {**BOXES, "scores": ["float64"]}, {**BOXES, "iscrowd": ["int64"]}
        return metric_info(__doc__, self.__doc__, predictions=predictions, references=references)

    def _compute(self, predictions, references, max_detections=100):
        found, annotations = (
            [
                {"image_id": index, "category_id": label, "bbox": box, field: value}
                for index, image in enumerate(images)
                for box, label, value in zip(image["boxes"], image["labels"], image[column], strict=True)
            ]
            for images, field, column in ((predictions, "score", "scores"), (references, "iscrowd", "iscrowd"))
        )
        categories = {entry["category_id"] for entry in (*found, *annotations)}
        truth = {
            "images": [{"id": index} for index in range(len(references))],
            "categories": [{"id": category} for category in categories],
            "annotations": annotations,
        }
        return coco_average_precision(truth, found, max_detections)
