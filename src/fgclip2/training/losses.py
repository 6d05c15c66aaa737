"""The losses of FG-CLIP 2, each a pure function of embeddings.

Embeddings come L2-normalised, scales as raw parameters (logarithms). Everything is computed in float32 at least,
whatever autocast says. The formulas are those of the released code, the equations those of FG-CLIP 2 (section 3.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Dot products of rows, (N, D) and (M, D) -> (N, M), in float32 at least."""
    with torch.autocast(first.device.type, enabled=False):
        return _full(first) @ _full(second).mT


def sigmoid_loss(
    image_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor, logit_bias: Tensor, negative_only: bool = False
) -> Tensor:
    """Pairwise sigmoid loss (SigLIP, equation 1): the sum over all pairs divided by the number of images.

    Args:
        image_embeds: Shape (N, D).
        text_embeds: Shape (N, D), text i belonging to image i; with `negative_only` (M, D), belonging to none.
        logit_scale, logit_bias: One element each; logits are `exp(logit_scale) * cosine + logit_bias`.
        negative_only: No pair belongs together: a block of texts of other images.

    Returns:
        Scalar; zero for no images.
    """
    offset = None if negative_only else 0
    return sigmoid_pair_sum(image_embeds, text_embeds, logit_scale, logit_bias, offset) / max(1, len(image_embeds))


def sigmoid_pair_sum(
    image_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor, logit_bias: Tensor, offset: int | None
) -> Tensor:
    """Sum of the sigmoid loss over all pairs of (N, D) images and (M, D) texts; image i belongs to text `i + offset`.

    An `offset` of `None`, or one that points outside the texts, means that images belong to no text of this block.
    """
    logits = cosines(image_embeds, text_embeds) * logit_scale.exp() + logit_bias  # (N, M)
    if offset is None:
        return -F.logsigmoid(-logits).sum()
    column = torch.arange(logits.shape[1], device=logits.device)
    row = torch.arange(logits.shape[0], device=logits.device)
    belongs = column == row[:, None] + offset
    return -F.logsigmoid(torch.where(belongs, logits, -logits)).sum()


def region_contrastive_loss(region_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor) -> Tensor:
    """Symmetric cross-entropy between K regions and their K texts (L_FGV).

    Args:
        region_embeds, text_embeds: Shape (K, D), text k belonging to region k.
        logit_scale: One element; logits are `exp(logit_scale) * cosine`.

    Returns:
        Scalar; zero, yet part of the graph, for no regions.
    """
    logits = cosines(region_embeds, text_embeds) * logit_scale.exp()  # (K, K)
    if not len(logits):
        return _zero_of(region_embeds, text_embeds, logit_scale)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


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
        return _zero_of(text_embeds)
    is_self = torch.eye(len(similarities), dtype=torch.bool, device=similarities.device)
    similarities = similarities.masked_fill(is_self | (similarities > max_similarity), 0.0)
    hardest = similarities.topk(min(num_hardest, len(similarities)), dim=-1).values
    return hardest.logsumexp(-1).mean()


def cross_modal_rank_loss(
    positive_logits: Tensor, negative_logits: Tensor, margin: float | Tensor, negative_mask: Tensor | None = None
) -> Tensor:
    """Hinge loss that keeps each positive above its hard negatives by a margin (L_CMR).

    Args:
        positive_logits: Shape (H,), scaled similarity of each region with its text.
        negative_logits: Shape (H, K), with its hard negatives.
        margin: In logits; no gradient reaches it.
        negative_mask: Boolean, shape (H, K), `False` where there is no negative; `None`: all there.

    Returns:
        Scalar, the mean over pairs; zero, yet part of the graph, for none.
    """
    hinge = (negative_logits - positive_logits[:, None] + margin).clamp(min=0)
    return _masked_mean(hinge, negative_mask)


def rank_margin(positive_logits: Tensor, negative_logits: Tensor, negative_mask: Tensor | None = None) -> Tensor:
    """The margin by which positives lead now, for the next step's [`cross_modal_rank_loss`].

    Returns:
        Scalar, detached, not clamped: the mean positive logit minus the mean negative one, negatives of exactly zero
        left out. Zero for no regions.
    """
    if not positive_logits.numel():
        return positive_logits.new_zeros(())
    counted = negative_logits != 0
    if negative_mask is not None:
        counted = counted & negative_mask
    return (positive_logits.mean() - _masked_mean(negative_logits, counted)).detach()


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
        margin: Of the rank loss, from the step before.
        contrast_weight, pair_weight, rank_weight: Of the parts in `loss`.
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
        zero = _zero_of(region_embeds, positive_embeds, negative_embeds, logit_scale)
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


def _full(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of what the mask keeps; zero if that is nothing."""
    if mask is None:
        mask = torch.ones_like(values, dtype=torch.bool)
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def _zero_of(*tensors: Tensor) -> Tensor:
    """Zero that depends on all tensors, so that each parameter gets its (zero) gradient on a rank without data."""
    return torch.stack([tensor.sum().float() * 0.0 for tensor in tensors]).sum()
