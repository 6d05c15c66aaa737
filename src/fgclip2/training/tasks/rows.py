"""Steps that the forward passes of all families share: rows of a batch in, the objective's embeddings out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...distributed import max_over_ranks
from ...modeling.layers import pool_regions


def at_least_one(input_ids: Tensor) -> Tensor:
    """Return the texts (N, T), or one in place of none, whose row the caller cuts off.

    Not every attention kernel takes an empty batch, and the parameters have to get their gradient of zero.
    """
    return input_ids if len(input_ids) else input_ids.new_zeros(1, input_ids.shape[1])


def set_text_chunk_size(model: nn.Module, size: int) -> None:
    """Let a training model of embeddings encode so many texts at once, also one in a wrapper (PEFT, torch.compile).

    Call it after gradient checkpointing was enabled. A chunk is computed again as a whole, so its layers need not be.

    Args:
        model: The model.
        size: Texts of a chunk; 0: all at once.
    """
    for module in model.modules():
        if hasattr(type(module), "text_chunk_size"):
            module.text_chunk_size = size  # type: ignore[assignment]
            for layer in cast(Any, module).text_model.encoder.layers if size else ():
                layer.gradient_checkpointing = False


def encode_texts(encode: Callable[[Tensor], Tensor], input_ids: Tensor, chunk_size: int = 0) -> Tensor:
    """Encode the texts of a batch, all at once or in chunks whose activations are computed again for the gradient.

    In chunks, every rank calls `encode` as often as the one with most texts: each call has collectives of its own where
    parameters are sharded.

    Args:
        encode: Takes ids (n, T), at least one row, and returns (n, D).
        input_ids: Integer, shape (N, T); N may be 0.
        chunk_size: Texts of a chunk; 0: all at once.

    Returns:
        Shape (N, D).
    """
    if not chunk_size:
        return encode(at_least_one(input_ids))[: len(input_ids)]
    count = max_over_ranks(max(1, -(-len(input_ids) // chunk_size)), input_ids.device)
    starts = range(0, count * chunk_size, chunk_size)
    chunks = [at_least_one(input_ids[start : start + chunk_size]) for start in starts]
    rows: list[Tensor] = [checkpoint(encode, chunk, use_reentrant=False) for chunk in chunks]
    return torch.cat(rows)[: len(input_ids)]  # what was encoded in place of no texts is at the end


def embed_regions(
    dense_features: Tensor, grids: Tensor, boxes: Tensor, indices: Mapping[str, Tensor | None]
) -> dict[str, Tensor]:
    """Pool the regions of a batch from its dense features.

    Args:
        dense_features: Shape (B, N, D), as [`pool_regions`] takes them; of an empty batch those of one image.
        grids: Integer, shape (B, 2), (height, width) of each grid in patches.
        boxes: Float, shape (B, R, 4), (x1, y1, x2, y2) as fractions of width and height.
        indices: Name -> integer, shape (K, 2), (image, box) of each region; what is `None` is left out.

    Returns:
        Name -> (K, D), not normalised.
    """
    if not boxes.shape[0] or not boxes.shape[1]:  # one empty box, to be indexed by nothing
        boxes = boxes.new_zeros(len(dense_features), 1, 4)
    width_height = grids.flip(1).repeat(1, 2)[:, None].to(boxes.dtype)  # (B, 1, 4), in patches
    regions = pool_regions(dense_features, grids, boxes * width_height)  # (B, R, D)
    return {name: regions[index[:, 0], index[:, 1]] for name, index in indices.items() if index is not None}


def normalize_rows(embeddings: Mapping[str, Tensor], hard_input_ids: Tensor | None) -> dict[str, Tensor]:
    """Normalise embeddings, in float32; `hard_text_embeds` (H (1 + N), D) become the positives and the negatives.

    Args:
        embeddings: Name -> (rows, D).
        hard_input_ids: Shape (H, 1 + N, T), which the rows of `hard_text_embeds` are of.
    """
    rows = {name: F.normalize(values.float(), dim=-1) for name, values in embeddings.items()}
    if hard_input_ids is not None:
        hard = rows.pop("hard_text_embeds").unflatten(0, hard_input_ids.shape[:2])  # (H, 1 + N, D)
        rows["hard_positive_embeds"], rows["hard_negative_embeds"] = hard[:, 0], hard[:, 1:]
    return rows
