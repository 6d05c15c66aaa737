"""Average precision of boxes, by pycocotools, under the rules of COCO and of LVIS."""

from __future__ import annotations

import contextlib
import io
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from .._imports import require

_LVIS_FIELDS = {"images": ("neg_category_ids", "not_exhaustive_category_ids"), "categories": ("frequency",)}
_FREQUENCIES = {"ap_rare": "r", "ap_common": "c", "ap_frequent": "f"}


def coco_average_precision(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]], max_detections: int = 100
) -> dict[str, float]:
    """Return AP under the rules of COCO: detections that lie in crowds don't count.

    Args:
        truth: As in COCO's JSON: `images` with `id`, `categories` with `id`, `annotations` with `image_id`,
            `category_id`, `bbox` (x, y, width, height in pixels) and, of crowds, `iscrowd`.
        detections: As in COCO's results: `image_id`, `category_id`, `bbox`, `score`.
        max_detections: How many of a category in an image count; the rest, of lower scores, are left out.

    Returns:
        `ap`: mean over categories and overlaps of 0.5, 0.55 to 0.95; `ap50`, `ap75`: at one overlap. NaN without
        any annotation.

    Raises:
        ValueError: An entry names no image or category of the set, or has a bad box or score.
        ImportError: pycocotools is not installed.
    """
    check_truth(truth)
    _check_detections(truth, detections)
    return _summary(_precisions(truth["annotations"], detections, max_detections))


def lvis_average_precision(
    truth: Mapping[str, Any],
    detections: Sequence[Mapping[str, Any]],
    max_per_image: int | None = 300,
    max_per_category: int | None = None,
) -> dict[str, float]:
    """Return AP under the federated rules of LVIS (Gupta et al. 2019, section 2).

    Detections of categories that nobody looked for in an image are left out; those that match nothing are left out too
    where the image's annotations of that category are not exhaustive. Crowds are unknown to LVIS.

    Args:
        truth: As in LVIS's JSON: as in COCO's, and `neg_category_ids` and `not_exhaustive_category_ids` of each image,
            `frequency` (r, c or f) of each category.
        detections: As in COCO's results.
        max_per_image: Those of the highest scores over all categories count; 300 is the official number.
        max_per_category: Those of the highest scores of a category over all images count. `None` and 10000 make
            "fixed AP" (Dave et al. 2021).

    Returns:
        `ap`, `ap50`, `ap75` as of COCO; `ap_rare`, `ap_common`, `ap_frequent`: `ap` over those categories.

    Raises:
        ValueError: As `coco_average_precision`; or an image or category lacks a field.
        ImportError: pycocotools is not installed.
    """
    check_truth(truth, lvis=True)
    _check_detections(truth, detections)
    negative = {image["id"]: image["neg_category_ids"] for image in truth["images"]}
    partial = {image["id"]: image["not_exhaustive_category_ids"] for image in truth["images"]}
    frequency = {category["id"]: category["frequency"] for category in truth["categories"]}
    annotations = [{**annotation, "iscrowd": 0} for annotation in truth["annotations"]]
    looked_for = {(annotation["image_id"], annotation["category_id"]) for annotation in annotations}
    kept = _highest(_highest(detections, "image_id", max_per_image), "category_id", max_per_category)
    kept = [
        one
        for one in kept
        if (one["image_id"], one["category_id"]) in looked_for or one["category_id"] in negative[one["image_id"]]
    ]
    precisions = _precisions(annotations, kept, max(len(kept), 1), partial)
    of_frequency = {
        name: _summary({k: v for k, v in precisions.items() if frequency[k] == letter})["ap"]
        for name, letter in _FREQUENCIES.items()
    }
    return _summary(precisions) | of_frequency


def check_truth(truth: Mapping[str, Any], lvis: bool = False) -> None:
    """Check what boxes are to be measured by, before they are there.

    Args:
        truth: As of `coco_average_precision`, or with `lvis` as of `lvis_average_precision`.

    Raises:
        ValueError: An annotation names no image or category of the set, or has a bad box; or, with `lvis`, an image or
            category lacks a field.
    """
    _check_boxes(truth, "annotations", truth["annotations"])
    for name, fields in _LVIS_FIELDS.items() if lvis else ():
        for index, entry in enumerate(truth[name]):
            for field in fields:
                _field(entry, field, f"{name}[{index}]")


def _highest(detections: Sequence[Mapping[str, Any]], field: str, count: int | None) -> Sequence[Mapping[str, Any]]:
    """Return the detections of the highest scores of each value of a field."""
    if count is None:
        return detections
    taken: dict[Any, int] = defaultdict(int)
    kept = []
    for detection in sorted(detections, key=lambda one: one["score"], reverse=True):
        taken[detection[field]] += 1
        if taken[detection[field]] <= count:
            kept.append(detection)
    return kept


