"""The recipe of the embedded checkpoint's calibration: what its pairs are, and how a kind of curve is chosen."""

import numpy as np
from PIL import Image

from fgclip2.calibration import CalibratedScores, Curve, Evaluation, ScoreKey
from fgclip2.drawings.concepts import Concept, ConceptTable
from recipes.calibration.pairs import OTHERS, Pairs, at_budgets, draw_pairs, may_be_true
from recipes.calibration.run import chosen_method, measure_hard, rates, try_methods


def test_others_are_images_that_a_text_is_not_true_of():
    images = np.eye(4, dtype=np.float32)
    texts = np.array([[1, 0.5, 0, 0], [0, 0, 0.25, 1]], np.float32)  # of images 0 and 3
    may_match = np.array([[1, 1, 0, 0], [0, 0, 1, 1]], bool)
    pairs = draw_pairs(images, texts, np.array([0, 3]), may_match, np.random.default_rng(0))
    assert pairs.cosines[pairs.matches].tolist() == [1, 1]
    others = pairs.cosines[~pairs.matches]
    assert set(others.tolist()) == {0}
    assert 0.2 * 2 * OTHERS < len(others) < 0.8 * 2 * OTHERS
    assert pairs.owners[:2].tolist() == [0, 3]
    assert set(pairs.owners[2:].tolist()) == {0, 3}


def test_a_text_may_be_true_where_all_that_it_names_is_or_a_near_synonym():
    names = (("dog", "狗"), ("guide dog", "导盲犬"), ("bus", "公交车"), ("apple", "苹果"))
    table = ConceptTable(tuple(Concept(str(row), *name, (), (), "g", "s", True) for row, name in enumerate(names)))
    found = may_be_true([[0], [0, 2], [3]], [[0, 2], [1], [1, 2, 3]], table)
    assert found.tolist() == [[True, True, True], [True, False, True], [False, False, True]]


def test_images_are_encoded_once_at_budgets_that_are_the_same():
    asked = []

    def pairs_at(budget):
        asked.append(budget)
        return {("caption", "en"): {"scenes": budget}}

    small, large = Image.new("RGB", (96, 96)), Image.new("RGB", (320, 320))
    found = at_budgets([small, small], (36, 128, "auto"), pairs_at)
    assert asked == [36, 128]
    assert found["auto"] == found[128]
    assert at_budgets([small, large], (128, "auto"), pairs_at)["auto"] == {("caption", "en"): {"scenes": "auto"}}


def test_a_line_unless_many_knots_are_clearly_better():
    assert chosen_method({"platt": 0.02, "isotonic": 0.016}) == "platt"
    assert chosen_method({"platt": 0.02, "isotonic": 0.0149}) == "isotonic"
    rng = np.random.default_rng(0)
    owners = np.arange(4000)
    matches = rng.random(4000) < 0.5
    steps = np.where(matches, rng.choice([0, 0.4], 4000, p=[0.3, 0.7]), rng.choice([-2, 0], 4000))  # on no line
    found = try_methods(
        {36: {("caption", "en"): {"scenes": Pairs(steps + rng.normal(0, 0.01, 4000), matches, owners)}}}
    )
    assert found.keys() == {"caption"}
    assert found["caption"]["isotonic"] < found["caption"]["platt"]


def test_rates_are_counted_above_the_thresholds():
    evaluation = Evaluation(50, 50, 0.0, None, {})
    curve = Curve((0.0, 1.0), (-1.0, 1.0))
    scores = CalibratedScores(
        ScoreKey("caption", "zh", 100), "platt", 50, 50, curve, {0.1: 0.5, 0.001: None}, evaluation
    )
    pairs = Pairs(np.array([0.9, 0.4, 0.6, 0.1, 0.2, 0.3]), np.array([1, 1, 0, 0, 0, 0], bool), np.zeros(6, int))
    found = rates(scores, pairs)
    assert found["false_positives"] == {"0.1": 0.25}
    assert found["true_positives"] == {"0.1": 0.5}
    hard = measure_hard(scores, Pairs(np.array([0.6, 0.4]), np.zeros(2, bool), np.zeros(2, int)))
    assert hard == {"others": 2, "taken_for_matches": 0.5, "above_0.1": 0.5}
