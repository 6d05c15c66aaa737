"""Mean intersection over union by hand and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from fgclip2.metrics import bootstrap, class_areas, class_iou, mean_iou

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
    low, high = bootstrap(mean_iou, np.stack(areas), samples=50)
    assert (low, high) == (0.5, 1.0)


def test_nothing_counted_has_no_mean():
    assert np.isnan(mean_iou(class_areas(np.zeros((2, 2), int), np.full((2, 2), 255), 3, ignored=255)))


@settings(deadline=None, max_examples=25)
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
