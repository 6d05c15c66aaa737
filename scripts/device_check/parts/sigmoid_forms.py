"""The sigmoid loss of images and captions by its forms, at as many pairs as a device may have to hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip2.training.losses.sigmoid_over_ranks import SIGMOID_FORMS, sigmoid_loss_over_ranks

from ..records import Case, Column, Part, Settings, Words, release_memory
from ..timing import memory_of, seconds_of

PAIRS = (8_192, 16_384, 32_768, 65_536)
WIDTH = 768
KERNEL = "siglip-kernel"
BOUND = 0.01  # of the relative difference of losses; the kernel rounds to bfloat16

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def loss_of(form: str, pairs: int) -> Loss:
    """Return the loss in a form, on one process."""
    if form == KERNEL:
        from siglip_kernel import fused_siglip_loss

        return fused_siglip_loss
    return lambda *inputs: sigmoid_loss_over_ranks(*inputs, counts=[pairs], form=form)  # type: ignore[arg-type]


def inputs_of(pairs: int, form: str, settings: Settings) -> list[Tensor]:
    """Return embeddings, scale and bias, which take gradients. The kernel's embeddings are bfloat16."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if form == KERNEL else torch.float32
    embeddings = (torch.randn(pairs, settings.pick(WIDTH, 16), device=settings.device) for _ in range(2))
    scale, bias = (torch.tensor([value], device=settings.device) for value in (2.3, -10.0))
    if form == KERNEL:
        scale, bias = scale.squeeze(), bias.squeeze()
    inputs = [*(F.normalize(rows, dim=-1).to(dtype) for rows in embeddings), scale, bias]
    return [tensor.requires_grad_() for tensor in inputs]


def measure(form: str, pairs: int, settings: Settings) -> dict[str, Any]:
    """Measure forward and backward pass of the loss alone, and compare the values of fewer pairs."""
    seconds, added = measure_step(form, pairs, settings)
    release_memory()
    difference = compare(form, settings)
    return {
        "seconds": seconds,
        "memory": added / 1e9,
        "difference": difference,
        "bound": BOUND,
        "held": difference <= BOUND,
    }


def measure_step(form: str, pairs: int, settings: Settings) -> tuple[float, int]:
    """Return seconds and added bytes of the forward and the backward pass."""
    inputs, loss = inputs_of(pairs, form, settings), loss_of(form, pairs)

    def forget_gradients() -> None:
        for tensor in inputs:
            tensor.grad = None

    def step() -> None:
        forget_gradients()
        loss(*inputs).sum().backward()

    step()  # kernels are chosen, their workspaces made
    forget_gradients()  # else those that are there would make up for those that come
    added, _ = memory_of(step, settings.device)
    return seconds_of(step, settings), added


@torch.no_grad()
def compare(form: str, settings: Settings) -> float:
    """Return the relative difference of a form's loss to that of the form "gather", of few pairs."""
    pairs = settings.pick(1024, 16)
    values = [loss_of(its, pairs)(*inputs_of(pairs, its, settings)).item() for its in (form, "gather")]
    return abs(values[0] / values[1] - 1)


def cases(settings: Settings) -> Iterator[Case]:
    """Give all forms by numbers of pairs, few first."""
    for pairs in settings.pick(PAIRS, (32, 64)):
        for form in (*SIGMOID_FORMS, KERNEL):
            yield Case({"pairs": pairs, "form": form}, partial(measure, form, pairs, settings))


PART = Part(
    Words("Sigmoid loss", "sigmoid 损失"),
    Words(
        f"Forward and backward pass of the loss alone, embeddings of {WIDTH} values. On one process `ring` holds one "
        "block of logits, of all pairs: what it saves, it saves over ranks. `siglip-kernel` is a package of others, "
        "with embeddings in bf16. The difference is that of the loss of 1,024 pairs to the form `gather`.",
        f"只含损失的前向和反向，嵌入长度为 {WIDTH}。单进程时 `ring` 持有一整块 logits，即全部的对："
        "它节省的是跨进程的部分。`siglip-kernel` 是他人的软件包，嵌入为 bf16。"
        "差值是 1,024 对时与 `gather` 形式的损失相比。",
    ),
    (
        Column("pairs", Words("pairs", "对数"), ",d"),
        Column("form", Words("form", "形式")),
        Column("seconds", Words("seconds", "秒"), ".4f"),
        Column("memory", Words("added memory, GB", "增加的显存，GB"), ".2f"),
        Column("difference", Words("difference", "差值"), ".1e"),
        Column("bound", Words("bound", "上限"), "g"),
        Column("held", Words("held", "满足")),
    ),
    cases,
)
