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

from ... import distributed
from ..._imports import require
from ...checks import check_choice, check_flag, check_number, is_number
from ...data.readers.checks import shown
from ...embedding.inputs import load_input
from ...errors import UnreadableImageError
from ...files import read_json
from ...metrics import check_truth, coco_average_precision, lvis_average_precision
from ...modeling.inputs import MIN_BOX_SIDE
from ...modeling.interface import Role
from .. import encoding
from ..base import ROLE_OF_METHOD, Box, DataSet, LabelSettings, Problem
from ..encoding import Encoder
from ..image_files import StoredImage
from ..labels import label_vectors
from ..models import float64_device
from ..scores import Estimate, Scores

_BOXES_AT_ONCE = 8192  # times the number of classes: what is compared at once


@dataclass(frozen=True)
class DetectionData(DataSet):
    """Boxes that a detector found, to be scored anew."""

    image_ids: Sequence[int | str]  # of each image, as the ground truth has them
    boxes: Sequence[Sequence[Box]]  # of each image; may reach out of it
    categories: Sequence[Sequence[int]]  # of each box, the detector's: an index into the names
    scores: Sequence[Sequence[float]]  # of each box, the detector's
    names: Mapping[str, Sequence[str]]  # language -> names of all categories
    category_ids: Sequence[int | str]  # of each name, as the ground truth has them
    ground_truth: Path  # file of instances that the boxes are measured by
    missing_ids: Sequence[int | str] = ()  # of images that have boxes, and are not there

    @property
    def items(self) -> int:
        """See the base class."""
        return sum(map(len, self.boxes))


@dataclass(frozen=True)
class DetectionSettings(LabelSettings):
    """Settings of scoring a detector's boxes anew."""

    method: str = "roi"  # as in `RegionSettings`
    rules: str = "coco"  # of AP: "coco", "lvis": the best 300 boxes of an image, "lvis-fixed": 10,000 of a category
    region_scale: float = 100.0  # of the cosines before the softmax over classes; 100 in training
    fusion_weight: float = 0.5  # exponent of the region's probability; that of the detector's score is the rest of 1
    reclassify: bool = True  # whether the class of the highest fused score replaces the detector's
    score_threshold: float = 0.0  # boxes that the detector scores below it are dropped, also from its own AP

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("method", self.method, ROLE_OF_METHOD)
        check_choice("rules", self.rules, ("coco", "lvis", "lvis-fixed"))
        check_number("region_scale", self.region_scale, 0, 1000)
        check_number("fusion_weight", self.fusion_weight, 0, 1)
        check_flag("reclassify", self.reclassify)
        check_number("score_threshold", self.score_threshold, 0, 1)

    @property
    def role(self) -> Role:
        """See the base class."""
        return ROLE_OF_METHOD[self.method]


@dataclass(frozen=True)
class Detections:
    """The boxes of all images, in their order."""

    owners: np.ndarray  # int64 (B,), the image of each
    corners: np.ndarray  # float64 (B, 4): x1, y1, x2, y2
    classes: np.ndarray  # int64 (B,)
    scores: np.ndarray  # float64 (B,)

    def some(self, rows: np.ndarray) -> Detections:
        """Return the boxes of some rows."""
        return Detections(self.owners[rows], self.corners[rows], self.classes[rows], self.scores[rows])

    def best_of_equal(self) -> np.ndarray:
        """Return rows in order: of boxes of one image, place and class the one of the highest score."""
        keys = np.column_stack([self.owners, self.corners, self.classes])  # (B, 6)
        order = np.argsort(-self.scores, kind="stable")
        _, firsts = np.unique(keys[order], axis=0, return_index=True)
        return np.sort(order[firsts])

    def as_results(self, data: DetectionData) -> list[dict[str, Any]]:
        """Return the boxes in COCO's format of results, where the detector had them."""
        sides = np.concatenate([self.corners[:, :2], self.corners[:, 2:] - self.corners[:, :2]], axis=1)  # (B, 4)
        columns = zip(self.owners.tolist(), self.classes.tolist(), sides.tolist(), self.scores.tolist(), strict=True)
        return [
            {"image_id": data.image_ids[owner], "category_id": data.category_ids[category], "bbox": box, "score": score}
            for owner, category, box, score in columns
        ]


def evaluate(data: DetectionData, encoder: Encoder, settings: DetectionSettings, language: str) -> Scores:
    """Compute the average precision of the fused scores (`ap`, ...) and of the detector alone (`ap_detector`, ...).

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
    content = _read_truth(data.ground_truth)
    truth = {
        **content,
        "images": [image for image in content["images"] if image["id"] not in left_out],
        "annotations": [entry for entry in content["annotations"] if entry["image_id"] not in left_out],
    }
    alone = _average_precision(truth, found.some(is_used).as_results(data), settings.rules)
    if np.isnan(alone["ap"]):
        raise ValueError(f"{data.ground_truth} has no annotation, but of crowds, on images that can be read")
    names = label_vectors(encoder, data.names[language], settings, language)
    rescored = _rescored(found, is_used, data.images, sizes, encoder, names, settings)
    kept = np.flatnonzero(is_used)
    if settings.reclassify:
        kept = kept[rescored.some(kept).best_of_equal()]
    fused = _average_precision(truth, rescored.some(kept).as_results(data), settings.rules)
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
    """Return the data set if its boxes can be measured by its ground truth under the rules of the settings.

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


