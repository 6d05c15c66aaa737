"""Hard negatives won one by one, and shares with their intervals."""

from __future__ import annotations

import numpy as np

from fgclip2.metrics import bootstrap_interval


def pairwise_wins(scores: np.ndarray) -> np.ndarray:
    """(R, 1 + N) scores, the true text's first -> (R, N): 1 where it is above the other, 0.5 where they tie, else 0."""
    return np.where(scores[:, :1] == scores[:, 1:], 0.5, scores[:, :1] > scores[:, 1:])


def summary(values: np.ndarray, groups: np.ndarray | None = None) -> dict:
    """Mean of 0..1 in percent, with its interval and the number of values."""
    low, high = bootstrap_interval(values, groups)
    return {
        "percent": round(100 * float(np.mean(values)), 2),
        "interval": [round(100 * low, 2), round(100 * high, 2)],
        "count": len(values),
    }
