"""Hard negatives won, and bootstrap intervals of a mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def beats_all(scores: np.ndarray) -> np.ndarray:
    """(R, 1 + N) scores, the true text's first -> (R,) bool: it is above all others; ties count as lost."""
    return (scores[:, :1] > scores[:, 1:]).all(axis=1)


def pairwise_wins(scores: np.ndarray) -> np.ndarray:
    """(R, 1 + N) scores, the true text's first -> (R, N): 1 where it is above the other, 0.5 where they tie, else 0."""
    return np.where(scores[:, :1] == scores[:, 1:], 0.5, scores[:, :1] > scores[:, 1:])


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
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("values is empty; a mean and its interval need at least 1 value")
    group = np.arange(len(values)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sums, sizes = np.bincount(group, weights=values), np.bincount(group)
    draws = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=samples)
    low, high = np.percentile(draws @ sums / (draws @ sizes), [2.5, 97.5])
    return float(low), float(high)


def summary(values: np.ndarray, groups: np.ndarray | None = None) -> dict:
    """Mean of 0..1 in percent, with its interval and the number of values."""
    low, high = bootstrap_interval(values, groups)
    return {
        "percent": round(100 * float(np.mean(values)), 2),
        "interval": [round(100 * low, 2), round(100 * high, 2)],
        "count": len(values),
    }
