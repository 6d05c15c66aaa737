"""How often an epoch draws samples: the arithmetic, against examples by hand and a slow count."""

import numpy as np
import pytest

from fgclip2.data.sampling import count_draws, divide_draws


def test_a_rare_kind_is_not_left_to_the_end():
    """Where the last draws of an epoch, which fill no batch, are left out."""
    assert divide_draws([116, 1, 1], 110) == [108, 1, 1]


@pytest.mark.parametrize("draws", [[5], [3, 0, 4], [1, 1, 1], [1000, 1], [7, 11, 2, 5], [0, 3]])
def test_every_cut_of_all_draws_cuts_those_of_each_kind(draws):
    """No number falls as the count grows, each is its share within the number of kinds, and they are the whole."""
    total = sum(draws)
    divided = np.array([divide_draws(draws, count) for count in range(total + 1)])  # (total + 1, kinds)
    assert (divided.sum(axis=1) == np.arange(total + 1)).all()
    assert divided[-1].tolist() == draws
    assert (np.diff(divided, axis=0) >= 0).all()
    shares = np.arange(total + 1)[:, None] * np.array(draws) / total
    assert np.abs(divided - shares).max() < len(draws)


def test_draws_are_divided_exactly_where_they_are_many():
    """Products of such numbers don't fit 64 bits."""
    draws = [7 * 10**12, 3 * 10**12]
    assert divide_draws(draws, 5 * 10**12) == [35 * 10**11, 15 * 10**11]


def test_shares_change_the_rates_of_all_sources_alike():
    counts = np.array([[40, 8], [40, 0]])
    assert count_draws(counts, [1, 0.5]).tolist() == [[40, 8], [20, 0]]
    assert count_draws(counts, [1, 0.5], {"en": 0.75, "zh": 0.25}).tolist() == [[34, 17], [17, 0]]
