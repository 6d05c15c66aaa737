"""Scoring a detector's boxes anew: the probability of each class, by the region's features, fused with its own score.

FG-CLIP 2 describes this as a geometric mean of a softmax and the detector's score, and takes class and score from the
fused result. Open there, and decided here: the exponents (`fusion_weight`), the scale of the softmax (`region_scale`),
the texts (`templates`), and what the detector's score means for other classes than its own: the same, that of something
being there. So with `reclassify` the class is the region's, and the detector's where two are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from .. import distributed
from .._imports import require
from ..data.readers.checks import shown
from ..embedding.inputs import load_input
from ..errors import UnreadableImageError
from ..metrics import check_truth, coco_average_precision, lvis_average_precision
from ..modeling.processing_fgclip2 import MIN_BOX_SIDE
from . import encoding
from .data_sets import DetectionData, Problem
from .encoding import Encoder
from .image_files import StoredImage
from .labels import label_vectors
from .models import float64_device
from .readers._coco import is_number
from .readers._files import read_json
from .scores import Estimate, Scores
from .settings import DetectionSettings

_BOXES_AT_ONCE = 8192  # times the number of classes: what is compared at once


def evaluate(data: DetectionData, encoder: Encoder, settings: DetectionSettings, language: str) -> Scores:
    """Average precision of the fused scores (`ap`, ...) and of the detector alone (`ap_detector`, ...).

    An image that is missing or can't be read is left out of both, with its annotations. A box of which nothing is
    inside its image keeps its class and score. Of boxes that are the same and become of one class, the best counts.

    Returns:
        Scores, without parts of the average that have no annotation, such as rare classes; `per_item` has for each box
        its fused score, NaN where it is left out or dropped, and its class, -1 there.

    Raises:
        ValueError: No image can be read, no box or annotation is left, a score is not from 0 to 1, the ground truth
            can't be used, or the model has no region features.
        ImportError: pycocotools is not installed.
    """
    check_measurable(data, settings)
    found = _found(data)
    sizes, problems = _sizes(data.images)
    left_out = {*data.missing_ids, *(data.image_ids[index] for index in np.flatnonzero(sizes[:, 0] == 0).tolist())}
    is_used = (sizes[found.owners, 0] > 0) & (found.scores >= settings.score_threshold)
    if not is_used.any():
        raise ValueError(
            f"no box is left: {len(problems)} of {len(sizes)} images can't be read; the detector's highest score is "
            f"{found.scores.max()}, score_threshold={settings.score_threshold}"
        )
    truth = _without(left_out, _read_truth(data.ground_truth))
    alone = _average_precision(truth, _results(data, found.some(is_used)), settings.rules)
    if np.isnan(alone["ap"]):
        raise ValueError(f"{data.ground_truth} has no annotation, but of crowds, on images that can be read")
    names = label_vectors(encoder, data.names[language], settings.templates, language, settings.walk_type)
    rescored = _rescored(found, is_used, data.images, sizes, encoder, names, settings)
    kept = np.flatnonzero(is_used)
    if settings.reclassify:
        kept = kept[_best_of_equal(rescored.some(kept))]
    fused = _average_precision(truth, _results(data, rescored.some(kept)), settings.rules)
    values = {**fused, **{f"{name}_detector": value for name, value in alone.items()}}
    metrics = {name: Estimate(value, len(kept)) for name, value in values.items() if not np.isnan(value)}
    per_item = {
        "score": np.where(is_used, rescored.scores, np.nan),
        "class": np.where(is_used, rescored.classes, -1),
    }
    return Scores(metrics, per_item, problems, packages=("pycocotools",))


def fuse(
    cosines: torch.Tensor, classes: torch.Tensor, scores: torch.Tensor, settings: DetectionSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fuse regions' probabilities with a detector's scores.

    Args:
        cosines: Float64 (B, C), of regions with names of classes.
        classes: Int64 (B,), the detector's.
        scores: Float64 (B,), the detector's, 0 to 1.
        settings: See [`DetectionSettings`].

    Returns:
        Classes, int64 (B,), and scores, float64 (B,), 0 to 1.
    """
    weight = settings.fusion_weight
    probabilities = torch.softmax(settings.region_scale * cosines, dim=1)
    fused = probabilities**weight * scores[:, None] ** (1 - weight)  # (B, C)
    of_detector = fused.gather(1, classes[:, None])[:, 0]
    if not settings.reclassify:
        return classes, of_detector
    highest, its_class = fused.max(dim=1)
    return torch.where(highest > of_detector, its_class, classes), highest


