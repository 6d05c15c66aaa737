"""Ranks of right candidates among all, and what is said of ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

TIE_TOLERANCE = 1e-6  # cosines that differ by less are a tie: the same text in another batch differs by some 1e-7

_RIGHT_ERROR = 2e-6  # no float32 product of unit vectors is as wrong; measured up to 7e-7
_QUERIES_PER_BLOCK = 1024
_CANDIDATES_PER_BLOCK = 1024
_PAIRS_PER_BLOCK = 4096
_MANY = 1 / 256  # share of pairs of which a product of the whole block is faster than one by one


def retrieval_ranks(query_embeds: Tensor, query_owner: Tensor, embeds: Tensor, owner: Tensor) -> Tensor:
    """Return `pair_ranks` where the candidates of a query's owner are right, e.g. the captions of its image.

    Args:
        query_embeds: Shape (Q, D), L2-normalised.
        query_owner: Integer, shape (Q,).
        embeds: Shape (C, D), L2-normalised candidates.
        owner: Integer, shape (C,).

    Returns:
        Integer, shape (Q,); C + 1 for a query without a right candidate.
    """
    return pair_ranks(query_embeds, embeds, pairs_of_owners(query_owner, owner))


def pairs_of_owners(query_owner: Tensor, owner: Tensor) -> Tensor:
    """Return all (query, candidate) of the same owner: integers (Q,) and (C,) -> (P, 2), sorted by query."""
    sorted_owner, candidate = owner.sort(stable=True)
    first = torch.searchsorted(sorted_owner, query_owner.contiguous())  # (Q,)
    counts = torch.searchsorted(sorted_owner, query_owner.contiguous(), right=True) - first
    query = torch.arange(len(query_owner), device=owner.device).repeat_interleave(counts)  # (P,)
    place = torch.arange(len(query), device=owner.device) - (counts.cumsum(0) - counts)[query]  # 0, 1, ... per query
    return torch.stack([query, candidate[first[query] + place]], dim=1)


@torch.no_grad()
def pair_ranks(query_embeds: Tensor, embeds: Tensor, pairs: Tensor) -> Tensor:
    """Return the rank of the best right candidate of each query, from 1; ties with wrong ones count against it.

    Candidates whose cosine is less than `TIE_TOLERANCE` below the best right one's tie with it. Cosines near that edge
    are computed again in float64, so that neither the order nor the number of candidates changes a rank. Memory: one
    block of similarities, however many queries and candidates there are, besides the pairs.

    Args:
        query_embeds: Shape (Q, D), floating, L2-normalised, on a device that has float64.
        embeds: Shape (C, D), candidates, likewise.
        pairs: Integer, shape (P, 2), the right (query, candidate): any number for a query and for a candidate.

    Returns:
        Integer, shape (Q,); C + 1 for a query without a right candidate.

    Raises:
        ValueError: An embedding is not finite, or a pair is of no query or candidate.
    """
    for name, rows in (("query_embeds", query_embeds), ("embeds", embeds)):
        finite = torch.cat([block.isfinite().all(1) for block in rows.split(_CANDIDATES_PER_BLOCK)])
        if not finite.all():
            raise ValueError(f"{name}[{int((~finite).nonzero()[0])}] has values that are not finite")
    _check_pairs(pairs, len(query_embeds), len(embeds))
    query, candidate = torch.unique(pairs.to(embeds.device).long(), dim=0).reshape(-1, 2).unbind(1)
    right = _cosines(query_embeds, embeds, query, candidate)  # (P,)
    floor = torch.full((len(query_embeds),), -torch.inf, dtype=torch.float64, device=embeds.device)
    floor = floor.scatter_reduce(0, query, right, "amax") - TIE_TOLERANCE
    not_wrong = torch.bincount(query[right > floor[query]], minlength=len(query_embeds))
    above = torch.zeros_like(not_wrong)
    blocks = (x.split(_QUERIES_PER_BLOCK) for x in (above, query_embeds, floor))
    with _full_precision(embeds.device):
        for counts, rows, its_floor in zip(*blocks, strict=True):
            for part in embeds.split(_CANDIDATES_PER_BLOCK):
                counts += _count_above(rows, its_floor, part)
    return above - not_wrong + 1


def count_equal_before(query_embeds: ArrayLike, embeds: ArrayLike, pairs: ArrayLike, equal: ArrayLike) -> np.ndarray:
    """Count the wrong candidates that equal the best right one of each query and come before it.

    They tie with it, so `pair_ranks` counts them against the query. Less this count, its rank is that of a stable sort
    by rising similarity, read from the end, which puts the later of equal candidates first.

    Args:
        query_embeds: Shape (Q, D), L2-normalised.
        embeds: Shape (C, D), L2-normalised candidates.
        pairs: Integer, shape (P, 2), the right (query, candidate).
        equal: Integer, shape (C,), the same number for candidates that are equal.

    Returns:
        Integer, shape (Q,); 0 for a query without a right candidate.
    """
    queries, candidates, equal = torch.as_tensor(query_embeds), torch.as_tensor(embeds), np.asarray(equal)
    query, candidate = np.unique(np.asarray(pairs), axis=0).T  # (P,) each
    right = _cosines(queries, candidates, torch.as_tensor(query), torch.as_tensor(candidate)).numpy()
    rising = np.lexsort((candidate, right, query))
    best = np.full(len(queries), -1)
    best[query[rising]] = candidate[rising]  # of several the last is kept: the highest, and of equal ones the latest
    by_number = np.argsort(equal, kind="stable")
    before = np.empty(len(equal), dtype=np.int64)  # (C,) how many of the equal ones come before each
    before[by_number] = np.arange(len(equal)) - np.searchsorted(equal[by_number], equal[by_number])
    is_right = (equal[candidate] == equal[best[query]]) & (candidate < best[query])
    return np.where(best < 0, 0, before[best] - np.bincount(query[is_right], minlength=len(queries)))


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Make products as exact as float32 is, also within a caller's autocast or where TF32 is allowed."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _count_above(query_embeds: Tensor, floor: Tensor, embeds: Tensor) -> Tensor:
    """Count candidates whose cosine is above each query's floor: (q, D), (q,) float64, (c, D) -> (q,)."""
    difference = query_embeds.float() @ embeds.float().T - floor.float()[:, None]  # (q, c)
    above = difference > 0
    query, candidate = (difference.abs() < _RIGHT_ERROR).nonzero(as_tuple=True)
    if len(query) > above.numel() * _MANY:
        above = query_embeds.double() @ embeds.double().T > floor[:, None]
    else:
        above[query, candidate] = _cosines(query_embeds, embeds, query, candidate) > floor[query]
    return above.sum(1)


