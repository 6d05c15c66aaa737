"""Reliability and thresholds against values counted by hand, and the promise of split conformal against many draws."""

import numpy as np
import pytest

from fgclip2.calibration import conformal_threshold, expected_calibration_error, prevalence_weights, reliability_bins


def test_bins_and_their_error_by_hand():
    probabilities = np.array([0.1, 0.3, 0.6, 0.8, 1.0])
    matches = np.array([False, True, True, True, True])
    low, high = reliability_bins(probabilities, matches, bins=2)
    assert low == pytest.approx((0.2, 0.5, 0.4, 2))
    assert high == pytest.approx((0.8, 1.0, 0.6, 3))
    assert expected_calibration_error(probabilities, matches, bins=2) == pytest.approx(0.4 * 0.3 + 0.6 * 0.2)


def test_a_prevalence_weighs_the_pairs():
    matches = np.array([True, False, False, False])
    assert prevalence_weights(matches, 0.5) == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    (only,) = reliability_bins(np.full(4, 0.5), matches, prevalence=0.01, bins=1)
    assert only == pytest.approx((0.5, 0.01, 1, 4))
    assert expected_calibration_error(np.full(4, 0.5), matches, prevalence=0.01) == pytest.approx(0.49)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5], [True, False]), r"probabilities \(1,\) and matches \(2,\) must be \(N,\) both"),
        (([1.5], [True]), "probabilities must be from 0 to 1"),
        (([np.nan], [True]), "probabilities must be from 0 to 1"),
        (([], []), "pairs that match and others are needed, got 0 and 0"),
        (([0.5], [True], 0.1), "pairs that match and others are needed, got 1 and 0"),
        (([0.5], [True], None, 0), "bins must be a positive integer, got 0"),
    ],
)
def test_what_has_no_bins(arguments, message):
    probabilities, matches, *others = arguments
    with pytest.raises(ValueError, match=message):
        reliability_bins(np.array(probabilities, float), np.array(matches, bool), *others)


def test_the_threshold_is_the_right_rank():
    cosines = np.arange(1, 20) / 100  # n = 19: k = ceil(20 * 0.9) = 18
    np.random.default_rng(0).shuffle(cosines)
    assert conformal_threshold(cosines, 0.1) == pytest.approx(0.18)
    assert conformal_threshold(cosines, 0.05) == pytest.approx(0.19)  # k = 19, the last that can be promised
    assert conformal_threshold(cosines, 0.04) is None
    assert conformal_threshold(cosines[:0], 0.5) is None
    # 10 * (1 - 0.1) is 9.0, but 1000 * (1 - 0.7) in floating point is just above 300
    assert conformal_threshold(np.arange(999.0), 0.7) == 299
    with pytest.raises(ValueError, match="false_positive_rate must be above 0 and below 1, got 1"):
        conformal_threshold(cosines, 1)


@pytest.mark.parametrize(("count", "rate"), [(9, 0.1), (25, 0.1), (50, 0.25)])
def test_the_promised_rate_is_kept_on_average_over_calibrations(count, rate):
    rng = np.random.default_rng(count)
    draws = rng.standard_t(2, (20_000, count + 1))  # the last of each row is new
    above = [row[-1] > conformal_threshold(row[:-1], rate) for row in draws]
    exact = int((count + 1) * rate) / (count + 1)  # of a distribution without ties
    assert exact <= rate
    assert np.mean(above) == pytest.approx(exact, abs=4 * np.sqrt(rate / len(draws)))
