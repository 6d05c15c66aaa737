"""Bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np


def bootstrap_interval(
    values: np.ndarray, groups: np.ndarray | Sequence[int] | None = None, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95% percentile interval of the mean of `values`, resampling whole groups.

    Args:
        values: (N,).
        groups: (N,) integers: values of one group (regions of one scene) are not independent. None: each by itself.
        samples: how often to resample.
        seed: of the resampling.

    Raises:
        ValueError: there are no values, or not one group for each.
    """
    group = _group_numbers(values, groups)
    sums, sizes = np.bincount(group, weights=values), np.bincount(group)
    means = [draw @ sums / (draw @ sizes) for draw in _draws(len(sums), samples, seed)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def bootstrap(
    statistic: Callable[..., float],
    *arrays: np.ndarray,
    groups: np.ndarray | Sequence[int] | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """`bootstrap_interval` of what is not a mean: a median, a mean over classes, an area under a curve.

    Args:
        statistic: Called with the arrays of each resample.
        arrays: Each of length N; resampled together.
        groups, samples, seed: As of `bootstrap_interval`, which draws the same.

    Returns:
        The 95% percentile interval. Resamples where the statistic is NaN, e.g. for want of one class, don't count.

    Raises:
        ValueError: there are no values, or not as many in each array and in groups; the statistic is always NaN.
    """
    lengths = [len(array) for array in arrays]
    if len(set(lengths)) > 1:
        raise ValueError(f"arrays have lengths {lengths}; they must be the same")
    group = _group_numbers(arrays[0], groups)
    items, resampled = np.arange(len(group)), []
    for draw in _draws(group.max() + 1, samples, seed):
        chosen = np.repeat(items, draw[group])
        resampled.append(statistic(*(array[chosen] for array in arrays)))
    if np.isnan(resampled).all():
        raise ValueError("statistic is NaN for every resample; it has no interval")
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return float(low), float(high)


def _group_numbers(values: np.ndarray, groups: np.ndarray | Sequence[int] | None) -> np.ndarray:
    """(N,) integers from 0."""
    if not len(values):
        raise ValueError("values is empty; a mean and its interval need at least 1 value")
    if groups is None:
        return np.arange(len(values))
    if len(groups) != len(values):
        raise ValueError(f"groups has {len(groups)} entries for {len(values)} values; each value needs one")
    return np.unique(groups, return_inverse=True)[1]


def _draws(groups: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each group is in each resample; one at a time, for a million groups times 2000 don't fit."""
    random, shares = np.random.default_rng(seed), np.full(groups, 1 / groups)
    for _ in range(samples):
        yield random.multinomial(groups, shares)
