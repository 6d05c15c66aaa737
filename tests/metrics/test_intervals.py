"""Intervals have the width that theory gives, and treat groups as wholes."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from fgclip2.metrics import bootstrap, bootstrap_interval, class_mean_interval, roc_auc, topk_accuracy


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


@pytest.mark.parametrize("value", [0, 1])
def test_shares_that_are_all_0_or_all_1_have_the_exact_interval_of_their_groups(value):
    exact = binomtest(1398 * value, 1398).proportion_ci(0.95, "exact")
    assert bootstrap_interval(np.full(1398, bool(value))) == pytest.approx((exact.low, exact.high))
    exact = binomtest(2 * value, 2).proportion_ci(0.95, "exact")
    assert bootstrap_interval(np.full(10, float(value)), np.arange(10) // 5) == pytest.approx((exact.low, exact.high))
    assert bootstrap_interval(np.full(10, value), shares=False) == (value, value)  # ranks


@pytest.mark.parametrize(("count", "share"), [(100, 0.99), (100, 0.01), (1000, 0.001), (1000, 0.999)])
def test_rare_mistakes_are_covered(count, share):
    """Without the exact interval at 0 and 1 these are covered in 63% of the cases."""
    covered = 0.0
    for right in range(count + 1):
        probability = binom.pmf(right, count, share)
        if probability > 1e-4:
            low, high = bootstrap_interval(np.arange(count) < right, samples=200)
            covered += probability * (low <= share <= high)
    assert covered > 0.93


def long_tail(random, images=100, classes=150):
    """Right or wrong, class and image of boxes, and each class's true share of right ones."""
    frequency = 1 / np.arange(1, classes + 1) ** 1.2
    shares = random.beta(4, 2, classes)
    image = np.repeat(np.arange(images), random.poisson(4, images) + 1)
    its_class = random.choice(classes, len(image), p=frequency / frequency.sum())
    return random.random(len(image)) < shares[its_class], its_class, image, shares


def test_a_mean_over_classes_with_a_long_tail():
    """A class that resamples lack counts; a plain bootstrap that keeps its value covers half of the cases."""
    random, covered = np.random.default_rng(0), []
    for _ in range(100):
        right, its_class, image, shares = long_tail(random)
        low, high = class_mean_interval(right, np.ones(len(right)), its_class, image, samples=100)
        assert low < topk_accuracy(np.where(right, 1, 2), its_class, (1,), "macro")[1] < high
        covered.append(low <= shares[np.unique(its_class)].mean() <= high)
    assert 0.88 <= np.mean(covered) <= 0.99


def test_a_mean_over_classes_with_many_items_of_each():
    """As wide as the standard errors of the classes make it; classes may be counted elsewhere by their mistakes."""
    right, its_class = np.arange(800) % 4 == 0, np.arange(800) // 400
    right[400:] = np.arange(400) % 2 == 0
    low, high = class_mean_interval(right, np.ones(800), its_class)
    error = 1.96 * np.sqrt((0.25 * 0.75 + 0.5 * 0.5) / 400) / 2
    assert (low, high) == pytest.approx((0.375 - error, 0.375 + error), abs=0.006)
    one = class_mean_interval(right[:400], np.ones(400), np.zeros(400, int))
    assert one == pytest.approx(bootstrap_interval(right[:400]), abs=0.002)


def test_classes_of_one_group():
    """They show no spread each, all together they do; where they are alike nothing can be told."""
    classes = np.concatenate([np.zeros(100, int), np.arange(1, 51)])
    right = np.concatenate([np.ones(100), np.zeros(50)])
    assert class_mean_interval(right, np.ones(150), classes) is None
    right[100:125] = 1
    low, high = class_mean_interval(right, np.ones(150), classes)
    error = 1.96 * np.sqrt(0.25 * 50) / 51
    assert (low, high) == pytest.approx((26 / 51 - error, 26 / 51 + error), abs=0.03)
    # Predicted in another group too, which is none of theirs.
    everywhere = np.concatenate([right, np.zeros(50)]), np.concatenate([np.ones(150), np.full(50, 0.1)])
    arguments = *everywhere, np.concatenate([classes, classes[100:]]), np.append(np.arange(150), np.arange(50))
    wide, narrow = (class_mean_interval(*arguments, counted=each) for each in (np.arange(200) < 150, None))
    assert wide[1] - wide[0] == pytest.approx(2 * error, abs=0.03)
    assert narrow[1] - narrow[0] < 0.5 * (wide[1] - wide[0])


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