def check_measurable(data: DetectionData, settings: DetectionSettings) -> DetectionData:
    """The data set, if boxes can be measured by its ground truth under the rules of the settings.

    Raises:
        ValueError: A score is not from 0 to 1, or an entry of the ground truth can't be used.
        ImportError: pycocotools is not installed.
    """
    require("pycocotools.cocoeval", "bench")
    _found(data)
    try:
        check_truth(_read_truth(data.ground_truth), lvis=settings.rules != "coco")
    except ValueError as error:
        raise ValueError(f"{data.ground_truth}: {error}") from error
    return data


@dataclass(frozen=True)
class _Found:
    """Boxes of all images, in their order."""

    owners: np.ndarray  # int64 (B,), the image of each
    corners: np.ndarray  # float64 (B, 4): x1, y1, x2, y2
    classes: np.ndarray  # int64 (B,)
    scores: np.ndarray  # float64 (B,)

    def some(self, rows: np.ndarray) -> _Found:
        return _Found(self.owners[rows], self.corners[rows], self.classes[rows], self.scores[rows])


def _found(data: DetectionData) -> _Found:
    found = _Found(
        np.repeat(np.arange(len(data.boxes)), [len(each) for each in data.boxes]),
        np.array([box for each in data.boxes for box in each], dtype=np.float64).reshape(-1, 4),
        np.array([category for each in data.categories for category in each], dtype=np.int64),
        np.array([score for each in data.scores for score in each], dtype=np.float64),
    )
    wrong = np.flatnonzero((found.scores < 0) | (found.scores > 1))
    if len(wrong):
        image, score = data.images[found.owners[wrong[0]]], found.scores[wrong[0]]
        raise ValueError(f"{image}: the score of a box is {score}; allowed: 0 to 1, for a geometric mean")
    return found


def _sizes(images: Sequence[StoredImage]) -> tuple[np.ndarray, list[Problem]]:
    """Width and height (N, 2) of the upright images; 0 of those that can't be read, which are problems."""
    own: dict[int, tuple[int, int] | str] = {}
    for index in range(distributed.rank(), len(images), distributed.world_size()):
        try:
            own[index] = load_input(index, images[index].read()).size
        except UnreadableImageError as error:
            own[index] = str(error).removeprefix(f"images[{index}]: ")
    all_of_them = {index: each for of_rank in distributed.gather_objects(own) for index, each in of_rank.items()}
    ordered = [all_of_them[index] for index in range(len(images))]
    problems = [Problem(str(image), each) for image, each in zip(images, ordered, strict=True) if isinstance(each, str)]
    return np.array([(0, 0) if isinstance(each, str) else each for each in ordered]), problems


