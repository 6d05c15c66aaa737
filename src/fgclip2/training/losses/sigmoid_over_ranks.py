"""The sigmoid loss between the images of this rank and the texts of all ranks, in two forms with one result."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ...distributed import gather_rows, rank, ring_blocks, ring_sum, world_size
from .sigmoid import sigmoid_pair_sum

SigmoidForm = Literal["gather", "ring"]
SIGMOID_FORMS: tuple[SigmoidForm, ...] = ("gather", "ring")


def sigmoid_loss_over_ranks(
    image_embeds: Tensor,
    text_embeds: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    counts: list[int],
    form: SigmoidForm = "gather",
) -> Tensor:
    """Compute a rank's part of the sigmoid loss of all ranks' pairs; the mean over ranks is the loss of one process.

    Args:
        image_embeds, text_embeds: Shape (counts[rank], D), text i belonging to image i.
        logit_scale, logit_bias: One element each.
        counts: Pairs of each rank; a rank may have none.
        form: `"gather"` holds all texts and all logits; `"ring"` only two ranks' texts at once, and computes logits
            again for the gradient.

    Returns:
        Scalar: the sum over this rank's images and all texts, times ranks / pairs of all ranks. With equal counts that
        is the sum divided by this rank's number of images, as released. Gradients reach other ranks' texts.
    """
    if form == "ring":
        total = _RingPairSum.apply(image_embeds, text_embeds, logit_scale, logit_bias, counts)
    else:
        texts = gather_rows(text_embeds, counts)  # (sum of counts, D)
        total = sigmoid_pair_sum(image_embeds, texts, logit_scale, logit_bias, offset=sum(counts[: rank()]))
    return total * (world_size() / max(1, sum(counts)))


class _RingPairSum(torch.autograd.Function):
    """Sum over this rank's images and all texts, which come by in a ring; again in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, image_embeds: Tensor, text_embeds: Tensor, logit_scale: Tensor, logit_bias: Tensor, counts: list[int]
    ) -> Tensor:
        ctx.save_for_backward(image_embeds, text_embeds, logit_scale, logit_bias)
        ctx.counts = counts
        return torch.stack(
            [
                sigmoid_pair_sum(image_embeds, block, logit_scale, logit_bias, 0 if source == rank() else None)
                for source, block in ring_blocks(text_embeds, counts)
            ]
        ).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        image_embeds, text_embeds, logit_scale, logit_bias = ctx.saved_tensors
        own = [tensor.detach().requires_grad_() for tensor in (image_embeds, logit_scale, logit_bias)]
        totals = [torch.zeros_like(tensor) for tensor in own]

        def gradient_of(source: int, block: Tensor) -> Tensor:
            block.requires_grad_()
            with torch.enable_grad():
                part = sigmoid_pair_sum(own[0], block, own[1], own[2], 0 if source == rank() else None)
            *own_gradients, of_block = torch.autograd.grad(part, [*own, block], gradient)
            for total, its_gradient in zip(totals, own_gradients, strict=True):
                total += its_gradient
            return of_block

        of_texts = ring_sum(text_embeds, ctx.counts, gradient_of)
        of_images, of_scale, of_bias = totals
        return of_images, of_texts, of_scale, of_bias, None
