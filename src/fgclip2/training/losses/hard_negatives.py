"""Losses of hard negatives: L_FGT and L_CMR of FG-CLIP 2 (section 3.2), and what the released code adds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .arithmetic import cosines, masked_mean, zero_of


def cross_modal_rank_loss(
    positive_logits: Tensor, negative_logits: Tensor, margin: float | Tensor, negative_mask: Tensor | None = None
) -> Tensor:
    """Keep each positive above its hard negatives by a margin: a hinge loss (L_CMR).

    Args:
        positive_logits: Shape (H,), scaled similarity of each region with its text.
        negative_logits: Shape (H, K), with its hard negatives.
        margin: Lead that is asked for, in logits; no gradient reaches it.
        negative_mask: Boolean, shape (H, K), `False` where there is no negative; `None`: all there.

    Returns:
        Scalar, the mean over pairs; zero, yet part of the graph, for none.
    """
    hinge = (negative_logits - positive_logits[:, None] + margin).clamp(min=0)  # (H, K)
    return masked_mean(hinge, negative_mask)


def rank_margin(positive_logits: Tensor, negative_logits: Tensor, negative_mask: Tensor | None = None) -> Tensor:
    """Return the margin by which positives lead now, for the next step's [`cross_modal_rank_loss`].

    Returns:
        Scalar, detached, not clamped: the mean positive logit minus the mean negative one, negatives of exactly zero
        left out. Zero for no regions.
    """
    if not positive_logits.numel():
        return positive_logits.new_zeros(())
    counted = negative_logits != 0
    if negative_mask is not None:
        counted = counted & negative_mask
    return (positive_logits.mean() - masked_mean(negative_logits, counted)).detach()


def hard_negative_loss(
    region_embeds: Tensor,
    positive_embeds: Tensor,
    negative_embeds: Tensor,
    logit_scale: Tensor,
    margin: float | Tensor = 0.0,
    *,
    contrast_weight: float = 0.6,
    pair_weight: float = 3.0,
    rank_weight: float = 0.4,
    negative_mask: Tensor | None = None,
) -> dict[str, Tensor]:
    """Tell each region's text from hard negatives of it (L_FGT and L_CMR; weights as released).

    Args:
        region_embeds, positive_embeds: Shape (H, D).
        negative_embeds: Shape (H, K, D), the hard negatives of each region.
        logit_scale: One element; logits are `exp(logit_scale) * cosine`.
        margin: Margin of the rank loss, from the step before.
        contrast_weight, pair_weight, rank_weight: Weights of the parts in `loss`.
        negative_mask: Boolean, shape (H, K), `False` where there is no negative; `None`: all there.

    Returns:
        Scalars, all zero for no regions:

        - `contrast`: mean of two cross-entropies, regions over the positives and hard negatives of all regions, and
          positives over all regions;
        - `pair`: cross-entropy of a region's positive among its own negatives;
        - `rank`: [`cross_modal_rank_loss`];
        - `loss`: their weighted sum;
        - `new_margin`: [`rank_margin`], local to this call, not clamped, detached.
    """
    scale = logit_scale.exp()
    if not len(region_embeds):
        zero = zero_of(region_embeds, positive_embeds, negative_embeds, logit_scale)
        return {"contrast": zero, "pair": zero, "rank": zero, "loss": zero, "new_margin": zero.detach()}
    to_positives = cosines(region_embeds, positive_embeds) * scale  # (H, H)
    to_negatives = cosines(region_embeds, negative_embeds.flatten(0, 1)) * scale  # (H, H K)
    own = torch.arange(len(region_embeds), device=region_embeds.device)
    own_positive = to_positives.diagonal()  # (H,)
    own_negatives = to_negatives.unflatten(1, (len(own), -1))[own, own]  # (H, K)

    lowest = torch.finfo(to_negatives.dtype).min
    masked_negatives, masked_own = to_negatives, own_negatives
    if negative_mask is not None:
        masked_negatives = to_negatives.masked_fill(~negative_mask.flatten(), lowest)
        masked_own = own_negatives.masked_fill(~negative_mask, lowest)
    over_texts = F.cross_entropy(torch.cat([to_positives, masked_negatives], 1), own)
    contrast = (over_texts + F.cross_entropy(to_positives.T, own)) / 2
    pair = F.cross_entropy(torch.cat([own_positive[:, None], masked_own], 1), torch.zeros_like(own))
    rank = cross_modal_rank_loss(own_positive, own_negatives, margin, negative_mask)
    return {
        "contrast": contrast,
        "pair": pair,
        "rank": rank,
        "loss": contrast_weight * contrast + pair_weight * pair + rank_weight * rank,
        "new_margin": rank_margin(own_positive, own_negatives, negative_mask),
    }
