"""Steps that the forward passes of all families share: rows of a batch in, the objective's embeddings out."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from ...modeling.layers import pool_regions


def at_least_one(input_ids: Tensor) -> Tensor:
    """Return the texts (N, T), or one in place of none, whose row the caller cuts off.

    Not every attention kernel takes an empty batch, and the parameters have to get their gradient of zero.
    """
    return input_ids if len(input_ids) else input_ids.new_zeros(1, input_ids.shape[1])


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
