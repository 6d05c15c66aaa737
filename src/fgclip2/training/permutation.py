"""Random orders of millions of records that take no memory: the place of each is computed, not looked up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_ROUNDS = 6  # even, so that the halves, which may differ by a bit, are where they were


class RandomOrders:
    """Any number of random orders of `count` things, the same wherever they are computed.

    An order is a Feistel network over the smallest power of two that holds `count`, whose values outside are mapped
    again until they are inside, as `random_index_shuffle` of TensorFlow and `index_shuffle` of Grain do: a bijection
    that needs a few numbers instead of a list of all things.

    Args:
        count: Number of things, at least 1.
        key: Integers from 0 on that the orders follow from, such as a seed.
    """

    def __init__(self, count: int, key: Sequence[int]):
        self._count = count
        bits = max(2, (count - 1).bit_length())
        self._widths = bits - bits // 2, bits // 2  # of the upper and of the lower half
        self._keys = np.random.default_rng(list(key)).integers(0, 2**64, (_ROUNDS, 1), np.uint64)

    def __call__(self, places: np.ndarray, orders: np.ndarray) -> np.ndarray:
        """Return what stands at `places` of `orders`.

        Args:
            places: Integer (N,), from 0 to `count` - 1.
            orders: Integer (N,), which of the orders each place is one of; from 0 on.

        Returns:
            int64 (N,), from 0 to `count` - 1.
        """
        values, tweaks = places.astype(np.uint64), _mix(orders.astype(np.uint64))
        outside = np.arange(len(values))
        while len(outside):
            values[outside] = self._encrypt(values[outside], tweaks[outside])
            outside = outside[values[outside] >= self._count]
        return values.astype(np.int64)

    def _encrypt(self, values: np.ndarray, tweaks: np.ndarray) -> np.ndarray:
        """Permute the numbers that have the bits of both halves, (N,), otherwise for each tweak, (N,)."""
        width, other = (np.uint64(bits) for bits in self._widths)
        upper, lower = values >> other, values & _ones(other)
        for key in self._keys:
            mixed = _mix(lower ^ key ^ tweaks) >> (np.uint64(64) - width)  # the best bits are the highest
            upper, lower = lower, upper ^ mixed
            width, other = other, width
        return (upper << other) | lower


def _ones(bits: np.uint64) -> np.uint64:
    return (np.uint64(1) << bits) - np.uint64(1)


def _mix(values: np.ndarray) -> np.ndarray:
    """Map uint64 numbers to others that look random: the finalizer of SplitMix64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