def _cosines(query_embeds: Tensor, embeds: Tensor, query: Tensor, candidate: Tensor) -> Tensor:
    """Return the cosines of pairs, (P,) float64."""
    blocks = zip(query.split(_PAIRS_PER_BLOCK), candidate.split(_PAIRS_PER_BLOCK), strict=True)
    return torch.cat([(query_embeds[q].double() * embeds[c].double()).sum(1) for q, c in blocks])


def _check_pairs(pairs: Tensor, queries: int, candidates: int) -> None:
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.is_floating_point():
        raise ValueError(f"pairs is {pairs.dtype} of shape {tuple(pairs.shape)}; it must be integer of shape (P, 2)")
    limits = torch.tensor([queries, candidates], device=pairs.device)
    outside = ((pairs < 0) | (pairs >= limits)).any(1).nonzero()
    if len(outside):
        place = int(outside[0])
        raise ValueError(
            f"pairs[{place}] is {tuple(pairs[place].tolist())}; there are {queries} queries and {candidates} candidates"
        )


def score_ranks(scores: ArrayLike, pairs: ArrayLike) -> np.ndarray:
    """Return the rank from 1 of the best right candidate of each query, from scores; ties count against it.

    Args:
        scores: Shape (Q, C), floating, of any scale: only equal ones tie.
        pairs: Integer, shape (P, 2), the right (query, candidate).

    Returns:
        Integer, shape (Q,); C + 1 for a query without a right candidate.

    Raises:
        ValueError: A score is not a number, or a pair is of no query or candidate.
    """
    scores, pairs = np.asarray(scores), np.asarray(pairs)
    _check_pairs(torch.as_tensor(pairs), *scores.shape)
    if np.isnan(scores).any():
        raise ValueError(f"scores[{np.isnan(scores).any(axis=1).argmax()}] has values that are not numbers")
    is_right = np.zeros(scores.shape, dtype=bool)
    is_right[pairs[:, 0], pairs[:, 1]] = True
    best = np.where(is_right, scores, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)  # (Q, 1)
    return ((scores >= best) & ~is_right).sum(axis=1) + 1


def recall_at_k(ranks: Tensor | np.ndarray, ks: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """Return the share of queries whose best right candidate is among the first k; NaN without queries."""
    return {k: (torch.as_tensor(ranks) <= k).double().mean().item() for k in ks}


def mean_rank(ranks: Tensor | np.ndarray) -> float:
    """Return the mean of ranks; NaN without queries."""
    return torch.as_tensor(ranks).double().mean().item()


def median_rank(ranks: Tensor | np.ndarray) -> float:
    """Return the median of ranks, the mean of the two in the middle for an even number; NaN without queries."""
    return float(np.median(torch.as_tensor(ranks).cpu())) if len(ranks) else float("nan")
