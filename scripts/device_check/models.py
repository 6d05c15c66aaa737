"""Models with random weights on a device, their inputs, and the operations that they take at least."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import Tensor

from fgclip2 import FGClip2Config, FGClip2Model

from ..perf.reference_encoder import random_pixels
from .records import Settings

AnyModel = TypeVar("AnyModel", bound=FGClip2Model)

TINY_TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
TINY_VOCABULARY = 8_000  # the processor that comes with the package has 6,000 tokens


def config_of(size: str, settings: Settings) -> FGClip2Config:
    """Return the configuration of a published size; in a dry run a tiny one."""
    if not settings.is_dry:
        return FGClip2Config.from_preset(size)
    return FGClip2Config(text_config={**TINY_TOWER, "vocab_size": TINY_VOCABULARY}, vision_config=dict(TINY_TOWER))


def random_model(
    size: str,
    settings: Settings,
    dtype: torch.dtype = torch.float32,
    attention: str = "sdpa",
    model_class: type[AnyModel] = FGClip2Model,  # type: ignore[assignment]
) -> AnyModel:
    """Return a model of a published size that was made on the device, with the same weights each time.

    Args:
        size: Name of a preset.
        settings: Of the run.
        dtype: Of its weights.
        attention: Implementation of attention, as transformers names it.
        model_class: Its class.
    """
    torch.manual_seed(0)
    with torch.device(settings.device):
        model = model_class._from_config(config_of(size, settings), attn_implementation=attention)
    return model.to(dtype).eval()


def image_inputs(batch: int, patches: int, settings: Settings, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return square images of so many patches, none of which is padding, on the device."""
    side = math.isqrt(patches)
    inputs = {name: tensor.to(settings.device) for name, tensor in random_pixels(batch, (side, side)).items()}
    del inputs["pixel_attention_mask"]  # all of them count; a compiled graph could not see that
    return {**inputs, "pixel_values": inputs["pixel_values"].to(dtype)}


def text_inputs(batch: int, tokens: int, config: FGClip2Config, settings: Settings) -> Tensor:
    """Return token ids (batch, tokens) on the device."""
    return torch.randint(3, config.text_config.vocab_size, (batch, tokens), device=settings.device)


def encoder_operations(config: Any, length: int) -> int:
    """Return the operations of the matrix products of a tower's layers for one sequence, attention included.

    Args:
        config: `vision_config` or `text_config` of the model.
        length: Tokens or patches of the sequence.
    """
    width = config.hidden_size
    projections = 4 * width * width + 2 * width * config.intermediate_size  # values of the matrices of a layer
    return config.num_hidden_layers * (2 * length * projections + 4 * length * length * width)