def _precisions(
    annotations: Sequence[Mapping[str, Any]],
    detections: Sequence[Mapping[str, Any]],
    max_detections: int,
    partial: Mapping[Any, Collection[int]] | None = None,
) -> dict[int, np.ndarray]:
    """Return category -> precision (10 overlaps, 101 recalls), of categories that have something to find.

    One category at a time, over its own images: LVIS has 1203 x 20,000 pairs, nearly all of them empty.
    """
    of_category: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for detection in detections:
        of_category[detection["category_id"]].append(detection)
    to_find: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for annotation in annotations:
        to_find[annotation["category_id"]].append(annotation)
    precisions = {}
    for category, its in sorted(to_find.items()):
        doubtful = {image for image, categories in (partial or {}).items() if category in categories}
        precisions[category] = _precision(category, its, of_category[category], max_detections, doubtful)
    return {category: precision for category, precision in precisions.items() if (precision > -1).all()}


def _precision(
    category: int,
    annotations: Sequence[Mapping[str, Any]],
    detections: Sequence[Mapping[str, Any]],
    max_detections: int,
    doubtful: Collection[Any],
) -> np.ndarray:
    """Return (10, 101), the precision of one category; -1 if all its annotations are crowds."""
    cocoeval = require("pycocotools.cocoeval", "bench")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = cocoeval.COCOeval(_indexed(annotations), _indexed(detections), "bbox")
        evaluator.params.catIds = [category]
        evaluator.params.imgIds = sorted({one["image_id"] for one in (*annotations, *detections)})
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, math.inf]], ["all"]
        evaluator.params.maxDets = [max_detections]
        evaluator.evaluate()
        for image in evaluator.evalImgs:
            if image["image_id"] in doubtful:
                image["dtIgnore"] |= image["dtMatches"] == 0
        evaluator.accumulate()
    return evaluator.eval["precision"][:, :, 0, 0, 0]


def _indexed(boxes: Sequence[Mapping[str, Any]]) -> Any:
    """Return boxes in pycocotools' form; ids from 1, for it takes 0 as "no match"."""
    coco = require("pycocotools.coco", "bench").COCO()
    coco.dataset = {
        "images": [{"id": image} for image in {one["image_id"] for one in boxes}],
        "categories": [{"id": category} for category in {one["category_id"] for one in boxes}],
        "annotations": [
            {
                "id": number,
                "image_id": one["image_id"],
                "category_id": one["category_id"],
                "bbox": list(one["bbox"]),
                "area": one["bbox"][2] * one["bbox"][3],
                "iscrowd": one.get("iscrowd", 0),
                "score": one.get("score"),
            }
            for number, one in enumerate(boxes, start=1)
        ],
    }
    coco.createIndex()
    return coco


def _summary(precisions: Mapping[int, np.ndarray]) -> dict[str, float]:
    if not precisions:
        return dict.fromkeys(("ap", "ap50", "ap75"), math.nan)
    of_overlap = np.stack(list(precisions.values())).mean(axis=(0, 2))  # (10,)
    return {"ap": float(of_overlap.mean()), "ap50": float(of_overlap[0]), "ap75": float(of_overlap[5])}


def _check_detections(truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> None:
    _check_boxes(truth, "detections", detections)
    for index, entry in enumerate(detections):
        if not math.isfinite(_field(entry, "score", f"detections[{index}]")):
            raise ValueError(f"detections[{index}]: score {entry['score']!r} is not finite")


def _check_boxes(truth: Mapping[str, Any], name: str, entries: Sequence[Mapping[str, Any]]) -> None:
    known = {
        "image_id": {image["id"] for image in truth["images"]},
        "category_id": {category["id"] for category in truth["categories"]},
    }
    for index, entry in enumerate(entries):
        where = f"{name}[{index}]"
        for field, ids in known.items():
            if _field(entry, field, where) not in ids:
                raise ValueError(f"{where}: {field} {entry[field]!r} is not in the set")
        box = _field(entry, "bbox", where)
        if len(box) != 4 or not np.isfinite(box).all() or min(box[2:]) < 0:
            raise ValueError(f"{where}: bbox {box!r} is not x, y, width and height, finite and not negative")


def _field(entry: Mapping[str, Any], field: str, where: str) -> Any:
    if field not in entry:
        raise ValueError(f"{where}: {field} is missing")
    return entry[field]
