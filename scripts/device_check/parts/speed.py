"""Images and texts per second of a size, beside a bare encoder, SigLIP 2 and what the device can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import nn

from ...perf.reference_encoder import bare_encoder, weights_of
from ..models import TINY_TOWER, config_of, encoder_operations, image_inputs, random_model, text_inputs
from ..records import Case, Column, Part, Settings, Words, release_memory
from ..timing import matrix_peak, seconds_of

TOKENS_AT_ONCE = 32_768  # of a batch, whatever its sequences' length
PATCHES, TOKENS = (256, 1024), (64, 196)
LENGTHS = (*(("vision", patches) for patches in PATCHES), *(("text", tokens) for tokens in TOKENS))
TARGET = 0.45  # of the matrix peak, at base and 256 patches, compiled
OURS, BARE, SIGLIP = "fgclip2", "bare encoder", "transformers Siglip2"

EXPLANATION = Words(
    "Random weights in bf16, no padding. *Operations* are those of the matrix products of the layers, "
    "attention included, and nothing else; their share is of what a product of 8,192 x 8,192 reaches on this "
    "device in bf16. The bare encoder computes the layers alone, without embeddings and heads.",
    "bf16 的随机权重，没有填充。*运算量*只计各层的矩阵乘法（含注意力）；"
    "占比是与本设备上 bf16 的 8,192 x 8,192 矩阵乘法所达到的速度相比。"
    "bare encoder 只计算各层，不含嵌入和头。",
)

Call = Callable[[], Any]


class Timed(NamedTuple):
    """A call of a model on a batch of sequences of one length, to be timed."""

    name: str
    tower: str
    length: int
    batch: int
    call: Call


@torch.no_grad()
def measure(
    call: Call, is_compiled: bool, batch: int, operations: int, peak: float, target: float | None, settings: Settings
) -> dict[str, Any]:
    """Time a call of `batch` sequences with so many operations each, which `peak` a second would be the most of."""
    if is_compiled:
        torch._dynamo.reset()
        call = torch.compile(call, dynamic=False, backend=settings.pick("inductor", "aot_eager"))
    seconds = seconds_of(call, settings)
    share = batch * operations / seconds / peak
    judged = {} if target is None else {"target": target, "held": share >= target}
    return {"rate": batch / seconds, "tera": batch * operations / seconds / 1e12, "share": share, **judged}


def siglip_model(tower: str, size: str, settings: Settings) -> nn.Module:
    """Return a tower of transformers' SigLIP 2 of the same size, with random weights."""
    from transformers import Siglip2TextConfig, Siglip2TextModel, Siglip2VisionConfig, Siglip2VisionModel

    config = config_of(size, settings)
    ours = getattr(config, f"{tower}_config")
    sizes = {name: getattr(ours, name) for name in TINY_TOWER}
    with torch.device(settings.device):
        if tower == "vision":
            model: nn.Module = Siglip2VisionModel(Siglip2VisionConfig(**sizes, num_patches=ours.num_patches))
        else:
            model = Siglip2TextModel(Siglip2TextConfig(**sizes, vocab_size=ours.vocab_size))
    return model.to(torch.bfloat16).eval()


def our_calls(tower: str, length: int, batch: int, size: str, settings: Settings) -> Iterator[tuple[str, Call]]:
    """Give what is timed of our tower at a length of its sequences, by name: the tower, and its layers alone."""
    model = random_model(size, settings, torch.bfloat16)
    config = getattr(model.config, f"{tower}_config")
    if tower == "vision":
        images = image_inputs(batch, length, settings, torch.bfloat16)
        yield OURS, lambda: model.get_image_features(**images)
    else:
        ids, walk = text_inputs(batch, length, model.config, settings), "short" if length == TOKENS[0] else "long"
        yield OURS, lambda: model.get_text_features(ids, None, walk)
    layers = weights_of(getattr(model, f"{tower}_model").encoder)
    hidden = torch.randn(batch, length, config.hidden_size, device=settings.device, dtype=torch.bfloat16)
    yield BARE, lambda: bare_encoder(hidden, layers, config.num_attention_heads)


