"""Each implementation of attention: whether it runs, what it gives, and how fast."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..models import image_inputs, random_model
from ..records import Case, Column, NotAvailableError, Part, Settings, Words
from ..timing import seconds_of

# Name on the page -> implementation by transformers' name, and the back end that torch is held to.
IMPLEMENTATIONS: dict[str, tuple[str, SDPBackend | None]] = {
    "sdpa, torch's choice": ("sdpa", None),
    "sdpa, flash": ("sdpa", SDPBackend.FLASH_ATTENTION),
    "sdpa, efficient": ("sdpa", SDPBackend.EFFICIENT_ATTENTION),
    "sdpa, cuDNN": ("sdpa", SDPBackend.CUDNN_ATTENTION),
    "sdpa, math": ("sdpa", SDPBackend.MATH),
    "eager": ("eager", None),
    "flash_attention_2": ("flash_attention_2", None),
}
NO_KERNEL = ("No available kernel", "No viable backend")  # of CUDA, and of other devices
PATCHES, BATCH, BOUND = 1024, 32, 0.999


def inputs_of(settings: Settings, is_padded: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return images whose last quarter of patches is padding, or none, on the device."""
    torch.manual_seed(1)
    patches = settings.pick(PATCHES, 16)
    inputs = image_inputs(settings.pick(BATCH, 2), patches, settings, dtype)
    if is_padded:
        side = math.isqrt(patches)
        inputs["spatial_shapes"] = inputs["spatial_shapes"].clone()
        inputs["spatial_shapes"][:, 0] = 3 * side // 4
        valid = torch.arange(patches, device=settings.device) < (3 * side // 4) * side
        inputs["pixel_attention_mask"] = valid.int().expand(len(inputs["pixel_values"]), -1)
    return inputs


@torch.inference_mode()
def reference_vectors(size: str, is_padded: bool, settings: Settings) -> Tensor:
    """Return the vectors (B, D) of plain attention in float32."""
    model = random_model(size, settings, attention="eager")
    return model.get_image_features(**inputs_of(settings, is_padded, torch.float32))


@torch.inference_mode()
def measure(
    size: str, name: str, is_padded: bool, expected: Callable[[], Tensor], settings: Settings
) -> dict[str, Any]:
    """Compare the vectors in bfloat16 with the expected ones, and time them."""
    implementation, backend = IMPLEMENTATIONS[name]
    if implementation == "flash_attention_2":
        import flash_attn  # noqa: F401  # transformers would look for its kernels on the hub
    model = random_model(size, settings, torch.bfloat16, implementation)
    inputs = inputs_of(settings, is_padded, torch.bfloat16)
    with sdpa_kernel(backend) if backend is not None else nullcontext():
        try:
            found = model.get_image_features(**inputs)
        except RuntimeError as error:
            if any(message in str(error) for message in NO_KERNEL):
                raise NotAvailableError(f"torch has no such kernel for {settings.device.type} here") from error
            raise
        seconds = seconds_of(lambda: model.get_image_features(**inputs), settings)
    cosine = F.cosine_similarity(found.float(), expected(), dim=-1).min().item()
    rate = len(found) / seconds
    return {"cosine": cosine, "bound": BOUND, "held": cosine >= BOUND, "rate": rate}


def cases(settings: Settings) -> Iterator[Case]:
    """Give each implementation with and without padding, at heads of 64 and of 72 values."""
    for size in ("base", "so400m"):
        for is_padded in (False, True):
            expected = cache(partial(reference_vectors, size, is_padded, settings))
            for name in IMPLEMENTATIONS:
                labels = {"size": size, "padding": "25%" if is_padded else "0%", "attention": name}
                yield Case(labels, partial(measure, size, name, is_padded, expected, settings))


PART = Part(
    Words("Attention", "注意力"),
    Words(
        f"Image towers in bf16, {BATCH} images of {PATCHES:,} patches. The cosine is the lowest to eager attention in "
        "fp32 with the same weights. Torch has no kernel of its flash back end for padded images.",
        f"bf16 的图像塔，{BATCH} 张图像，每张 {PATCHES:,} 个图块。"
        "余弦是与相同权重、fp32、eager 注意力的结果相比的最低值。对于带填充的图像，torch 的 flash 后端没有内核。",
    ),
    (
        Column("size", Words("size", "尺寸")),
        Column("padding", Words("padding", "填充")),
        Column("attention", Words("attention", "注意力")),
        Column("cosine", Words("lowest cosine", "最低余弦"), ".6f"),
        Column("bound", Words("at least", "下限"), "g"),
        Column("held", Words("held", "满足")),
        Column("rate", Words("images per second", "每秒图像数"), ",.0f"),
    ),
    cases,
)