def _found(data: DetectionData) -> Detections:
    found = Detections(
        np.repeat(np.arange(len(data.boxes)), [len(its) for its in data.boxes]),
        np.array([box for its in data.boxes for box in its], dtype=np.float64).reshape(-1, 4),
        np.array([category for its in data.categories for category in its], dtype=np.int64),
        np.array([score for its in data.scores for score in its], dtype=np.float64),
    )
    wrong = np.flatnonzero((found.scores < 0) | (found.scores > 1))
    if len(wrong):
        image, score = data.images[found.owners[wrong[0]]], found.scores[wrong[0]]
        raise ValueError(f"{image}: the score of a box is {score}; it must be from 0 to 1, for a geometric mean")
    return found


def _sizes(images: Sequence[StoredImage]) -> tuple[np.ndarray, list[Problem]]:
    """Return width and height (N, 2) of the upright images, 0 for those that can't be read, and these as problems."""
    own: dict[int, tuple[int, int] | str] = {}
    for index in range(distributed.rank(), len(images), distributed.world_size()):
        try:
            own[index] = load_input(index, images[index].read()).size
        except UnreadableImageError as error:
            own[index] = str(error).removeprefix(f"images[{index}]: ")
    of_all = {index: size for of_rank in distributed.gather_objects(own) for index, size in of_rank.items()}
    sizes = [of_all[index] for index in range(len(images))]  # or the reason why there is none
    problems = [Problem(str(image), size) for image, size in zip(images, sizes, strict=True) if isinstance(size, str)]
    return np.array([(0, 0) if isinstance(size, str) else size for size in sizes]), problems


def _rescored(
    found: Detections,
    is_used: np.ndarray,
    images: Sequence[StoredImage],
    sizes: np.ndarray,
    encoder: Encoder,
    names: np.ndarray,
    settings: DetectionSettings,
) -> Detections:
    """Return all boxes, those used and inside their image with fused classes and scores; some images at a time."""
    inside = np.clip(found.corners, 0, np.tile(sizes, 2)[found.owners])
    is_used = is_used & ((inside[:, 2:] - inside[:, :2]).min(axis=1) >= MIN_BOX_SIDE)
    rows = np.flatnonzero(is_used)
    classes, scores = found.classes.copy(), found.scores.copy()
    used = np.unique(found.owners[rows])
    at_once = encoding.BLOCK_SIZE * distributed.world_size()
    quiet = replace(encoder, show_progress_bar=False)
    device = float64_device(encoder.model)
    labels = torch.from_numpy(names).to(device).double()  # (C, D)
    hidden = not encoder.show_progress_bar or distributed.rank() > 0
    with tqdm(total=len(used), desc="regions", unit="image", disable=hidden) as bar:
        for start in range(0, len(used), at_once):
            its = used[start : start + at_once].tolist()
            its_rows = rows[slice(*np.searchsorted(found.owners[rows], (its[0], its[-1] + 1)))]
            firsts = np.searchsorted(found.owners[its_rows], its)
            boxes = [[tuple(box) for box in part.tolist()] for part in np.split(inside[its_rows], firsts[1:])]
            encoded = quiet.regions([images[i] for i in its], boxes, settings.max_num_patches, settings.method)
            if encoded.problems:
                raise ValueError(f"{encoded.problems[0]}; it could be read a moment ago")
            for some in np.array_split(np.arange(len(its_rows)), 1 + len(its_rows) // _BOXES_AT_ONCE):
                into = its_rows[some]
                regions, its_classes, its_scores = (
                    torch.from_numpy(array).to(device)
                    for array in (encoded.vectors[some], found.classes[into], found.scores[into])
                )
                fused_classes, fused_scores = fuse(regions.double() @ labels.T, its_classes, its_scores, settings)
                classes[into], scores[into] = fused_classes.cpu().numpy(), fused_scores.cpu().numpy()
            bar.update(len(its))
    return replace(found, classes=classes, scores=scores)


def _read_truth(path: Path) -> dict[str, list[Any]]:
    """Read ground truth without images and categories that have no id, which are among the data set's problems."""
    content = read_json(path)
    for number, entry in enumerate(content["annotations"]):
        box = entry.get("bbox") if isinstance(entry, dict) else None
        if not (isinstance(box, list) and all(map(is_number, box))):
            raise ValueError(f"annotations[{number}] must be an object with a bbox of numbers, got {shown(entry)}")
    identified = {
        key: [entry for entry in content[key] if isinstance(entry, dict) and entry.get("id") is not None]
        for key in ("images", "categories")
    }
    return {**identified, "annotations": content["annotations"]}


def _average_precision(truth: Mapping[str, Any], results: list[dict[str, Any]], rules: str) -> dict[str, float]:
    if rules == "coco":
        return coco_average_precision(truth, results)
    if rules == "lvis":
        return lvis_average_precision(truth, results)
    return lvis_average_precision(truth, results, max_per_image=None, max_per_category=10000)
