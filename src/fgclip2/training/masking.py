"""Masked texts, of which a model is to tell the tokens."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .losses.after_r2d2 import NOT_MASKED

# Of the tokens that are asked for: BERT's shares.
_MASKED, _MASKED_OR_RANDOM = 0.8, 0.9


def mask_tokens(
    input_ids: Tensor,
    draws: Tensor,
    random_ids: Tensor,
    mask_id: int,
    special_ids: Iterable[int],
    probability: float,
) -> tuple[Tensor, Tensor]:
    """Hide some tokens as BERT does: eight in ten become the mask, one a random token, and one stays.

    Args:
        input_ids: Integer, shape (B, T).
        draws: Shape (B, T, 2), uniform from 0 to 1: what decides whether a token is asked for, and what becomes of it.
            Further columns are not used.
        random_ids: Integer, shape (B, T), tokens to put in place of others.
        mask_id: The mask.
        special_ids: Tokens that are never asked for, such as padding, start and end.
        probability: Share of the other tokens that are asked for.

    Returns:
        The masked texts, and the tokens that were there, `NOT_MASKED` where none is asked for; both (B, T).
    """
    special = torch.isin(input_ids, torch.tensor(list(special_ids), device=input_ids.device))
    chosen = (draws[..., 0] < probability) & ~special
    becomes_mask = chosen & (draws[..., 1] < _MASKED)
    becomes_random = chosen & ~becomes_mask & (draws[..., 1] < _MASKED_OR_RANDOM)
    masked = torch.where(becomes_random, random_ids, input_ids.masked_fill(becomes_mask, mask_id))
    return masked, input_ids.masked_fill(~chosen, NOT_MASKED)
