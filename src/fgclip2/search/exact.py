"""The nearest vectors by comparing all of them, in NumPy."""

from __future__ import annotations

import numpy as np

VECTORS_PER_BLOCK = 65536


def nearest(
    queries: np.ndarray, vectors: np.ndarray, top_k: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the largest inner products, exactly, in blocks of vectors so that memory stays bounded.

    Args:
        queries: Float32 (Q, D).
        vectors: Float32 (N, D).
        top_k: How many to return; all where there are fewer.
        allowed: Bool (N,): which vectors may be found; `None`: all.

    Returns:
        Scores, float32 (Q, K), falling, and row numbers, int64 (Q, K); of equal scores the lower row comes first.
    """
    scores = np.zeros((len(queries), 0), np.float32)
    rows = np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(vectors), VECTORS_PER_BLOCK):
        piece = vectors[start : start + VECTORS_PER_BLOCK]
        piece_rows = np.arange(start, start + len(piece))
        if allowed is not None:
            its = allowed[start : start + VECTORS_PER_BLOCK]
            piece, piece_rows = piece[its], piece_rows[its]
        block = queries @ piece.T  # (Q, block)
        scores = np.hstack([scores, block])
        rows = np.hstack([rows, np.broadcast_to(piece_rows, block.shape)])
        if scores.shape[1] > top_k:
            best = np.argpartition(-scores, top_k - 1, axis=1)[:, :top_k]
            scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    return best_first(scores, rows)


def best_first(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort scores and rows, (Q, K) each, by falling score, of equal scores the lower row first."""
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
