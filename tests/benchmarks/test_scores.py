"""Values and their intervals."""

import numpy as np
import pytest

from fgclip2.benchmarks.scores import accuracies, mean


def test_a_share_whose_resamples_agree_has_no_interval():
    """Of one image, or where each query is right at 10 alone; of ranks it has one."""
    assert mean(np.array([True, False]), np.zeros(2, int)).interval() is None
    assert mean(np.full(30, 1 / 3), np.arange(30)).interval() is None
    assert mean(np.full(30, 2), np.arange(30)).interval() == (2, 2)


def test_the_interval_of_a_mean_over_classes_is_about_its_value():
    """A hundred boxes of one class are right; of half of fifty classes the only box is wrong."""
    ranks = np.array([1] * 100 + [1, 9] * 25)
    estimates = accuracies(ranks, np.array([0] * 100 + list(range(1, 51))), np.arange(150))
    assert estimates["top1_macro"].value == pytest.approx(26 / 51)
    low, high = estimates["top1_macro"].interval()
    assert low < 26 / 51 < high
    ranks[100:] = 9  # resamples differ in the number of classes alone
    estimates = accuracies(ranks, np.array([0] * 100 + list(range(1, 51))), np.arange(150))
    assert estimates["top1_macro"].value == pytest.approx(1 / 51)
    assert estimates["top1_macro"].interval() is None
