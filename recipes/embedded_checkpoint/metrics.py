"""Ranks and recalls."""

from __future__ import annotations

import numpy as np

RECALLS = (1, 5, 10)


def ranks(scores: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """How many candidates beat the right one, ties counted by half: (Q, C) scores, (Q,) columns -> (Q,) float."""
    own = scores[np.arange(len(scores)), correct][:, None]
    return (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2


def recalls(scores: np.ndarray, correct: np.ndarray) -> list[float]:
    """Recall@1, 5 and 10 in percent: (Q, C) scores and (Q,) right columns."""
    position = ranks(scores, correct)
    return [round(100 * float((position < k).mean()), 1) for k in RECALLS]


def chance(candidates: int) -> list[float]:
    """Recalls of guessing, in percent."""
    return [round(100 * k / candidates, 2) for k in RECALLS]
