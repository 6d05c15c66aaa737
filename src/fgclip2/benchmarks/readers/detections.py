"""Boxes that a detector found, next to the file of instances that they are measured by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...checks import is_number
from ...data.readers.checks import check_language, shown
from ...data.records import InvalidRecordError
from ..base import Box, Problem
from ..tasks.detection import DetectionData
from ._coco import ListedImage, loose_corners, read_instances, size_of
from ._files import NamedImages, check_usable, items_by_image, numbered_json_lines

Item = tuple[Any, Box, int, float]  # id of the image, box, category, score


def read_detections(
    results: str | Path,
    ground_truth: str | Path,
    images: str | Path,
    language: str = "en",
    names: Mapping[str, Sequence[str]] | None = None,
    *,
    follow_links: bool = False,
) -> DetectionData:
    """Read boxes that a detector found, in COCO's format of results: a list of image_id, category_id, bbox, score.

    Sources: cocodataset.org, "Results format"; lvis-dataset/lvis-api, `lvis/results.py`.

    Args:
        results: The JSON list; boxes are x, y, width, height in pixels, ids those of the ground truth.
        ground_truth: COCO's or LVIS's file of instances, for images and names; its annotations are not read here.
        images, follow_links: Folder or archives of the images, as for `ImageStore`.
        language: Of the ground truth's names of categories.
        names: Language -> names of all categories, in the order of their ids, to have other languages too.

    Returns:
        The images with at least one box. Boxes may reach out of their image, as detectors' do, but not lie outside it;
        what can't be used, of either file, is its problems.

    Raises:
        ValueError: A file is missing, broken or in another format, the results count categories from 0 where the ground
            truth does not, or have a score that is not from 0 to 1, or none can be used.
    """
    check_language(language, "language", "read_detections")
    instances = read_instances(ground_truth, language, one_based=False, names=names)
    found = NamedImages(images, follow_links)
    ids_of_names: dict[str, Any] = {}
    ids_of_files: dict[int, Any] = {}

    doubts: list[Problem] = []
    named: list[dict[str, Any]] = []  # the ids of each record

    def parse(record: Any, source: str) -> tuple[str, Item]:
        named.append({key: record.get(key) for key in ("image_id", "category_id")})
        image, category = instances.image_of(record, source), instances.category_of(record, source)
        image_id = record["image_id"]
        ids_of_names[image.name] = image_id
        item = (
            image_id,
            _within_reach(record.get("bbox"), image, source),
            category,
            _score(record.get("score"), source),
        )
        if ids_of_files.setdefault(found.index(image.name, "the image", source), image_id) != image_id:
            raise InvalidRecordError(source, "image_id", shown(image_id), f"one id for {image.name}")
        return image.name, item

    items = items_by_image(numbered_json_lines(results, instances.problems, doubts), parse, found, instances.problems)
    check_usable(len(items), results, instances.problems)
    return DetectionData(
        images=found.files,
        image_ids=[its[0][0] for its in items],
        boxes=[[box for _, box, _, _ in its] for its in items],
        categories=[[category for _, _, category, _ in its] for its in items],
        scores=[[score for _, _, _, score in its] for its in items],
        names=instances.names,
        category_ids=list(instances.categories),
        ground_truth=Path(ground_truth),
        missing_ids=[ids_of_names[name] for name in found.missing],
        problems=instances.problems,
        doubts=[*doubts, *instances.shifted(named, str(results))],
    )


def _within_reach(value: Any, image: ListedImage, source: str) -> Box:
    """Return a box that has some of its image in it."""
    x1, y1, x2, y2 = loose_corners(value, source)
    beyond = (image.width is not None and x1 >= image.width) or (image.height is not None and y1 >= image.height)
    if beyond or x2 <= 0 or y2 <= 0:
        raise InvalidRecordError(source, "bbox", shown(value), f"a box that meets the image, {size_of(image)}")
    return x1, y1, x2, y2


def _score(value: Any, source: str) -> float:
    """Return a score.

    Raises:
        InvalidRecordError: It is no number.
        ValueError: It is not from 0 to 1: then all are probably of another scale, and only those up to 1 would be left.
    """
    if not is_number(value):
        raise InvalidRecordError(source, "score", shown(value), "a finite number")
    if not 0 <= value <= 1:
        raise ValueError(
            f"{source}: score is {value}; it must be 0 to 1: divide percentages by 100, make probabilities of logits"
        )
    return float(value)
