"""The stored form: the same after a round trip, errors that name the field, and no scikit-learn to apply it."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fgclip2.calibration import (
    MIN_PAIRS,
    CalibratedScores,
    Calibration,
    Curve,
    Evaluation,
    ScoreKey,
    ScoreQuantiles,
    fit_scores,
)
from tests.interpreters import run_python

KEY = ScoreKey("caption", "zh", 36)
SCORES = CalibratedScores(
    KEY,
    "platt",
    100,
    400,
    Curve((0.1, 0.3), (-2.0, 2.0)),
    {0.1: 0.2, 0.001: None},
    Evaluation(90, 390, 0.02, None, {0.1: 0.09}),
)
QUANTILES = ScoreQuantiles(ScoreKey("region_phrase", "en", "auto"), 50, (0.0, 0.1, 0.4))
CALIBRATION = Calibration({"name": "小模型", "fingerprint": "f" * 64}, (SCORES,), (QUANTILES,))


@pytest.fixture
def file(tmp_path):
    return CALIBRATION.save(tmp_path / "校准.json")


def test_a_round_trip(file):
    assert Calibration.load(file) == CALIBRATION


def test_each_text_has_its_curve_and_others_have_none(file):
    cosines = np.array([[0.2, 0.2, 0.2], [0.3, 0.3, 0.3]])
    found = Calibration.load(file).probabilities(
        cosines, ["caption", "caption", "long_caption"], ["zh", "en", "zh"], 36, 0.5
    )
    assert found[:, 0] == pytest.approx([0.5, 1 / (1 + np.exp(-2))])
    assert np.isnan(found[:, 1:]).all()
    assert np.isnan(CALIBRATION.probabilities(cosines[:, :1], ["caption"], ["zh"], 100)).all()


def test_quantiles_are_shares_of_lower_cosines():
    assert QUANTILES.quantiles(np.array([-1, 0.05, 0.1, 0.9])) == pytest.approx([0, 0.25, 0.5, 1])


def test_newer_pairs_go_before_older_ones_of_the_same_kind():
    newer = replace(SCORES, matches=500)
    other = replace(SCORES, key=ScoreKey("caption", "en", 36))
    both = CALIBRATION.updated(Calibration(CALIBRATION.model, (newer, other)))
    assert both.scores == (newer, other)
    assert both.quantiles == (QUANTILES,)
    with pytest.raises(ValueError, match=r"is of the model '小模型' \(fingerprint ffffffff\), not of 'b' \(aaaaaaaa\)"):
        CALIBRATION.updated(Calibration({"name": "b", "fingerprint": "a" * 64}))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("format",), 2, "format must be 1, got 2: make the file anew with `fgclip2 calibrate`"),
        (("model",), "a", "model must be an object, got 'a'"),
        (("model", "fingerprint"), None, "model: fingerprint must be a text, got None"),
        (("scores",), {}, "scores must be a list, got {}"),
        (("scores", 0), 3, r"scores\[0\] must be a JSON object, got 3"),
        (("scores", 0, "language"), "de", r"scores\[0\]: language must be 'en' or 'zh', got 'de'"),
        (("scores", 0, "max_num_patches"), 0, r"scores\[0\]: max_num_patches must be a positive integer, auto or null"),
        (("scores", 0, "matches"), True, r"scores\[0\]: matches must be a positive integer, got True"),
        (("scores", 0, "curve", "cosines"), [0.1, "b"], r"scores\[0\]: curve: cosines must be a list of numbers"),
        (("scores", 0, "curve", "cosines"), [0.3, 0.1], r"scores\[0\]: curve must have rising cosines, and log-odds"),
        (("scores", 0, "curve", "log_odds"), [1.0], r"scores\[0\]: curve has 2 cosines and 1 log-odds"),
        (("scores", 0, "curve", "log_odds"), [2, 1], r"scores\[0\]: curve must have rising cosines, and log-odds"),
        (("scores", 0, "thresholds"), {"x": 1}, r"scores\[0\]: thresholds must be an object of false-positive rates"),
        (("scores", 0, "evaluation", "calibration_error"), None, "evaluation: calibration_error must be a number"),
        (("quantiles", 0, "cosines"), [0.2, 0.1], r"quantiles\[0\]: cosines must never fall"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_the_field(file, place, value, message):
    content = json.loads(file.read_text(encoding="utf-8"))
    *outer, last = place
    inner = content
    for name in outer:
        inner = inner[name]
    inner[last] = value
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as error:
        Calibration.load(file)
    assert "校准.json" in str(error.value)


def test_neither_scikit_learn_nor_torch_is_needed_to_apply_it(file):
    code = (
        "import sys, numpy as np; sys.modules['sklearn'] = sys.modules['torch'] = None\n"
        "from fgclip2_onnx._fgclip2.calibration.stored import Calibration\n"
        f"print(Calibration.load({str(file)!r}).probabilities(np.array([0.2]), ['caption'], ['zh'], 36))"
    )
    package = Path(__file__).parents[2] / "packages" / "fgclip2-onnx" / "src"
    done = run_python("-c", code, env={**os.environ, "PYTHONPATH": str(package)})
    assert done.stdout.strip() == "[0.5]", done.stderr


def test_too_few_pairs_of_a_fold_say_how_many_are_needed():
    matches = np.arange(4 * MIN_PAIRS) % 2 == 0
    cosines = np.where(matches, 0.3, 0.1) + np.random.default_rng(0).normal(0, 0.1, len(matches))
    is_fitted = np.arange(len(matches)) < 2 * MIN_PAIRS
    assert fit_scores(KEY, cosines, matches, is_fitted).evaluation.matches == MIN_PAIRS
    message = (
        "caption in zh at 36 patches has too few pairs: 50 matches and 50 others to fit, 49 and 49 to evaluate; 50 of "
        "each are needed. The images are halved by chance: 130 matches and 130 others in all, on different images"
    )
    with pytest.raises(ValueError, match=message):
        fit_scores(KEY, cosines[:-2], matches[:-2], is_fitted[:-2])


def test_thresholds_and_evaluation_are_of_different_folds():
    rng = np.random.default_rng(1)
    matches = np.arange(8000) % 2 == 0
    cosines = np.where(matches, 0.3, 0.1) + rng.normal(0, 0.1, len(matches))
    is_fitted = np.arange(len(matches)) < 4000
    scores = fit_scores(KEY, cosines, matches, is_fitted, before=np.full(len(matches), 0.9))
    assert scores.thresholds[0.01] == np.sort(cosines[is_fitted & ~matches])[1980]  # k = ceil(2001 * 0.99) = 1981
    assert scores.evaluation.false_positive_rates[0.01] == pytest.approx(0.01, abs=0.007)
    assert scores.evaluation.calibration_error < 0.03
    assert scores.evaluation.calibration_error_before == pytest.approx(0.4)
