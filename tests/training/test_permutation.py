"""Orders that are computed: each thing once, all orders alike likely, the same everywhere."""

import numpy as np
import pytest

from fgclip2.training.permutation import RandomOrders


def orders_of(count: int, key: list[int], number: int) -> np.ndarray:
    """The first orders, (number, count)."""
    places, orders = np.tile(np.arange(count), number), np.repeat(np.arange(number), count)
    return RandomOrders(count, key)(places, orders).reshape(number, count)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17, 1000, 4097])
def test_an_order_has_each_thing_once(count):
    assert (np.sort(orders_of(count, [1], 3)) == np.arange(count)).all()


def test_orders_and_keys_differ_and_are_reproducible():
    orders = orders_of(100, [3, 4], 2)
    assert (orders[0] != orders[1]).mean() > 0.9
    assert (orders == orders_of(100, [3, 4], 2)).all()
    assert (orders != orders_of(100, [3, 5], 2)).mean() > 0.9


def test_pairs_of_neighbours_are_as_likely_as_each_other():
    """The deviation of 20,000 orders is that of chance: chi-square of 109 degrees of freedom, 5 deviations at most."""
    orders = orders_of(11, [0], 20_000)
    pairs = np.bincount(orders[:, 3] * 11 + orders[:, 4], minlength=121).reshape(11, 11)
    assert not pairs.diagonal().any()
    expected = len(orders) / 110
    chi_square = ((pairs[~np.eye(11, dtype=bool)] - expected) ** 2 / expected).sum()
    assert abs(chi_square - 109) < 5 * np.sqrt(2 * 109)
