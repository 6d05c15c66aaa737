"""The symmetric cross-entropy of pairs of embeddings (CLIP), on one process and over all ranks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...distributed import gather_rows, rank, world_size
from .arithmetic import cosines, zero_of


def info_nce_loss(image_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor) -> Tensor:
    """Contrast N images with their N texts: the mean cross-entropy of images over texts and of texts over images.

    Args:
        image_embeds, text_embeds: Shape (N, D), text i belonging to image i and to no other.
        logit_scale: One element; logits are `exp(logit_scale) * cosine`.

    Returns:
        Scalar; zero, yet part of the graph, for no images.
    """
    logits = cosines(image_embeds, text_embeds) * logit_scale.exp()  # (N, N)
    if not len(logits):
        return zero_of(image_embeds, text_embeds, logit_scale)
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def info_nce_loss_over_ranks(
    image_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor, counts: list[int]
) -> Tensor:
    """Compute a rank's part of [`info_nce_loss`] of all ranks' pairs; the mean over ranks is the loss of one process.

    Args:
        image_embeds, text_embeds: Shape (counts[rank], D), text i belonging to image i.
        logit_scale: One element.
        counts: Pairs of each rank; a rank may have none.

    Returns:
        Scalar: the sum over this rank's images and texts, times ranks / pairs of all ranks. Gradients reach other
        ranks' images and texts.
    """
    if not sum(counts):
        return zero_of(image_embeds, text_embeds, logit_scale)
    images, texts = gather_rows(image_embeds, counts), gather_rows(text_embeds, counts)  # (sum of counts, D)
    target = torch.arange(len(image_embeds), device=image_embeds.device) + sum(counts[: rank()])
    of_images = cosines(image_embeds, texts) * logit_scale.exp()  # (counts[rank], sum of counts)
    of_texts = cosines(text_embeds, images) * logit_scale.exp()
    total = F.cross_entropy(of_images, target, reduction="sum") + F.cross_entropy(of_texts, target, reduction="sum")
    return total / 2 * (world_size() / sum(counts))
