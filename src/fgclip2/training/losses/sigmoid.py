"""The pairwise sigmoid loss of images and captions (SigLIP, equation 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .arithmetic import cosines


def sigmoid_loss(
    image_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor, logit_bias: Tensor, negative_only: bool = False
) -> Tensor:
    """Return the sum of the pairwise sigmoid loss over all pairs, divided by the number of images.

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
    """Sum the loss over all pairs of (N, D) images and (M, D) texts; image i belongs to text `i + offset`.

    An `offset` of `None`, or one that points outside the texts, means that images belong to no text of this block.
    """
    logits = cosines(image_embeds, text_embeds) * logit_scale.exp() + logit_bias  # (N, M)
    if offset is None:
        return -F.logsigmoid(-logits).sum()
    column = torch.arange(logits.shape[1], device=logits.device)
    row = torch.arange(logits.shape[0], device=logits.device)
    belongs = column == row[:, None] + offset  # (N, M)
    return -F.logsigmoid(torch.where(belongs, logits, -logits)).sum()
