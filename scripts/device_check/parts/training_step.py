"""The step of the full objective: its speed, and its peak beside what the plan of a run says."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import cycle, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgclip2 import FGClip2Processor, FGClip2TrainingArguments, embedded_checkpoint
from fgclip2.data.readers.finehard import item_of_record
from fgclip2.data.records import Record
from fgclip2.training import FGClip2ForTraining, FGClip2Objective
from fgclip2.training.collator import FGClip2Collator
from fgclip2.training.parameters import freeze
from fgclip2.training.pixel_values import normalize_pixels
from fgclip2.training.plan import plan_run
from fgclip2.training.sampler import DrawnRecord
from fgclip2.training.settings import DataSettings, ModelSettings, RunSettings

from ...perf.loader import published_records
from ...perf.training import BOX_COUNTS
from ..models import config_of, random_model
from ..records import Case, Column, Part, Settings, Words, run_case
from ..timing import memory_of, seconds_of

SIZES, IMAGES, PATCHES = ("base", "large"), (8, 32), (256, 1024)
BOUND = 0.1  # of the plan's relative error
RECORDS = "records.json"


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

    def on_batch(self, batch: Mapping[str, Any]) -> None:
        """Take a step on a batch of the collator, which is on the host."""
        tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        self(normalize_pixels({name: tensor.to(self.device, non_blocking=True) for name, tensor in tensors.items()}))

    def __call__(self, batch: Mapping[str, Tensor]) -> None:
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.objective(self.model(**batch), batch)["loss"]
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def write_records(folder: Path, images: int) -> list[Record]:
    """Write records as published, but with 1 to 4 boxes, every third of them with hard negatives, into a folder."""
    records, number = [], 0
    for record, count in zip(published_records(folder, images), cycle(BOX_COUNTS), strict=False):
        regions = []
        for region in record.regions[:count]:
            regions.append(region if number % 3 == 0 else replace(region, hard_negatives=()))
            number += 1
        records.append(replace(record, regions=tuple(regions)))
    items = [{**item_of_record(record), "f_path": Path(str(record.image)).name} for record in records]
    (folder / RECORDS).write_text(json.dumps(items, ensure_ascii=False), encoding="utf-8")
    return records


def planned(model: Path, records: Path, images: int, patches: int, checkpointing: bool, settings: Settings) -> float:
    """Return the bytes of a step that `fgclip2 train --dry-run` shows for these records in bf16."""
    arguments = FGClip2TrainingArguments(
        str(model / "run"),
        per_device_train_batch_size=images,
        max_num_patches=str(patches),
        gradient_checkpointing=checkpointing,
        bf16=True,
        use_cpu=settings.device.type == "cpu",
        language_batches="mixed",
        text_chunk_size=0,  # as the step here, which does not look at the device's memory
        report_to="none",
    )
    data = DataSettings([str(records / RECORDS)], data_format=["finehard"], images_folder=[str(records)])
    return plan_run(RunSettings(ModelSettings(str(model)), data, arguments), world_size=1)["memory"]["total"]


def measure(size: str, images: int, patches: int, checkpointing: bool, settings: Settings) -> dict[str, Any]:
    """Plan a step, and measure one on the same records. The plan stays where the step does not fit the device."""
    images, patches = settings.pick((images, patches), (4, 16))
    processor = FGClip2Processor.from_pretrained(embedded_checkpoint())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = write_records(folder, images)
        config_of(size, settings).save_pretrained(folder / "model")
        processor.save_pretrained(folder / "model")
        plan = planned(folder / "model", folder, images, patches, checkpointing, settings)
        batch = FGClip2Collator(processor, max_num_patches=patches)([DrawnRecord(record, 0) for record in records])
    step_of_plan = partial(measure_step, size, checkpointing, batch, plan, settings)
    return run_case(Case({"plan": plan / 1e9}, step_of_plan))


def measure_step(
    size: str, checkpointing: bool, batch: Mapping[str, Any], plan: float, settings: Settings
) -> dict[str, Any]:
    """Measure a step, after one that made the state of the optimizer."""
    step = Step(size, checkpointing, settings)
    call = partial(step.on_batch, batch)
    call()
    _, peak = memory_of(call, settings.device)
    error = plan / peak - 1
    return {
        "rate": len(batch["spatial_shapes"]) / seconds_of(call, settings),
        "peak": peak / 1e9,
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
        "`fgclip2 train --dry-run` for the same records.",
        "发布时的完整目标，权重为 fp32，用 autocast 以 bf16 计算，AdamW，单进程；"
        "每张图像有一条短描述、一条长描述和 1 到 4 个框，其中三分之一的框有十个难负例。"
        "峰值是 torch 在一步中分配的显存，含权重和优化器状态。计划值是 `fgclip2 train --dry-run` 对同样的记录给出的。",
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
