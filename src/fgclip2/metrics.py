"""Metrics, as pure functions of embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_BLOCK_ROWS = 1024


def retrieval_ranks(query_embeds: Tensor, query_owner: Tensor, embeds: Tensor, owner: Tensor) -> Tensor:
    """Rank of the best right candidate of each query, from 1; ties with wrong ones count against it.

    Args:
        query_embeds: Shape (Q, D), L2-normalised.
        query_owner: Integer, shape (Q,). Candidates of the same owner are right.
        embeds: Shape (C, D), L2-normalised candidates.
        owner: Integer, shape (C,).

    Returns:
        Integer, shape (Q,); C + 1 for a query without a right candidate.
    """
    ranks = []
    for rows, owners in zip(query_embeds.split(_BLOCK_ROWS), query_owner.split(_BLOCK_ROWS), strict=True):
        similarities = rows.float() @ embeds.float().T  # (block, C)
        is_right = owners[:, None] == owner
        best = similarities.masked_fill(~is_right, -torch.inf).amax(1, keepdim=True)
        ranks.append(((similarities >= best) & ~is_right).sum(1) + 1 + (~is_right.any(1)).long())
    return torch.cat(ranks) if ranks else torch.zeros(0, dtype=torch.int64)


def recall_at_k(ranks: Tensor, ks: Sequence[int] = (1, 5, 10)) -> dict[int, float]:
    """Share of queries whose best right candidate is among the first k."""
    return {k: (ranks <= k).float().mean().item() if len(ranks) else float("nan") for k in ks}


def hard_negative_accuracy(
    region_embeds: Tensor, positive_embeds: Tensor, negative_embeds: Tensor, mask: Tensor | None = None
) -> float:
    """Share of regions whose text beats all its hard negatives; ties count as lost.

    Args:
        region_embeds, positive_embeds: Shape (H, D), L2-normalised.
        negative_embeds: Shape (H, N, D).
        mask: Boolean, shape (H, N), `False` where there is no negative.
    """
    if not len(region_embeds):
        return float("nan")
    positive = (region_embeds * positive_embeds).sum(-1)  # (H,)
    negative = (region_embeds[:, None] * negative_embeds).sum(-1)  # (H, N)
    if mask is not None:
        negative = negative.masked_fill(~mask, -torch.inf)
    return (positive > negative.amax(1)).float().mean().item()
