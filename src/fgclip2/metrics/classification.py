"""Classes of images and regions, hard negatives, and texts that match or don't."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ..checks import check_choice


def topk_accuracy(
    ranks: ArrayLike,
    classes: ArrayLike,
    ks: Sequence[int] = (1, 5),
    average: Literal["micro", "macro"] = "micro",
) -> dict[int, float]:
    """Return the share of items whose class is among the first k.

    Args:
        ranks: Integer, shape (N,), from 1: of `score_ranks` with one pair (item, class) each, or of `pair_ranks` among
            the classes' embeddings. Both count ties as wrong.
        classes: Integer, shape (N,).
        ks: One or more.
        average: "micro": the mean over items; "macro": over classes, of those that occur, each by its own items.

    Returns:
        k -> share; NaN without items.

    Raises:
        ValueError: There is not one class for each rank, or another `average`.
    """
    ranks, classes = np.asarray(ranks), np.asarray(classes)
    _check_lengths("ranks", ranks, "classes", classes)
    check_choice("average", average, ("micro", "macro"))
    if not len(ranks):
        return dict.fromkeys(ks, float("nan"))
    group = np.unique(classes, return_inverse=True)[1] if average == "macro" else np.zeros(len(ranks), dtype=int)
    sizes = np.bincount(group)
    return {k: float((np.bincount(group, weights=ranks <= k) / sizes).mean()) for k in ks}


def hard_negative_wins(
    scores: np.ndarray | Sequence[Sequence[float] | np.ndarray], ties: Literal["wrong", "right"] = "wrong"
) -> np.ndarray:
    """Tell where the true text beats all its hard negatives.

    Scores are compared exactly: give each distinct text one embedding, so that equal texts have equal scores.

    Args:
        scores: Scores of R regions, each with the true text's score first and at least one negative's: (R, 1 + N), or R
            sequences of any lengths.
        ties: How a tie of the true text with the best negative counts: "wrong", or "right", the rule of the official
            FG-OVD script.

    Returns:
        Boolean, shape (R,). Its mean is the accuracy.

    Raises:
        ValueError: A region has no negative or a score that is not finite, or another `ties`.
    """
    check_choice("ties", ties, ("wrong", "right"))
    beats = np.greater if ties == "wrong" else np.greater_equal
    wins = np.zeros(len(scores), dtype=bool)
    for index, row in enumerate(map(np.asarray, scores)):
        if row.ndim != 1 or len(row) < 2 or not np.isfinite(row).all():
            raise ValueError(
                f"scores[{index}] is {row.tolist()}; it must be the true text's score and its negatives', all finite"
            )
        wins[index] = beats(row[0], row[1:].max())
    return wins


def hard_negative_accuracy(
    region_embeds: Tensor, positive_embeds: Tensor, negative_embeds: Tensor, mask: Tensor | None = None
) -> float:
    """Return the share of regions whose text beats all its hard negatives; ties count as lost.

    Args:
        region_embeds, positive_embeds: Shape (H, D), L2-normalised.
        negative_embeds: Shape (H, N, D).
        mask: Boolean, shape (H, N), `False` where there is no negative.
    """
    if not len(region_embeds):
        return float("nan")
    texts = torch.cat([positive_embeds[:, None], negative_embeds], dim=1)  # together, for equal ones to tie
    scores = (region_embeds[:, None] * texts).sum(-1)  # (H, 1 + N)
    negative = scores[:, 1:]
    if mask is not None:
        negative = negative.masked_fill(~mask, -torch.inf)
    return (scores[:, 0] > negative.amax(1)).float().mean().item()


def matching_accuracy(scores: ArrayLike, labels: ArrayLike, threshold: float) -> float:
    """Return the share of pairs told rightly, where a score of `threshold` or more says that they match.

    Args:
        scores: Floating, shape (N,).
        labels: Boolean, shape (N,), True where they do match.
        threshold: What `best_threshold` gives, on these pairs (then the result is the best that any threshold gives,
            and rosy) or on others.

    Raises:
        ValueError: There is not one label for each score, none at all, or a score that is not finite.
    """
    scores, labels = _check_matching(scores, labels)
    return float(((scores >= threshold) == labels).mean())


def best_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the threshold of the highest `matching_accuracy` on these pairs: a score, the lowest of the best.

    Where it is best to say that none match: just above the highest score. Arguments and errors as there.
    """
    scores, labels = _check_matching(scores, labels)
    values, place = np.unique(scores, return_inverse=True)  # rising
    matching = np.bincount(place, weights=labels)
    others = np.bincount(place) - matching
    right = np.append(matching[::-1].cumsum()[::-1], 0) + np.append(0, others.cumsum())  # matches from it, others below
    return float(np.append(values, np.nextafter(values[-1], np.inf))[right.argmax()])


def roc_auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the area under the ROC curve: how often a matching pair scores above another, ties counted by half.

    Arguments and errors as of `matching_accuracy`; NaN where all match or none.
    """
    scores, labels = _check_matching(scores, labels)
    place = np.unique(scores, return_inverse=True)[1]
    matching = np.bincount(place, weights=labels)
    others = np.bincount(place) - matching
    if not matching.sum() or not others.sum():
        return float("nan")
    below = others.cumsum() - others
    return float(matching @ (below + others / 2) / (matching.sum() * others.sum()))


def _check_matching(scores: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    _check_lengths("scores", scores, "labels", labels)
    if not len(scores):
        raise ValueError("scores must have at least 1 pair, and is empty")
    if not np.isfinite(scores).all():
        raise ValueError(f"scores[{np.isfinite(scores).argmin()}] is not finite")
    return scores, labels


def _check_lengths(name: str, values: np.ndarray, other: str, others: np.ndarray) -> None:
    if values.ndim != 1 or values.shape != others.shape:
        raise ValueError(f"{name} has shape {values.shape} and {other} {others.shape}; both must be the same (N,)")
