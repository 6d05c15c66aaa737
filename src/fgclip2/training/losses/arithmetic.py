"""Arithmetic that the losses share, computed in float32 at least, whatever autocast says."""

from __future__ import annotations

import torch
from torch import Tensor


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return dot products of rows, (N, D) and (M, D) -> (N, M), in float32 at least."""
    with torch.autocast(first.device.type, enabled=False):
        # Double precision stays what it is, for tests of gradients.
        first, second = (rows if rows.dtype == torch.float64 else rows.float() for rows in (first, second))
        return first @ second.mT  # (N, D) @ (D, M) -> (N, M)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of what the mask keeps, `None` keeping all; zero if that is nothing."""
    if mask is None:
        mask = torch.ones_like(values, dtype=torch.bool)
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def zero_of(*tensors: Tensor) -> Tensor:
    """Return a zero that depends on all tensors, so that each parameter gets a gradient on a rank without data."""
    return torch.stack([tensor.sum().float() * 0.0 for tensor in tensors]).sum()
