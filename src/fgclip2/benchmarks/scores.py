"""Results of a measurement: values with their intervals, and what was left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from .. import distributed
from ..metrics import bootstrap_interval, class_mean_interval, pair_ranks, topk_accuracy
from .base import Problem
from .models import BenchmarkModel, float64_device

KS = (1, 5)

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """A value, and of how many items it is.

    Attributes:
        interval: Makes its 95% interval, None where the items show no spread; takes up to a minute, which a run in
            training need not wait for.
    """

    value: float
    count: int
    interval: Callable[[], tuple[float, float] | None] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Scores:
    """The result of a benchmark.

    Attributes:
        metrics: Name -> estimate.
        per_item: Name -> a number for each item, e.g. ranks from 1.
        left_out: What could not be used.
        packages: Whose releases may change the numbers, besides those that make embeddings.
    """

    metrics: dict[str, Estimate]
    per_item: dict[str, np.ndarray] = field(default_factory=dict)
    left_out: Sequence[Problem] = ()
    packages: Sequence[str] = ()


def mean(values: np.ndarray, groups: np.ndarray) -> Estimate:
    """Estimate the mean of values (N,), where those of a group (N,), e.g. of an image, are not independent.

    Values are shares from 0 to 1, e.g. right or wrong; integers are ranks.
    """

    def interval() -> tuple[float, float] | None:
        if np.issubdtype(values.dtype, np.integer):
            return bootstrap_interval(values, groups, shares=False)
        return with_spread(bootstrap_interval(values, groups))

    return Estimate(float(np.mean(values)), len(values), interval)


def with_spread(interval: tuple[float, float]) -> tuple[float, float] | None:
    """Return an interval of a share, or `None` where all resamples have the same, which says nothing of its spread."""
    low, high = interval
    return interval if high - low > _ROUNDING else None


def ranks_of(queries: np.ndarray, candidates: np.ndarray, pairs: np.ndarray, model: BenchmarkModel) -> np.ndarray:
    """Compute [`pair_ranks`] of numpy arrays where the model is; each process takes its share of the queries."""
    device = float64_device(model)
    bounds = np.linspace(0, len(queries), distributed.world_size() + 1).astype(np.int64)
    first, last = bounds[distributed.rank() : distributed.rank() + 2]
    own = pairs[(pairs[:, 0] >= first) & (pairs[:, 0] < last)] - [first, 0]
    query_embeds, embeds = (torch.from_numpy(array).to(device) for array in (queries[first:last], candidates))
    ranks = pair_ranks(query_embeds, embeds, torch.from_numpy(own))
    return distributed.gather_rows(ranks.to(distributed.device()), np.diff(bounds).tolist()).cpu().numpy()


def recalls(ranks: np.ndarray, groups: np.ndarray, prefix: str, ks: Sequence[int]) -> dict[str, Estimate]:
    """Return the share of ranks (N,) up to each k."""
    return {f"{prefix}{k}": mean(ranks <= k, groups) for k in ks}


def class_ranks(vectors: np.ndarray, names: np.ndarray, classes: np.ndarray, model: BenchmarkModel) -> np.ndarray:
    """Return the rank (N,) of each vector's right class, from 1; a class that another one equals counts as wrong.

    Args:
        vectors: Float32 (N, D), L2-normalised.
        names: Float32 (C, D), L2-normalised.
        classes: Int64 (N,), the right ones.
        model: On whose device to compute.
    """
    return ranks_of(vectors, names, np.stack([np.arange(len(classes)), classes], axis=1), model)


def accuracies(ranks: np.ndarray, classes: np.ndarray, groups: np.ndarray) -> dict[str, Estimate]:
    """Return top-1 and top-5 accuracy, micro and macro, of ranks, classes and images (N,)."""
    scores = recalls(ranks, groups, "top", KS)
    for k in KS:
        interval = partial(class_mean_interval, ranks <= k, np.ones(len(ranks)), classes, groups)
        macro = topk_accuracy(ranks, classes, (k,), "macro")[k]
        scores[f"top{k}_macro"] = Estimate(macro, len(ranks), interval)
    return scores
