"""The step of the full objective: its speed, and its peak beside what the plan of a run says."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from fgclip2.training import FGClip2ForTraining, FGClip2Objective, estimates
from fgclip2.training.parameters import count_parameters, freeze

from ...perf.training import random_batch
from ..models import random_model
from ..records import Case, Column, Part, Settings, Words, release_memory
from ..timing import memory_of, seconds_of

SIZES, IMAGES, PATCHES = ("base", "large"), (8, 32), (256, 1024)
BOUND = 0.1  # of the plan's relative error


class Step:
    """Forward and backward pass and the optimizer, as the trainer does them in bf16.

    Args:
        size: Name of a preset.
        checkpointing: Use gradient checkpointing.
        settings: Of the run.
    """

    def __init__(self, size: str, checkpointing: bool, settings: Settings):
        self.device = settings.device
        self.model = random_model(size, settings, model_class=FGClip2ForTraining).train()
        self.objective = FGClip2Objective("released").to(self.device)
        freeze(self.model, self.model.unused_parameters(self.objective.settings))
        if checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True)

    def __call__(self, batch: dict[str, Tensor]) -> None:
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.objective(self.model(**batch), batch)["loss"]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def batch_on(settings: Settings, images: int, patches: int, vocabulary: int) -> dict[str, Tensor]:
    """Return a batch like those of the collator on the device, whose images fill its patches."""
    batch = random_batch(images, vocabulary, patches)
    larger = (patches // 256) ** 0.5  # its grids are of 256 patches
    batch["spatial_shapes"] = (batch["spatial_shapes"] * larger).long()
    filled = batch["spatial_shapes"].prod(1)[:, None]
    batch["pixel_attention_mask"] = (torch.arange(patches) < filled).int()
    return {name: tensor.to(settings.device) for name, tensor in batch.items()}


def contents_of(batch: dict[str, Tensor]) -> estimates.StepContents:
    """Return what the plan has to know of a batch."""
    images, patches, _ = batch["pixel_values"].shape
    hard_texts = batch["hard_input_ids"].shape[:2].numel()
    return estimates.StepContents(
        images=images,
        patches=patches,
        short_texts=len(batch["short_input_ids"]) + len(batch["region_input_ids"]) + hard_texts,
        captions=len(batch["short_input_ids"]),
        long_texts=len(batch["long_input_ids"]),
        regions=len(batch["region_index"]),
    )


def planned(step: Step, contents: estimates.StepContents, checkpointing: bool) -> float:
    """Return the bytes of a step on one process, as the plan of a run in bf16 has them."""
    model = step.model
    state = estimates.state_memory(count_parameters(model)["total"], mixed=True)
    activations = model.activation_memory(model.config, contents, mixed=True, checkpointing=checkpointing)
    similarity = model.task.exchange_memory(model, step.objective.settings, contents, 1)
    return sum(state.values()) + sum(activations.values()) + similarity


def measure(size: str, images: int, patches: int, checkpointing: bool, settings: Settings) -> dict[str, Any]:
    """Measure a step after one that made the state of the optimizer."""
    step = Step(size, checkpointing, settings)
    vocabulary = step.model.config.text_config.vocab_size
    batch = batch_on(settings, settings.pick(images, 4), settings.pick(patches, 256), vocabulary)
    step(batch)
    _, peak = memory_of(partial(step, batch), settings.device)
    seconds = seconds_of(partial(step, batch), settings)
    plan = planned(step, contents_of(batch), checkpointing)
    del step
    release_memory()
    error = plan / peak - 1
    return {
        "rate": len(batch["pixel_values"]) / seconds,
        "peak": peak / 1e9,
        "plan": plan / 1e9,
        "error": error,
        "bound": BOUND,
        "held": abs(error) <= BOUND,
    }


def cases(settings: Settings) -> Iterator[Case]:
    """Give all shapes, with and without gradient checkpointing."""
    shapes = list(product(SIZES, IMAGES, PATCHES, (False, True)))
    for size, images, patches, checkpointing in settings.pick(shapes, shapes[:2]):
        labels = {"size": size, "images": images, "patches": patches, "checkpointing": checkpointing}
        yield Case(labels, partial(measure, size, images, patches, checkpointing, settings))


PART = Part(
    Words("Training step", "训练步"),
    Words(
        "The full objective as released, weights in fp32, autocast to bf16, AdamW, one process; for each image a short "
        "and a long caption and 1 to 4 boxes, a third of them with ten hard negatives. The peak is what torch has "
        "allocated in a step, weights and state of the optimizer included. The plan is that of "
        "`fgclip2 train --dry-run` for the same batch.",
        "发布时的完整目标，权重为 fp32，用 autocast 以 bf16 计算，AdamW，单进程；"
        "每张图像有一条短描述、一条长描述和 1 到 4 个框，其中三分之一的框有十个难负例。"
        "峰值是 torch 在一步中分配的显存，含权重和优化器状态。计划值是 `fgclip2 train --dry-run` 对同一批次给出的。",
    ),
    (
        Column("size", Words("size", "尺寸")),
        Column("images", Words("images", "图像数"), "d"),
        Column("patches", Words("patches", "图块数"), ",d"),
        Column("checkpointing", Words("checkpointing", "梯度检查点")),
        Column("rate", Words("images per second", "每秒图像数"), ",.1f"),
        Column("peak", Words("peak, GB", "峰值，GB"), ".1f"),
        Column("plan", Words("plan, GB", "计划，GB"), ".1f"),
        Column("error", Words("plan / peak - 1", "计划 / 峰值 - 1"), "+.1%"),
        Column("bound", Words("bound", "上限"), ".0%"),
        Column("held", Words("held", "满足")),
    ),
    cases,
)