def _rescored(
    found: _Found,
    is_used: np.ndarray,
    images: Sequence[StoredImage],
    sizes: np.ndarray,
    encoder: Encoder,
    names: np.ndarray,
    settings: DetectionSettings,
) -> _Found:
    """All boxes, those used and inside their image with fused classes and scores; some images at a time."""
    inside = np.clip(found.corners, 0, np.tile(sizes, 2)[found.owners])
    is_used = is_used & ((inside[:, 2:] - inside[:, :2]).min(axis=1) >= MIN_BOX_SIDE)
    rows = np.flatnonzero(is_used)
    classes, scores = found.classes.copy(), found.scores.copy()
    used = np.unique(found.owners[rows])
    at_once = encoding.BLOCK_SIZE * distributed.world_size()
    quiet = replace(encoder, show_progress_bar=False)
    hidden = not encoder.show_progress_bar or distributed.rank() > 0
    with tqdm(total=len(used), desc="regions", unit="image", disable=hidden) as bar:
        for start in range(0, len(used), at_once):
            its = used[start : start + at_once].tolist()
            its_rows = rows[slice(*np.searchsorted(found.owners[rows], (its[0], its[-1] + 1)))]
            firsts = np.searchsorted(found.owners[its_rows], its)
            boxes = [[tuple(box) for box in each.tolist()] for each in np.split(inside[its_rows], firsts[1:])]
            encoded = quiet.regions([images[i] for i in its], boxes, settings.max_num_patches, settings.method)
            if encoded.problems:
                raise ValueError(f"{encoded.problems[0]}; it could be read a moment ago")
            for some in np.array_split(np.arange(len(its_rows)), 1 + len(its_rows) // _BOXES_AT_ONCE):
                into = its_rows[some]
                classes[into], scores[into] = _fused(encoded.vectors[some], names, found.some(into), encoder, settings)
            bar.update(len(its))
    return replace(found, classes=classes, scores=scores)


def _fused(
    vectors: np.ndarray, names: np.ndarray, found: _Found, encoder: Encoder, settings: DetectionSettings
) -> tuple[np.ndarray, np.ndarray]:
    """[`fuse`] of numpy arrays, computed where the model is."""
    device = float64_device(encoder.model)
    regions, labels, classes, scores = (
        torch.from_numpy(each).to(device) for each in (vectors, names, found.classes, found.scores)
    )
    fused_classes, fused_scores = fuse(regions.double() @ labels.double().T, classes, scores, settings)
    return fused_classes.cpu().numpy(), fused_scores.cpu().numpy()


def _best_of_equal(found: _Found) -> np.ndarray:
    """Rows, in order; of boxes of one image, place and class the one of the highest score."""
    keys = np.column_stack([found.owners, found.corners, found.classes])
    order = np.argsort(-found.scores, kind="stable")
    _, firsts = np.unique(keys[order], axis=0, return_index=True)
    return np.sort(order[firsts])


def _read_truth(path: Path) -> dict[str, list[Any]]:
    """Ground truth without images and categories that have no id, which are among the problems of the data set."""
    content = read_json(path)
    for number, each in enumerate(content["annotations"]):
        box = each.get("bbox") if isinstance(each, dict) else None
        if not (isinstance(box, list) and all(map(is_number, box))):
            raise ValueError(f"annotations[{number}] is {shown(each)}; allowed: an object with a bbox of numbers")
    identified = {
        key: [each for each in content[key] if isinstance(each, dict) and each.get("id") is not None]
        for key in ("images", "categories")
    }
    return {**identified, "annotations": content["annotations"]}


def _without(image_ids: set[int | str], truth: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Ground truth without some images."""
    images = [each for each in truth["images"] if each["id"] not in image_ids]
    annotations = [each for each in truth["annotations"] if each["image_id"] not in image_ids]
    return {**truth, "images": images, "annotations": annotations}


def _results(data: DetectionData, found: _Found) -> list[dict[str, Any]]:
    """In COCO's format of results, the boxes as the detector had them."""
    sides = np.concatenate([found.corners[:, :2], found.corners[:, 2:] - found.corners[:, :2]], axis=1)
    columns = zip(found.owners.tolist(), found.classes.tolist(), sides.tolist(), found.scores.tolist(), strict=True)
    return [
        {"image_id": data.image_ids[owner], "category_id": data.category_ids[category], "bbox": box, "score": score}
        for owner, category, box, score in columns
    ]


def _average_precision(truth: Mapping[str, Any], results: list[dict[str, Any]], rules: str) -> dict[str, float]:
    if rules == "coco":
        return coco_average_precision(truth, results)
    if rules == "lvis":
        return lvis_average_precision(truth, results)
    return lvis_average_precision(truth, results, max_per_image=None, max_per_category=10000)
