"""Intervals have the width that theory gives, and treat groups as wholes."""

import numpy as np
import pytest

from fgclip2.metrics import bootstrap, bootstrap_interval, roc_auc


def test_the_interval_is_about_two_standard_errors():
    values = np.arange(400) % 4 == 0
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    error = np.sqrt(0.25 * 0.75 / 400)
    assert low == pytest.approx(0.25 - 1.96 * error, abs=0.01)
    assert high == pytest.approx(0.25 + 1.96 * error, abs=0.01)


def test_values_of_one_group_count_as_one():
    values, groups = np.repeat(np.arange(100) % 2, 9), np.repeat(np.arange(100), 9)
    low, high = bootstrap_interval(values, groups)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 100), abs=0.03)
    narrow = bootstrap_interval(values)
    assert narrow[1] - narrow[0] < 0.5 * (high - low)


def test_groups_may_have_any_numbers_and_order():
    values, groups = np.arange(6) % 2, np.array([7, 7, -3, 9, 9, 9])
    assert bootstrap_interval(values, groups) == bootstrap_interval(values, np.array([1, 1, 0, 2, 2, 2]))


def test_the_draws_are_those_of_published_intervals():
    random = np.random.default_rng(3)
    values, groups = random.integers(0, 2, 500), np.arange(500) % 90
    sums, sizes = np.bincount(groups, weights=values), np.bincount(groups)
    draws = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=2000)
    expected = np.percentile(draws @ sums / (draws @ sizes), [2.5, 97.5])
    assert bootstrap_interval(values, groups) == tuple(expected)


def test_any_statistic_with_the_same_draws():
    values, groups = np.arange(60) % 3 == 0, np.arange(60) // 4
    assert bootstrap(np.mean, values, groups=groups, samples=200) == bootstrap_interval(values, groups, samples=200)
    low, high = bootstrap(np.median, np.arange(1, 1002), samples=300)
    error = 1.96 * np.sqrt(0.25 / 1001) * 1001  # of a median, for a flat density
    assert low == pytest.approx(501 - error, abs=8)
    assert high == pytest.approx(501 + error, abs=8)


def test_arrays_are_resampled_together_and_resamples_without_a_class_left_out():
    scores, labels = np.array([0.1, 0.2, 0.3]), np.array([False, False, True])
    assert bootstrap(roc_auc, scores, labels, samples=100) == (1.0, 1.0)


def test_bad_values_are_named():
    with pytest.raises(ValueError, match="values is empty"):
        bootstrap_interval(np.zeros(0))
    with pytest.raises(ValueError, match="groups has 2 entries for 3 values"):
        bootstrap_interval(np.zeros(3), [0, 1])
    with pytest.raises(ValueError, match=r"arrays have lengths \[3, 2\]"):
        bootstrap(roc_auc, np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="statistic is NaN for every resample"):
        bootstrap(roc_auc, np.zeros(3), np.ones(3), samples=10)
