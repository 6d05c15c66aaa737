"""Curves against Bayes' rule by hand, and against scikit-learn's own probabilities."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fgclip2.calibration import Curve, even_prevalence, expected_calibration_error, fit_curve, none_matches
from fgclip2.calibration.fitting import split_folds

RNG = np.random.default_rng(0)
MATCHES = np.arange(6000) % 3 == 0
COSINES = np.where(MATCHES, RNG.normal(0.3, 0.08, 6000), RNG.normal(0.1, 0.08, 6000))


def test_prevalence_shifts_by_bayes_rule():
    curve = Curve((0.0, 1.0), (np.log(1 / 9), np.log(9)))
    assert curve.probabilities(np.array([[0.0, 0.5], [1.0, 2.0]])) == pytest.approx(np.array([[0.1, 0.5], [0.9, 0.9]]))
    # Nine times as likely among matches, of which there is one in ten: even odds.
    assert curve.probabilities(np.array(1.0), 0.1) == pytest.approx(0.5)
    for wrong in (0, 1, -0.1, np.nan):
        with pytest.raises(ValueError, match="prevalence must be a share above 0 and below 1, got"):
            curve.probabilities(np.zeros(1), wrong)


def test_one_of_the_candidates_or_none():
    assert even_prevalence(1) == 0.5
    assert even_prevalence(999) == 0.001


def test_platt_is_the_logistic_regression_of_balanced_classes():
    curve = fit_curve(COSINES, MATCHES)
    own = LogisticRegression(C=1e9, class_weight="balanced", tol=1e-8).fit(COSINES[:, None], MATCHES)
    grid = np.linspace(0.05, 0.35, 31)
    assert curve.probabilities(grid) == pytest.approx(own.predict_proba(grid[:, None])[:, 1], abs=1e-3)
    assert len(curve.cosines) == 2


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_probabilities_hold_at_the_prevalence_they_are_asked_for(method):
    half = np.arange(6000) < 3000
    curve = fit_curve(COSINES[half], MATCHES[half], method)
    assert curve.problem() is None
    for prevalence in (0.5, 0.1, 0.01):
        found = curve.probabilities(COSINES[~half], prevalence)
        assert expected_calibration_error(found, MATCHES[~half], prevalence) < 0.03
    # Without the shift they are far off.
    assert expected_calibration_error(curve.probabilities(COSINES[~half]), MATCHES[~half], 0.01) > 0.1
    assert np.all(np.diff(curve.probabilities(np.linspace(-1, 1, 500))) >= 0)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_no_more_evidence_than_pairs_can_show(method):
    cosines = np.r_[np.linspace(0.5, 0.6, 50), np.linspace(0.0, 0.1, 200)]  # apart: nothing is uncertain
    curve = fit_curve(cosines, np.arange(250) < 50, method)
    assert curve.probabilities(np.array([-1.0, 1.0])) == pytest.approx([1 / 52, 201 / 202], abs=1e-5)


def test_what_can_not_be_fitted():
    swapped = r"cosines of matches \(mean 0.101\) are not above those of others \(0.297"
    for method in ("platt", "isotonic"):
        with pytest.raises(ValueError, match=swapped):
            fit_curve(COSINES, ~MATCHES, method)
    with pytest.raises(ValueError, match="pairs that match and others are needed, got 6000 and 0"):
        fit_curve(COSINES, np.ones(6000, bool))
    with pytest.raises(ValueError, match="method must be 'platt' or 'isotonic', got 'beta'"):
        fit_curve(COSINES, MATCHES, "beta")


def test_no_image_is_in_both_folds():
    images = [f"照片/{number % 40}.jpg" for number in range(200)]
    is_fitted = split_folds(images)
    fitted = {image for image, its in zip(images, is_fitted, strict=True) if its}
    others = {image for image, its in zip(images, is_fitted, strict=True) if not its}
    assert not fitted & others
    assert len(fitted) == len(others) == 20
    assert split_folds(images[::-1]).tolist() == is_fitted[::-1].tolist()


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.1, 0.4], True),
        ([0.1, 0.5], False),
        ([None, 0.6], False),
        ([None, 0.1], None),
        ([float("nan"), 0.1], None),
        ([None], None),
        ([], None),
    ],
)
def test_that_nothing_matches_is_said_where_it_is_known(probabilities, expected):
    assert none_matches(probabilities) is expected
