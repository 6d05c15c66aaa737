"""Compiled models: how long compiling takes, how many graphs it makes, and whether results stay the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor.utils import fresh_inductor_cache

from fgclip2 import FGClip2Model
from fgclip2.training import FGClip2ForTraining, FGClip2Objective

from ...perf.training import random_batch
from ..models import TINY_VOCABULARY, image_inputs, random_model, text_inputs
from ..records import Case, Column, Part, Settings, Words
from ..timing import seconds_of, synchronize

BOUND = 0.999
LOSS_BOUND = 0.01
BATCHES = (64, 48, 7)
PATCHES = (256, 576, 1024)

Inputs = list[dict[str, Tensor]]


def one_shape(model: FGClip2Model, settings: Settings) -> Inputs:
    """Return one batch of images."""
    return [image_inputs(settings.pick(BATCHES, (3, 2))[0], PATCHES[0], settings, torch.bfloat16)]


def batch_sizes(model: FGClip2Model, settings: Settings) -> Inputs:
    """Return batches of several sizes."""
    return [image_inputs(batch, PATCHES[0], settings, torch.bfloat16) for batch in settings.pick(BATCHES, (3, 2))]


def patch_counts(model: FGClip2Model, settings: Settings) -> Inputs:
    """Return batches whose images have several numbers of patches."""
    batch, counts = settings.pick((16, PATCHES), (3, (16, 36)))
    return [image_inputs(batch, patches, settings, torch.bfloat16) for patches in counts]


def captions(model: FGClip2Model, settings: Settings) -> Inputs:
    """Return one batch of short captions."""
    return [{"input_ids": text_inputs(settings.pick(256, 3), 64, model.config, settings)}]


# Name on the page -> inputs, and whether shapes are symbols from the first one on (`None`: from the second one on).
KINDS: dict[str, tuple[Callable[[FGClip2Model, Settings], Inputs], bool | None]] = {
    "images, one shape": (one_shape, False),
    "images, batch sizes": (batch_sizes, None),
    "images, numbers of patches": (patch_counts, True),
    "captions, one shape": (captions, False),
}


@fresh_inductor_cache()  # on disk and in this process: the first calls compile, whatever was compiled before
@torch.no_grad()
def compare(kind: str, settings: Settings) -> dict[str, Any]:
    """Compile base size as one graph, and compare its vectors with those of the eager mode."""
    torch._dynamo.reset()
    counters.clear()
    inputs_of, dynamic = KINDS[kind]
    model = random_model("base", settings, torch.bfloat16)
    function = model.get_text_features if kind.startswith("captions") else model.get_image_features
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend=settings.pick("inductor", "aot_eager"))
    inputs = inputs_of(model, settings)
    expected = [function(**batch) for batch in inputs]
    synchronize(settings.device)
    start = time.perf_counter()
    found = [compiled(**batch) for batch in inputs]
    synchronize(settings.device)
    seconds = time.perf_counter() - start
    pairs = zip(found, expected, strict=True)
    cosines = [F.cosine_similarity(ours.float(), its.float(), dim=-1) for ours, its in pairs]
    cosine = torch.cat(cosines).min().item()  # NaN, if there is one
    eager, fast = (seconds_of(partial(call, **inputs[0]), settings) for call in (function, compiled))
    return {
        "seconds": seconds,
        "graphs": counters["stats"]["unique_graphs"],
        "cosine": cosine,
        "bound": BOUND,
        "held": cosine >= BOUND,
        "speed": eager / fast,
    }


@fresh_inductor_cache()
def compare_step(settings: Settings) -> dict[str, Any]:
    """Compile the forward pass of a training step, which has graph breaks, and compare its loss and its speed."""
    torch._dynamo.reset()
    counters.clear()
    model = random_model("base", settings, model_class=FGClip2ForTraining).train()
    vocabulary = settings.pick(model.config.text_config.vocab_size, TINY_VOCABULARY)
    batch = {name: t.to(settings.device) for name, t in random_batch(settings.pick(32, 4), vocabulary).items()}
    objective = FGClip2Objective("released").to(settings.device)

    def step(forward: Callable[..., dict[str, Tensor]]) -> Tensor:
        model.zero_grad()
        objective.margin.zero_()  # which moves with each step
        with torch.autocast(settings.device.type, torch.bfloat16):
            loss = objective(forward(**batch), batch)["loss"]
        loss.backward()
        return loss.detach()

    expected = step(model).item()
    compiled = torch.compile(model, backend=settings.pick("inductor", "aot_eager"))
    synchronize(settings.device)
    start = time.perf_counter()
    found = step(compiled).item()
    seconds = time.perf_counter() - start
    difference = abs(found / expected - 1)
    eager, fast = (seconds_of(partial(step, call), settings) for call in (model, compiled))
    return {
        "seconds": seconds,
        "graphs": counters["stats"]["unique_graphs"],
        "difference": difference,
        "bound": LOSS_BOUND,
        "held": difference <= LOSS_BOUND,
        "speed": eager / fast,
    }


def cases(settings: Settings) -> Iterator[Case]:
    """Give inference by shapes, then a training step."""
    for kind in KINDS:
        yield Case({"what": kind}, partial(compare, kind, settings))
    yield Case({"what": "training step"}, partial(compare_step, settings))


PART = Part(
    Words("torch.compile", "torch.compile"),
    Words(
        "Base size with random weights in bf16, the training step in fp32 with autocast to bf16. The first calls "
        "compile; their seconds are of all shapes together. Results are compared with those of the eager mode: of "
        "vectors the lowest cosine, of the loss the relative difference.",
        "base 尺寸，bf16 的随机权重；训练步的权重为 fp32，用 autocast 以 bf16 计算。"
        "首次调用时编译，秒数是所有形状的总和。结果与 eager 模式比较：向量取最低余弦，损失取相对差值。",
    ),
    (
        Column("what", Words("what", "内容")),
        Column("seconds", Words("first calls, s", "首次调用，秒"), ".1f"),
        Column("graphs", Words("graphs", "图的数量"), "d"),
        Column("cosine", Words("lowest cosine", "最低余弦"), ".6f"),
        Column("difference", Words("difference of the loss", "损失的差值"), ".1e"),
        Column("bound", Words("bound", "界限"), "g"),
        Column("held", Words("held", "满足")),
        Column("speed", Words("eager / compiled, time", "eager / 编译后，时间"), ".2f"),
    ),
    cases,
)
