"""Mean intersection over union by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from fgclip2.metrics import class_areas, class_iou, mean_iou, mean_iou_interval

TRUTH = np.array([[0, 0, 1], [1, 1, 255]], dtype=np.uint8)
PREDICTED = np.array([[0, 1, 1], [1, 2, 3]])


def test_areas_by_hand():
    areas = class_areas(PREDICTED, TRUTH, classes=4, ignored=255)
    assert areas.tolist() == [[1, 2, 0, 0], [2, 3, 0, 0], [1, 3, 1, 0]]
    assert class_iou(areas)[:2] == pytest.approx([1 / 2, 2 / 4])
    assert np.isnan(class_iou(areas)[2:]).all()
    assert mean_iou(areas) == 0.5


def test_images_add_up():
    areas = [class_areas(PREDICTED, TRUTH, 4, 255), class_areas(np.zeros((1, 5), int), np.zeros((1, 5), int), 4)]
    assert class_iou(sum(areas))[:2] == pytest.approx([6 / 7, 2 / 4])
    assert mean_iou(np.stack(areas)) == mean_iou(sum(areas))


def test_the_interval_by_hand():
    """Class 0 is in both images, class 1 in one: it is compared with the mean of the classes."""
    areas = [class_areas(PREDICTED, TRUTH, 4, 255), class_areas(np.zeros((1, 5), int), np.zeros((1, 5), int), 4)]
    mean = (6 / 7 + 2 / 4) / 2
    first = (1 - 6 / 7 * 2) * 2**0.5 / 7 / 2 + (2 - mean * 4) / 4 / 2
    second = (5 - 6 / 7 * 5) * 2**0.5 / 7 / 2
    spread = second - first  # of drawing one image twice
    assert mean_iou_interval(np.stack(areas)) == pytest.approx((mean - spread, mean + spread))


def test_the_interval_is_about_the_classes_of_the_whole_data():
    """Rare classes are the worst here; resamples that lack them would make an interval above the value."""
    truth = np.stack([np.zeros(200, int), *(np.full(200, number) for number in range(1, 61))])
    predicted = truth.copy()
    predicted[1:41] = 0
    for repeats in (1, 3):
        pairs = [(p, t) for p, t in zip(predicted, truth, strict=True) for _ in range(1 if t[0] else 30 * repeats)]
        areas = np.stack([class_areas(p[None], t[None], 61) for p, t in pairs])
        low, high = mean_iou_interval(areas)
        assert low < mean_iou(areas) < high
        assert mean_iou(areas) == pytest.approx(20 / 61, abs=0.02)
        assert high - low == pytest.approx(2 * 1.96 * (1 / 3 * 2 / 3 * 60) ** 0.5 / 61, rel=0.2)


def test_no_spread_is_no_interval():
    areas = np.stack([class_areas(TRUTH[:, :2], TRUTH[:, :2], 2), class_areas(TRUTH[:, :2], TRUTH[:, :2], 2)])
    assert mean_iou(areas) == 1
    assert mean_iou_interval(areas) is None


def test_nothing_counted_has_no_mean():
    assert np.isnan(mean_iou(class_areas(np.zeros((2, 2), int), np.full((2, 2), 255), 3, ignored=255)))


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1, max_size=40))
def test_equals_scikit_learn(pixels):
    predicted, truth = np.array(pixels).T
    counted = truth != 5
    if not counted.any():
        return
    expected = jaccard_score(
        truth[counted], predicted[counted], labels=np.unique(truth[counted]), average="macro", zero_division=0
    )
    assert mean_iou(class_areas(predicted, truth, 5, ignored=5)) == pytest.approx(expected)


def test_bad_maps_are_named():
    with pytest.raises(ValueError, match="truth has the value 255; classes go from 0 to 3"):
        class_areas(PREDICTED, TRUTH, 4)
    with pytest.raises(ValueError, match="predicted has the value 2; classes go from 0 to 1"):
        class_areas(PREDICTED, TRUTH, 2, ignored=255)
    with pytest.raises(ValueError, match=r"predicted has shape \(3,\) and truth \(2, 3\)"):
        class_areas(PREDICTED[0], TRUTH, 4, 255)
