"""Layers that the model families share: transformer layers, and region features pooled from dense maps."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configurations import WALK_TYPES

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
    is_causal: bool = False,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """Plain attention on (B, heads, N, d) with a broadcasting boolean mask; returns (B, N, heads, d) and weights.

    A mask decides alone; without one, `is_causal` hides what follows each position, as in transformers' functions.
    """
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is None and is_causal:
        attention_mask = causal_mask(query.shape[2], query.device)
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
        module: Has `config`, `num_heads`, `dropout` and `is_causal`.
        query: Shape (B, Q, D).
        key, value: Shape (B, N, D).
        mask: From [`key_padding_mask`] for the same `is_causal`.

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
        is_causal=module.is_causal,
    )
    return output.flatten(2)


def causal_mask(length: int, device: torch.device) -> Tensor:
    """Return which keys each position may attend to: itself and those before; boolean, (length, length)."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def key_padding_mask(mask: Tensor | None, implementation: str | None, is_causal: bool = False) -> Tensor | None:
    """Turn a (B, N) mask with 1 for valid keys into what the attention functions take; `None` if nothing is padded.

    Returns:
        Boolean, shape (B, 1, 1, N), only for causal attention (B, 1, N, N); for FlashAttention the (B, N) mask that it
        unpads with.
    """
    if mask is None:
        return None
    mask = mask.bool()
    # A compiled or exported graph can't branch on the data, so there the mask stays.
    if not torch.compiler.is_compiling() and bool(mask.all()):
        return None
    if implementation is not None and implementation.startswith("flash"):
        return mask
    keys = mask[:, None, None, :]  # (B, 1, 1, N)
    if not is_causal:
        return keys
    # Padding in front would see nothing at all, and its NaN would reach the tokens behind it: it sees itself.
    itself = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    return keys & causal_mask(mask.shape[1], mask.device) | itself  # (B, 1, N, N)


def check_heads(hidden_size: int, num_attention_heads: int) -> None:
    if hidden_size % num_attention_heads:
        raise ValueError(f"hidden_size={hidden_size} is not divisible by num_attention_heads={num_attention_heads}")


class SelfAttention(nn.Module):
    """Multi-head self-attention; causal attention hides from each position what follows it."""

    def __init__(self, config: Any, is_causal: bool = False):
        super().__init__()
        check_heads(config.hidden_size, config.num_attention_heads)
        self.config = config
        self.is_causal = is_causal
        self.num_heads = config.num_attention_heads
        self.dropout = config.attention_dropout
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> Tensor:
        query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        return self.out_proj(attend(self, query, key, value, mask))


# ---------------------------------------------------------------------------------------------------------------------
# Encoder
# ---------------------------------------------------------------------------------------------------------------------


def activation_of(config: Any) -> Any:
    """Return the activation that a configuration names in `hidden_act`, or raise a `ValueError`."""
    if config.hidden_act not in ACT2FN:
        raise ValueError(f"hidden_act={config.hidden_act!r}; allowed: a name in transformers.activations.ACT2FN")
    return ACT2FN[config.hidden_act]


class MLP(nn.Module):
    def __init__(self, config: Any):
        super().__init__()
        self.activation_fn = activation_of(config)
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.fc2(self.activation_fn(self.fc1(hidden_states)))


class EncoderLayer(GradientCheckpointingLayer):
    """A pre-norm transformer layer. Families subclass it, for settings name the class that is sharded or offloaded."""

    def __init__(self, config: Any, is_causal: bool = False):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = SelfAttention(config, is_causal)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, hidden_states: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(hidden_states), mask)
        return hidden_states + self.mlp(self.layer_norm2(hidden_states))


class Encoder(nn.Module):
    """A stack of layers; (B, N, D) in, (B, N, D) and, if asked for, every hidden state out."""

    def __init__(self, config: Any, layer_class: type[EncoderLayer], is_causal: bool = False):
        super().__init__()
        self.layers = nn.ModuleList([layer_class(config, is_causal) for _ in range(config.num_hidden_layers)])
        self.gradient_checkpointing = False

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None = None, output_hidden_states: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        all_hidden_states = [hidden_states]
        for layer in self.layers:
            hidden_states = layer(hidden_states, mask)
            if output_hidden_states:
                all_hidden_states.append(hidden_states)
        return hidden_states, tuple(all_hidden_states) if output_hidden_states else None


# ---------------------------------------------------------------------------------------------------------------------
# Embeddings
# ---------------------------------------------------------------------------------------------------------------------


