"""The recipe of the embedded checkpoint's calibration: what its pairs are."""

import numpy as np

from fgclip2.calibration import CalibratedScores, Curve, Evaluation, ScoreKey
from recipes.calibration.pairs import OTHERS, Pairs, draw_pairs
from recipes.calibration.run import measure_hard, rates


def test_others_are_never_of_the_same_scene():
    images = np.eye(4, dtype=np.float32)
    owners = np.array([0, 0, 1, 1])
    texts = np.array([[1, 0.5, 0, 0], [0, 0, 0.25, 1]], np.float32)  # of images 0 and 3
    pairs = draw_pairs(images, texts, [0, 3], owners, np.random.default_rng(0))
    assert pairs.cosines[pairs.matches].tolist() == [1, 1]
    others = pairs.cosines[~pairs.matches]
    assert set(others.tolist()) == {0}
    assert 0.2 * 2 * OTHERS < len(others) < 0.8 * 2 * OTHERS


def test_rates_are_counted_above_the_thresholds():
    evaluation = Evaluation(50, 50, 0.0, None, {})
    curve = Curve((0.0, 1.0), (-1.0, 1.0))
    scores = CalibratedScores(
        ScoreKey("caption", "zh", 100), "platt", 50, 50, curve, {0.1: 0.5, 0.001: None}, evaluation
    )
    pairs = Pairs(np.array([0.9, 0.4, 0.6, 0.1, 0.2, 0.3]), np.array([True, True, False, False, False, False]))
    found = rates(scores, pairs)
    assert found["false_positives"] == {"0.1": 0.25}
    assert found["true_positives"] == {"0.1": 0.5}
    hard = measure_hard(scores, Pairs(np.array([0.6, 0.4]), np.zeros(2, bool)))
    assert hard == {"others": 2, "taken_for_matches": 0.5, "above_0.1": 0.5}
