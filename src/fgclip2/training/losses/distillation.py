"""What keeps a model near the embeddings that its start makes of the same data."""

from __future__ import annotations

from torch import Tensor

from .arithmetic import zero_of


def feature_distillation_loss(embeds: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean squared distance of embeddings from those of a teacher.

    This is the feature distillation that CLIP-KD (Yang et al., arXiv 2307.12732) finds to be the best single form of
    distillation between dual encoders. Each row counts by itself, which suits the sigmoid loss, whose pairs do too.
    That the teacher is the frozen start, and that what it makes of the new data is kept, is learning without forgetting
    (Li and Hoiem, arXiv 1606.09282).

    Args:
        embeds: Shape (N, D), L2-normalised.
        targets: Shape (N, D), likewise, of the teacher; row i of both is of the same input.

    Returns:
        Scalar from 0 to 4, twice one minus the mean cosine; a zero that keeps the graph if N is 0. Gradients reach
        `embeds` only.
    """
    if not len(embeds):
        return zero_of(embeds)
    return (embeds - targets.detach()).float().square().sum(1).mean()