class TextEmbeddings(nn.Module):
    """Token embeddings plus the position table of the walk; integer (B, T) in, (B, T, D) out."""

    def __init__(self, config: Any):
        super().__init__()
        self.keep_len = config.keep_len
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.position_embedding_ori = nn.Embedding(config.longtext_len, config.hidden_size)
        self.position_embedding_res = nn.Embedding(config.longtext_len, config.hidden_size)

    def forward(self, input_ids: Tensor, walk_type: str) -> Tensor:
        index = torch.arange(input_ids.shape[1], device=input_ids.device)  # (T,)
        if walk_type == "long":
            # Slices, not masks in buffers: those come back as garbage from models built on the meta device.
            kept = self.position_embedding_ori(index[: self.keep_len])
            positions = torch.cat([kept, self.position_embedding_res(index[self.keep_len :])])  # (T, D)
        else:
            positions = self.position_embedding(index)  # (T, D)
        return self.token_embedding(input_ids) + positions


def resize_position_table(table: Tensor, height: int, width: int) -> Tensor:
    """Resize a position table, whose first row is that of the class token, to one grid.

    Args:
        table: Shape (1 + G * G, D).
        height, width: Size of the grid in patches.

    Returns:
        Shape (1 + height * width, D): the first row as it is, the others by bicubic interpolation in float32.
    """
    side = math.isqrt(len(table) - 1)
    if (height, width) == (side, side):
        return table
    grid = table[1:].float().unflatten(0, (side, side)).permute(2, 0, 1)  # (D, G, G)
    grid = F.interpolate(grid[None], (height, width), mode="bicubic", align_corners=False)[0]  # (D, height, width)
    return torch.cat([table[:1], grid.flatten(1).T.to(table.dtype)])


class ImageEmbeddings(nn.Module):
    """CLIP's class token and convolution over square patches, plus the position table.

    Images (B, 3, S, S) become (B, 1 + N, D). Families subclass it, for settings name the class that is sharded or
    offloaded.
    """

    remedy = "resize them, as the image processor does"

    def __init__(self, config: Any):
        super().__init__()
        self.image_size, self.patch_size = config.image_size, config.patch_size
        self.num_positions = 1 + (config.image_size // config.patch_size) ** 2
        self.class_embedding = nn.Parameter(torch.empty(config.hidden_size))
        self.patch_embedding = nn.Conv2d(
            config.num_channels, config.hidden_size, config.patch_size, config.patch_size, bias=False
        )
        self.position_embedding = nn.Embedding(self.num_positions, config.hidden_size)

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        self.check(pixel_values, interpolate_pos_encoding)
        patches = self.patch_embedding(pixel_values.to(self.patch_embedding.weight.dtype))  # (B, D, h, w)
        first = self.class_embedding.expand(patches.shape[0], 1, -1)  # (B, 1, D)
        # Called, not read: where weights are offloaded, the call fetches them.
        table = self.position_embedding(torch.arange(self.num_positions, device=patches.device))
        table = resize_position_table(table, *patches.shape[2:])  # (1 + h * w, D)
        return torch.cat([first, patches.flatten(2).transpose(1, 2)], 1) + table

    def check(self, pixel_values: Tensor, interpolate_pos_encoding: bool) -> None:
        """Raise a `ValueError` unless the position table fits the images, or may be made to."""
        if pixel_values.ndim != 4:
            raise ValueError(
                f"pixel_values has shape {tuple(pixel_values.shape)}; allowed: (images, channels, height, width)"
            )
        height, width = pixel_values.shape[2:]
        if not interpolate_pos_encoding and (height, width) != (self.image_size, self.image_size):
            raise ValueError(
                f"pixel_values has images of {height}x{width}, not {self.image_size}x{self.image_size}: {self.remedy}"
            )
        if height % self.patch_size or width % self.patch_size or not height or not width:
            raise ValueError(
                f"pixel_values has images of {height}x{width}; sides must be multiples of {self.patch_size}"
            )


def choose_walk(input_ids: Tensor, walk_type: str | None, short_length: int) -> str:
    """Return the walk of texts; `None` means `long` for more than `short_length` tokens, else `short`.

    Args:
        input_ids: Shape (texts, tokens).
        walk_type: `"short"`, `"long"`, `"box"` or `None`.
        short_length: The most tokens that the short walk takes.

    Raises:
        ValueError: The walk is unknown, or `input_ids` has another number of dimensions.
    """
    if input_ids.ndim != 2:
        raise ValueError(f"input_ids has shape {tuple(input_ids.shape)}; allowed: (texts, tokens)")
    if walk_type is None:
        walk_type = "long" if input_ids.shape[1] > short_length else "short"
    if walk_type not in WALK_TYPES:
        raise ValueError(f"walk_type must be one of {', '.join(map(repr, WALK_TYPES))} or None, got {walk_type!r}")
    return walk_type


def normalized_pooler_output(outputs: BaseModelOutputWithPooling) -> Tensor:
    """Return the embeddings (B, D) of a tower's output, L2-normalised."""
    assert outputs.pooler_output is not None  # optional in transformers' class, never in our towers
    return F.normalize(outputs.pooler_output, dim=-1)


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
