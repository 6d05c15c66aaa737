"""An encoder written as plainly as it can be, which the image and text towers are measured against, and its inputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def random_pixels(batch: int, grid: tuple[int, int]) -> dict[str, Tensor]:
    count = grid[0] * grid[1]
    return {
        "pixel_values": torch.randn(batch, count, 768),
        "pixel_attention_mask": torch.ones(batch, count, dtype=torch.int32),
        "spatial_shapes": torch.tensor([grid] * batch),
    }


def weights_of(encoder: nn.Module) -> list[dict[str, Tensor]]:
    """Return the weights of each layer of a tower's encoder by their names, without gradients."""
    return [{name: tensor.detach() for name, tensor in layer.named_parameters()} for layer in encoder.layers]


def bare_encoder(hidden: Tensor, layers: list[dict[str, Tensor]], heads: int) -> Tensor:
    """Compute what an encoder can't do without: matrix products, attention, norms and activations."""
    for layer in layers:
        normed = F.layer_norm(hidden, hidden.shape[-1:], layer["layer_norm1.weight"], layer["layer_norm1.bias"], 1e-6)
        query, key, value = (
            F.linear(normed, layer[f"self_attn.{name}_proj.weight"], layer[f"self_attn.{name}_proj.bias"])
            .unflatten(-1, (heads, -1))
            .transpose(1, 2)
            for name in "qkv"
        )
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        hidden = hidden + F.linear(mixed, layer["self_attn.out_proj.weight"], layer["self_attn.out_proj.bias"])
        normed = F.layer_norm(hidden, hidden.shape[-1:], layer["layer_norm2.weight"], layer["layer_norm2.bias"], 1e-6)
        inner = F.gelu(F.linear(normed, layer["mlp.fc1.weight"], layer["mlp.fc1.bias"]), approximate="tanh")
        hidden = hidden + F.linear(inner, layer["mlp.fc2.weight"], layer["mlp.fc2.bias"])
    return hidden
