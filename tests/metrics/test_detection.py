"""Average precision by hand, against pycocotools' own summary, and under LVIS's federated rules."""

import contextlib
import copy
import io
import math

import numpy as np
import pytest

pytest.importorskip("pycocotools")
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fgclip2.metrics import coco_average_precision, lvis_average_precision

BOX, ELSEWHERE = [10, 10, 20, 20], [60, 60, 20, 20]


def truth(annotations: list[tuple[int, int]], images: int = 2, categories: int = 3, **fields) -> dict:
    """Annotations (image, category), all of `BOX`."""
    listed = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    return {
        "images": [{"id": number, **listed, **fields} for number in range(1, images + 1)],
        "categories": [{"id": number, "frequency": "rcf"[number - 1]} for number in range(1, categories + 1)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "bbox": BOX, "area": 400, "iscrowd": 0}
            for number, (image, category) in enumerate(annotations)  # from 0, which pycocotools itself can't match
        ],
    }


def found(image: int, category: int, score: float, box: list[float] = BOX) -> dict:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def random_task(seed: int) -> tuple[dict, list[dict]]:
    random = np.random.default_rng(seed)
    pairs = [(int(i), int(c)) for i, c in zip(random.integers(1, 11, 60), random.integers(1, 4, 60), strict=True)]
    annotations = truth(pairs, images=10)
    detections = []
    for number, annotation in enumerate(annotations["annotations"], start=1):
        box = [*random.uniform(0, 100, 2), *random.uniform(5, 60, 2)]
        annotation.update(id=number, bbox=box, area=box[2] * box[3], iscrowd=int(number % 9 == 0))
        near = np.abs(np.array(box) + random.normal(0, 3, 4)).tolist()
        detections.append(found(annotation["image_id"], annotation["category_id"], random.random(), near))
        anywhere = [*random.uniform(0, 100, 2), *random.uniform(5, 60, 2)]
        detections.append(found(int(random.integers(1, 11)), int(random.integers(1, 4)), random.random(), anywhere))
    return annotations, detections


def test_a_false_one_above_halves_the_precision():
    annotations = truth([(1, 1)])
    assert coco_average_precision(annotations, [found(1, 1, 0.9)]) == pytest.approx({"ap": 1, "ap50": 1, "ap75": 1})
    two = [found(1, 1, 0.9, ELSEWHERE), found(1, 1, 0.8)]
    assert coco_average_precision(annotations, two)["ap50"] == pytest.approx(0.5)
    assert coco_average_precision(annotations, two[:1])["ap"] == 0
    assert coco_average_precision(annotations, []) == {"ap": 0, "ap50": 0, "ap75": 0}


def test_overlap_decides():
    shifted = found(1, 1, 0.9, [10, 10, 20, 14])  # overlap 0.7: right at 0.5, 0.55, 0.6, 0.65 and 0.7
    assert coco_average_precision(truth([(1, 1)]), [shifted]) == pytest.approx({"ap": 0.5, "ap50": 1, "ap75": 0})


def test_categories_count_alike_and_without_annotations_not_at_all():
    annotations = truth([(1, 1), (2, 1), (1, 2)])
    detections = [found(1, 1, 0.9), found(2, 1, 0.8), found(1, 3, 0.7)]
    assert coco_average_precision(annotations, detections)["ap"] == pytest.approx(1 / 2)
    assert math.isnan(coco_average_precision(truth([]), detections)["ap"])


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_summary_of_pycocotools(seed):
    annotations, detections = random_task(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(annotations)
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(copy.deepcopy(detections)), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    ours = coco_average_precision(annotations, detections)
    assert list(ours.values()) == pytest.approx(evaluator.stats[:3])
    assert 0.05 < ours["ap"] < 0.9
    assert coco_average_precision(annotations, detections[::-1]) == pytest.approx(ours)


def test_lvis_leaves_out_categories_that_nobody_looked_for():
    annotations = truth([(1, 1)])
    detections = [found(2, 1, 0.9), found(1, 1, 0.8)]  # category 1 is unknown in image 2
    assert lvis_average_precision(annotations, detections)["ap"] == pytest.approx(1)
    annotations["images"][1]["neg_category_ids"] = [1]
    assert lvis_average_precision(annotations, detections)["ap"] == pytest.approx(0.5)


def test_lvis_forgives_unmatched_ones_where_not_all_are_annotated():
    annotations = truth([(1, 1)])
    detections = [found(1, 1, 0.9, ELSEWHERE), found(1, 1, 0.8)]
    assert lvis_average_precision(annotations, detections)["ap50"] == pytest.approx(0.5)
    annotations["images"][0]["not_exhaustive_category_ids"] = [1]
    assert lvis_average_precision(annotations, detections)["ap50"] == pytest.approx(1)


def test_lvis_has_a_limit_for_each_image_or_for_each_category():
    annotations = truth([(1, 1), (1, 2), (2, 1)])
    detections = [found(1, 1, 0.9), found(1, 2, 0.8), found(2, 1, 0.7)]
    assert lvis_average_precision(annotations, detections, max_per_image=1)["ap_common"] == 0
    half = lvis_average_precision(annotations, detections, max_per_image=None, max_per_category=1)
    assert half["ap_rare"] == pytest.approx(51 / 101)  # recall 0.5 of its two
    assert half["ap_common"] == pytest.approx(1)


def test_lvis_has_a_mean_for_each_frequency():
    annotations = truth([(1, 1), (1, 2)])
    result = lvis_average_precision(annotations, [found(1, 1, 0.9)])
    assert (result["ap"], result["ap_rare"], result["ap_common"]) == pytest.approx((0.5, 1, 0))
    assert math.isnan(result["ap_frequent"])


def test_bad_entries_are_named():
    annotations = truth([(1, 1)])
    with pytest.raises(ValueError, match=r"detections\[0\]: image_id 7 is not in the set"):
        coco_average_precision(annotations, [found(7, 1, 0.9)])
    with pytest.raises(ValueError, match=r"detections\[1\]: category_id 0 is not in the set"):
        lvis_average_precision(annotations, [found(1, 1, 0.9), found(1, 0, 0.9)])
    with pytest.raises(ValueError, match=r"detections\[0\]: bbox \[0, 0, -1, 2\] is not"):
        coco_average_precision(annotations, [found(1, 1, 0.9, [0, 0, -1, 2])])
    with pytest.raises(ValueError, match=r"detections\[0\]: score nan is not finite"):
        coco_average_precision(annotations, [found(1, 1, float("nan"))])
    del annotations["images"][1]["neg_category_ids"]
    with pytest.raises(ValueError, match=r"images\[1\]: neg_category_ids is missing"):
        lvis_average_precision(annotations, [])


def test_nothing_is_printed_and_nothing_changed(capsys):
    annotations, detections = random_task(0)
    before = copy.deepcopy((annotations, detections))
    lvis_average_precision(annotations, detections)
    assert capsys.readouterr().out == ""
    assert (annotations, detections) == before
