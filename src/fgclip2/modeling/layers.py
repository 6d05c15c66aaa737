"""Layers that the model families share: attention, and region features pooled from dense maps."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

# ---------------------------------------------------------------------------------------------------------------------
# Attention
# ---------------------------------------------------------------------------------------------------------------------


def eager_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """Plain attention on (B, heads, N, d) with a broadcasting boolean mask; returns (B, N, heads, d) and weights."""
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        # The lowest finite value, not -inf: a row with every key masked stays finite.
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """Multi-head attention through the configured implementation.

    Args:
        module: Has `config`, `num_heads` and `dropout`.
        query: Shape (B, Q, D).
        key, value: Shape (B, N, D).
        mask: From [`key_padding_mask`].

    Returns:
        Shape (B, Q, D).
    """
    implementation = module.config._attn_implementation
    function = eager_attention if implementation in (None, "eager") else ALL_ATTENTION_FUNCTIONS[implementation]
    query, key, value = (
        tensor.unflatten(-1, (module.num_heads, -1)).transpose(1, 2)  # (B, heads, ., d)
        for tensor in (query, key, value)
    )
    output, _ = function(
        module,
        query,
        key,
        value,
        mask,
        scaling=query.shape[-1] ** -0.5,
        dropout=module.dropout if module.training else 0.0,
        is_causal=False,
    )
    return output.flatten(2)


def key_padding_mask(mask: Tensor | None, implementation: str | None) -> Tensor | None:
    """Turn a (B, N) mask with 1 for valid keys into what the attention functions take; `None` if nothing is padded.

    Returns:
        Boolean, shape (B, 1, 1, N), never (N, N); for FlashAttention the (B, N) mask that it unpads with.
    """
    if mask is None:
        return None
    mask = mask.bool()
    # A compiled or exported graph can't branch on the data, so there the mask stays.
    if not torch.compiler.is_compiling() and bool(mask.all()):
        return None
    if implementation is not None and implementation.startswith("flash"):
        return mask
    return mask[:, None, None, :]


def check_heads(hidden_size: int, num_attention_heads: int) -> None:
    if hidden_size % num_attention_heads:
        raise ValueError(f"hidden_size={hidden_size} is not divisible by num_attention_heads={num_attention_heads}")


# ---------------------------------------------------------------------------------------------------------------------
# Region pooling
# ---------------------------------------------------------------------------------------------------------------------


def roi_align_weights(start: Tensor, end: Tensor, size: Tensor, num_cells: int) -> Tensor:
    """Weights of RoIAlign along one axis (output size 1, aligned, adaptive sampling), which make it a matrix product.

    Args:
        start, end: Float32, shape (...), the interval in cells.
        size: Integer, broadcasts with `start`, number of cells of the axis.
        num_cells: At least the largest `size`; cells past `size` get zero.

    Returns:
        Float32, shape (..., num_cells): the mean over the interval's `ceil(end - start)` sample points of their linear
        interpolation weights. Points more than one cell outside count as zero; an empty or inverted interval is zero.
    """
    start, end = start - 0.5, end - 0.5
    length = end - start
    count = length.ceil().clamp(min=0)
    spacing = length / count.clamp(min=1)
    # Spacing is above half a cell when there are two samples or more: only so many can fall between -1 and `size`.
    max_samples = int(min(count.max().item(), 2 * num_cells + 4)) if count.numel() else 0
    first = ((-1 - start) / spacing - 0.5).floor().clamp(min=0).nan_to_num(0.0, 0.0, 0.0)
    sample = first[..., None] + torch.arange(max_samples, device=start.device)  # (..., S)
    position = start[..., None] + (sample + 0.5) * spacing[..., None]
    size = size[..., None]
    counted = (sample < count[..., None]) & (position >= -1) & (position <= size)
    position = torch.minimum(position.clamp(min=0), size - 1)
    cell = torch.arange(num_cells, device=start.device)
    weights = (1 - (position[..., None] - cell).abs()).clamp(min=0) * counted[..., None]  # (..., S, num_cells)
    return weights.sum(-2) / count.clamp(min=1)[..., None]


def pool_regions(dense_features: Tensor, spatial_shapes: Tensor, boxes: Tensor) -> Tensor:
    """Pool one vector per box from dense maps: RoIAlign with a 1 x 1 output as one matrix product for the batch.

    Args:
        dense_features: Shape (B, N, D), row-major grids with padding behind.
        spatial_shapes: Integer, shape (B, 2), (height, width) of each grid in patches.
        boxes: Float, shape (B, R, 4), (x1, y1, x2, y2) in patches.

    Returns:
        Shape (B, R, D), not normalised; zero for boxes of no area.
    """
    boxes = boxes.float()
    height, width = spatial_shapes[:, :1], spatial_shapes[:, 1:]  # (B, 1)
    num_patches = dense_features.shape[1]
    index = torch.arange(num_patches, device=dense_features.device)[None]
    valid = index < height * width  # (B, N)
    max_height, max_width = (int(side) for side in spatial_shapes.amax(0).tolist())
    rows = roi_align_weights(boxes[..., 1], boxes[..., 3], height, max_height)  # (B, R, max_height)
    columns = roi_align_weights(boxes[..., 0], boxes[..., 2], width, max_width)
    row = torch.where(valid, index // width, 0)[:, None].expand(-1, boxes.shape[1], -1)  # (B, R, N)
    column = torch.where(valid, index % width, 0)[:, None].expand(-1, boxes.shape[1], -1)
    weights = rows.gather(-1, row) * columns.gather(-1, column) * valid[:, None]  # (B, R, N)
    return weights.to(dense_features.dtype) @ dense_features


def boxes_in_patches(
    region_infos: Sequence[Sequence[Sequence[float]]],
    image_sizes: Sequence[tuple[int, int]],
    spatial_shapes: Tensor,
) -> Tensor:
    """Boxes in pixels of each image -> float32 (B, max R, 4) in patches, short lists padded with empty boxes."""
    if not len(region_infos) == len(image_sizes) == len(spatial_shapes):
        raise ValueError(
            f"{len(spatial_shapes)} images, but region_infos has {len(region_infos)} and "
            f"image_sizes {len(image_sizes)} entries; allowed: one of each per image"
        )
    boxes = torch.zeros(len(region_infos), max(map(len, region_infos), default=0), 4, dtype=torch.float64)
    for index, image_boxes in enumerate(region_infos):
        if len(image_boxes):
            rows = torch.as_tensor(image_boxes, dtype=torch.float64)
            if rows.shape[1:] != (4,):
                raise ValueError(f"region_infos[{index}] has shape {tuple(rows.shape)}; allowed: (boxes, 4)")
            boxes[index, : len(rows)] = rows
    sizes = torch.as_tensor(image_sizes, dtype=torch.float64)  # (B, 2)
    if sizes.shape[1:] != (2,) or not bool((sizes > 0).all()):
        raise ValueError(f"image_sizes={image_sizes!r}; allowed: positive (height, width) of each image")
    grids = spatial_shapes.to("cpu", torch.float64)
    width_height, grid_width_height = sizes.flip(1).repeat(1, 2), grids.flip(1).repeat(1, 2)  # (B, 4)
    boxes = boxes * grid_width_height[:, None] / width_height[:, None]
    return boxes.float().to(spatial_shapes.device)
