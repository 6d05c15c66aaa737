"""Patches that the vision tower does not see in a training step (FLIP, arXiv 2212.00794; PatchDropout, 2208.07220)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..modeling.interface import DualEncoderProcessor

NO_PATCH = -1  # fills the rows of images that keep fewer than others


def count_kept(patches: int, dropout: float) -> int:
    """Return how many patches an image keeps: one at least."""
    return max(1, round(patches * (1 - dropout)))


def draw_kept_patches(counts: Sequence[int], dropout: float, rngs: Sequence[np.random.Generator]) -> Tensor:
    """Draw which patches each image keeps, each subset of their number as likely as any other.

    Args:
        counts: Patches of each image that are not padding.
        dropout: Share of them that is dropped, in [0, 1).
        rngs: The random state of each image.

    Returns:
        Integer, shape (B, K): places of the patches in rising order, behind them `NO_PATCH`.
    """
    kept = [
        torch.from_numpy(np.sort(rng.choice(count, count_kept(count, dropout), replace=False)))
        for count, rng in zip(counts, rngs, strict=True)
    ]
    if not kept:
        return torch.empty(0, 1, dtype=torch.int64)
    return torch.nn.utils.rnn.pad_sequence(kept, batch_first=True, padding_value=NO_PATCH)  # (B, K)


def take_patches(patches: Tensor, kept_patches: Tensor) -> tuple[Tensor, Tensor]:
    """Take the kept patches of each image.

    Args:
        patches: Shape (B, N, P).
        kept_patches: Integer, shape (B, K), of [`draw_kept_patches`].

    Returns:
        - Shape (B, K, P);
        - int32, shape (B, K), 1 for patches and 0 for padding.
    """
    places = kept_patches.clamp(min=0)[..., None].expand(-1, -1, patches.shape[-1])  # (B, K, P)
    return patches.gather(1, places), (kept_patches != NO_PATCH).int()


def check_patch_dropout(dropout: float, processor: DualEncoderProcessor, with_regions: bool) -> None:
    """Raise a `ValueError` where patches can't be dropped."""
    if not dropout:
        return
    if processor.patch_budgets is None:
        raise ValueError(
            f"`patch_dropout` must be 0 for a model whose images are squares of one size, got {dropout!r}: it is of "
            "FGClip2ForTraining"
        )
    if with_regions:
        raise ValueError(
            f"`patch_dropout` must be 0 where regions are pooled from all patches of an image, got {dropout!r}; it "
            "goes with captions alone: objective_settings={'region_weight': 0, 'tic_weight': 0, "
            "'hard_negative_weight': 0}"
        )