def siglip_call(tower: str, length: int, batch: int, size: str, settings: Settings) -> Call:
    """Return the same of SigLIP 2, all patches of whose images count, too."""
    siglip = siglip_model(tower, size, settings)
    if tower == "text":
        ids = text_inputs(batch, length, config_of(size, settings), settings)
        return lambda: siglip(ids)
    images = image_inputs(batch, length, settings, torch.bfloat16)
    return lambda: siglip(images["pixel_values"], None, images["spatial_shapes"])


def all_calls(size: str, mode: str, settings: Settings) -> Iterator[Timed]:
    """Give all that a mode has, the models one after another, SigLIP 2 behind ours."""
    for tower, length in LENGTHS:
        batch = settings.pick(TOKENS_AT_ONCE // length, 2)
        for name, call in our_calls(tower, length, batch, size, settings):
            if is_measured(mode, size, name, tower, length):
                yield Timed(name, tower, length, batch, call)
    for tower, length in LENGTHS[:-1]:  # SigLIP 2 has no long texts
        if is_measured(mode, size, SIGLIP, tower, length):
            batch = settings.pick(TOKENS_AT_ONCE // length, 2)
            yield Timed(SIGLIP, tower, length, batch, siglip_call(tower, length, batch, size, settings))


def is_measured(mode: str, size: str, name: str, tower: str, length: int) -> bool:
    """Tell which rows there are: all that is not compiled, and as much of the rest as the time of a part allows."""
    if mode == "eager":
        return True
    if name == OURS:
        return size == "base" or (tower, length) != LENGTHS[-1]
    return length in (PATCHES[0], TOKENS[0]) and (size == "base" or (name, tower) == (BARE, "vision"))


def cases(size: str, settings: Settings) -> Iterator[Case]:
    """Give the matrix peak, then all that is not compiled, then what is: each compilation takes long."""
    peak = cache(partial(matrix_peak, settings))  # also for a run that goes on behind its case
    labels = {"kind": "matrices", "batch": 1, "length": settings.pick(8192, 64), "model": "torch.mm", "mode": "eager"}
    yield Case(labels, lambda: {"tera": peak() / 1e12, "share": 1.0})
    for mode in ("eager", "compiled"):
        for name, tower, length, batch, call in all_calls(size, mode, settings):
            operations = encoder_operations(getattr(config_of(size, settings), f"{tower}_config"), length)
            is_target = (size, tower, length, name, mode) == ("base", "vision", PATCHES[0], OURS, "compiled")
            kind = "images" if tower == "vision" else "texts"
            labels = {"kind": kind, "batch": batch, "length": length, "model": name, "mode": mode}
            arguments = (call, mode == "compiled", batch, operations, peak(), TARGET if is_target else None)
            yield Case(labels, partial(measure, *arguments, settings))
            release_memory()


def part_of(size: str) -> Part:
    """Return the part of a size."""
    return Part(
        Words(f"Speed, {size}", f"速度，{size}"),
        EXPLANATION if size == "base" else Words("As for base.", "同 base。"),
        (
            Column("kind", Words("inputs", "输入")),
            Column("batch", Words("batch", "批大小"), ",d"),
            Column("length", Words("patches or tokens", "图块或 token 数"), ",d"),
            Column("model", Words("model", "模型")),
            Column("mode", Words("mode", "模式")),
            Column("rate", Words("per second", "每秒数量"), ",.0f"),
            Column("tera", Words("operations, 10^12 per second", "运算量，每秒 10^12"), ",.0f"),
            Column("share", Words("share of the peak", "占峰值的比例"), ".1%"),
            Column("target", Words("target", "目标"), ".0%"),
            Column("held", Words("held", "满足")),
        ),
        partial(cases, size),
    )


BASE, LARGE, SO400M = map(part_of, ("base", "large", "so400m"))
