"""Losses of regions and their texts: L_FGV and L_TIC of FG-CLIP 2 (section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from .arithmetic import cosines, zero_of
from .info_nce import info_nce_loss


def region_contrastive_loss(region_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor) -> Tensor:
    """Contrast K regions with their K texts by a symmetric cross-entropy (L_FGV).

    Args:
        region_embeds, text_embeds: Shape (K, D), text k belonging to region k.
        logit_scale: One element; logits are `exp(logit_scale) * cosine`.

    Returns:
        Scalar; zero, yet part of the graph, for no regions.
    """
    return info_nce_loss(region_embeds, text_embeds, logit_scale)


def textual_intra_modal_contrastive_loss(
    text_embeds: Tensor, num_hardest: int = 10, max_similarity: float = 0.95
) -> Tensor:
    """Push the texts of different regions apart (L_TIC): the mean over texts of a log-sum-exp of their hardest others.

    A text's similarity with itself, and those above `max_similarity` (the same thing said alike), count as zero, and
    zeros may be among the hardest. There is no temperature.

    Args:
        text_embeds: Shape (K, D). With fewer than `num_hardest` texts all of them are taken.
        num_hardest: How many of a row's largest similarities are kept.
        max_similarity: Cosine above which texts count as duplicates.

    Returns:
        Scalar; zero, yet part of the graph, for no texts.
    """
    similarities = cosines(text_embeds, text_embeds)  # (K, K)
    if not len(similarities):
        return zero_of(text_embeds)
    is_self = torch.eye(len(similarities), dtype=torch.bool, device=similarities.device)
    similarities = similarities.masked_fill(is_self | (similarities > max_similarity), 0.0)
    hardest = similarities.topk(min(num_hardest, len(similarities)), dim=-1).values  # (K, num_hardest)
    return hardest.logsumexp(-1).mean()
