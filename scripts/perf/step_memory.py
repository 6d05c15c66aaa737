"""Memory of one full-objective training step: the plan beside what is measured.

    python -m scripts.perf.step_memory --work perf_output/step_memory --output docs/training_memory.md

Takes half an hour to an hour on one core, by what else the machine does. What is measured stays in `--work`, and a
second call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from fgclip2 import FGClip2Config
from fgclip2.training import FGClip2ForTraining
from fgclip2.training.estimates import StepContents
from fgclip2.training.memory import Gradients, step_memory
from fgclip2.training.objective import FGClip2Objective
from fgclip2.training.parameters import freeze
from fgclip2.training.pixel_values import normalize_pixels
from fgclip2.training.tasks.rows import set_text_chunk_size

from .measuring import added_peak_memory, in_fresh_process
from .training import our_step, random_batch, random_model

# What is freed goes back to the system at once; glibc would keep it, and the peak would count it.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "262144"}
BOUND = 0.1  # of the difference between the plan and what is measured
GIB = 2**30

EXPLANATION = """\
Made by `python -m scripts.perf.step_memory --work perf_output/step_memory --output docs/training_memory.md`.

Random weights, CPU, float32, published widths and vocabulary. For each image a batch has a short and a long caption and
1 to 4 boxes, 2.5 on average, of which a third has ten hard negatives. *Measured* is the peak of one step of the full
objective, forward and backward with gradients, above what a fresh process holds with the model and the batch loaded.
*Plan* is what `fgclip2 train --dry-run` calculates for the same. Where a size doesn't fit this machine, or would take
hours, its towers have fewer layers, which the table says; where there are two depths, each further layer adds what the
plan says. Plan and measurement differ by {worst} at most; the command fails above 10%."""

EXPLANATION_ZH = """\
由 `python -m scripts.perf.step_memory --work perf_output/step_memory --output docs/training_memory.md` 生成。

随机权重，CPU，float32，宽度和词表大小与公布的模型相同。每张图像有一条短描述、一条长描述和 1 至 4 个框
（平均 2.5 个），其中三分之一的框有十条难负例文本。“实测”是完整目标的一步（前向和反向，含梯度）的内存峰值，
减去新进程在载入模型和批次之后已占用的内存。“计划”是 `fgclip2 train --dry-run` 对同样内容的计算结果。
如果某个规模在这台机器上放不下，或耗时太长，就减少两个塔的层数，表中注明；同时有两种层数时，
可以看出每增加一层所增加的内存与计划一致。计划与实测最多相差 {worst}；超过 10% 时该命令失败。"""


@dataclass(frozen=True)
class Case:
    """One row: a size with so many layers in each tower."""

    size: str
    images: int
    patches: int
    checkpointing: bool
    layers: int
    text_chunk_size: int = 0

    @property
    def config(self) -> FGClip2Config:
        config = FGClip2Config.from_preset(self.size)
        for tower in (config.text_config, config.vision_config):
            tower.num_hidden_layers = self.layers
        return config


# By size, images and patches: depths without and with gradient checkpointing.
DEPTHS: dict[tuple[str, int, int], tuple[tuple[int, ...], tuple[int, ...]]] = {
    ("base", 8, 256): ((12,), (12,)),
    ("base", 8, 1024): ((4, 12), (12,)),
    ("base", 32, 256): ((2, 4), (2, 4)),
    ("base", 32, 1024): ((1,), (1,)),
    ("large", 8, 256): ((4, 8), (4, 8)),
    ("large", 8, 1024): ((2,), (2,)),
    ("large", 32, 256): ((1,), (1,)),
    ("large", 32, 1024): ((1,), (1,)),
}


def cases() -> Iterator[Case]:
    """Yield the rows, in the order of the table."""
    for (size, images, patches), by_mode in DEPTHS.items():
        for checkpointing, depths in zip((False, True), by_mode, strict=True):
            for layers in depths:
                yield Case(size, images, patches, checkpointing, layers)
    for checkpointing in (False, True):
        yield Case("base", 32, 256, checkpointing, 2, text_chunk_size=64)


# ---------------------------------------------------------------------------------------------------------------------
# A case, planned and measured
# ---------------------------------------------------------------------------------------------------------------------


def planned(case: Case) -> float:
    """Bytes that a step takes by the plan, above what holds weights and batch."""
    config, objective = case.config, FGClip2Objective("released")
    with torch.device("meta"):
        model = FGClip2ForTraining(config)
    freeze(model, model.unused_parameters(objective.settings))
    contents = contents_of(random_batch(case.images, 1000, case.patches))
    activations = model.activation_memory(
        config, contents, checkpointing=case.checkpointing, text_chunk_size=case.text_chunk_size
    )
    similarity = model.task.exchange_memory(model, objective.settings, contents, 1)
    return step_memory(activations, Gradients.of(model), similarity, text_in_chunks=bool(case.text_chunk_size))


def contents_of(batch: dict[str, torch.Tensor]) -> StepContents:
    """Count what a batch holds."""
    images, regions, hard = (len(batch[name]) for name in ("pixel_values", "region_input_ids", "hard_input_ids"))
    return StepContents(
        images=images,
        patches=batch["pixel_values"].shape[1],
        short_texts=images + regions + hard * batch["hard_input_ids"].shape[1],
        captions=images,
        long_texts=images,
        regions=regions,
    )


def measured(case: Case) -> int:
    """Bytes by which one step's peak is above what this process holds with the model and the batch."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config, objective = case.config, FGClip2Objective("released")
    model = FGClip2ForTraining(config).train()
    freeze(model, model.unused_parameters(objective.settings))
    if case.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    set_text_chunk_size(model, case.text_chunk_size)
    batch = random_batch(case.images, config.text_config.vocab_size, case.patches)
    values = batch.pop("pixel_values")
    batch |= {"pixels": (values.clamp(0, 1) * 255).byte(), "value_table": torch.linspace(-1, 1, 256).expand(3, -1)}
    del values
    small = random_batch(4, 500)
    our_step(random_model(64, 1, 500), small)  # loads what the first step of a process loads
    return added_peak_memory(lambda: our_step(model, normalize_pixels(batch)))


def measure_all(work: Path) -> Iterator[tuple[Case, int]]:
    """Yield each case with its measured bytes, which are kept in the folder."""
    work.mkdir(parents=True, exist_ok=True)
    os.environ.update(ALLOCATOR)  # for the processes that are started
    for case in cases():
        file = work / f"{'_'.join(map(str, asdict(case).values()))}.json"
        if not file.is_file():
            file.write_text(json.dumps(in_fresh_process(measured, case)), encoding="utf-8")
        yield case, json.loads(file.read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------------------------------


def table(rows: list[tuple[Case, int, float]], headings: tuple[str, ...], words: dict[str, str]) -> list[str]:
    """Return lines of Markdown: each case with its measured bytes and those of the plan."""
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for case, bytes_measured, bytes_planned in rows:
        depth = FGClip2Config.from_preset(case.size).vision_config.num_hidden_layers
        layers = str(depth) if case.layers == depth else words["depth"].format(case.layers, depth)
        cells = (
            case.size,
            case.images,
            f"{case.patches:,}",
            words["yes" if case.checkpointing else "no"],
            case.text_chunk_size or words["all"],
            layers,
            f"{bytes_measured / GIB:.2f}",
            f"{bytes_planned / GIB:.2f}",
            f"{bytes_planned / bytes_measured:.3f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def whole_sizes(headings: tuple[str, ...], words: dict[str, str]) -> list[str]:
    """Return lines of Markdown: the plan of whole models, for sizes that were measured with fewer layers."""
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for size, images, patches in DEPTHS:
        depth = FGClip2Config.from_preset(size).vision_config.num_hidden_layers
        plans = [planned(Case(size, images, patches, checkpointing, depth)) / GIB for checkpointing in (False, True)]
        lines.append(f"| {size} | {images} | {patches:,} | {plans[0]:.2f} | {plans[1]:.2f} |")
    return lines


def _cells(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


PAGES: dict[str, dict[str, Any]] = {
    "": {
        "title": "# Memory of a training step: the plan and measurements",
        "other": "[中文](training_memory_zh.md) · How to fit a step: [Large batches](training.md#large-batches)",
        "text": EXPLANATION,
        "headings": (
            "model",
            "images",
            "patches",
            "checkpointing",
            "texts at once",
            "layers",
            "measured, GiB",
            "plan, GiB",
            "plan / measured",
        ),
        "words": {"yes": "yes", "no": "no", "all": "all", "depth": "{} of {}"},
        "whole": "## Whole models by the plan",
        "whole headings": _cells("model, images, patches, plain GiB, checkpointing GiB"),
    },
    "_zh": {
        "title": "# 训练一步所需的内存：计划与实测",
        "other": "[English](training_memory.md) · 如何放得下：[大批量](training_zh.md#大批量)",
        "text": EXPLANATION_ZH,
        "headings": (
            "模型",
            "图像数",
            "图像块数",
            "梯度检查点",
            "同时编码的文本数",
            "层数",
            "实测（GiB）",
            "计划（GiB）",
            "计划 / 实测",
        ),
        "words": {"yes": "是", "no": "否", "all": "全部", "depth": "{}（全部 {} 层）"},
        "whole": "## 完整模型的计划",
        "whole headings": _cells("模型, 图像数, 图像块数, 普通 GiB, 梯度检查点 GiB"),
    },
}


def page(rows: list[tuple[Case, int, float]], language: str) -> str:
    """Return the page in Markdown."""
    its = PAGES[language]
    worst = max(abs(bytes_planned / bytes_measured - 1) for _, bytes_measured, bytes_planned in rows)
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__}"
    lines = [its["title"], "", its["other"], "", its["text"].format(worst=f"{100 * worst:.1f}%"), "", machine, ""]
    lines += table(rows, its["headings"], its["words"])
    lines += ["", its["whole"], "", *whole_sizes(its["whole headings"], its["words"])]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is measured")
    parser.add_argument("--output", type=Path, required=True, help="page in Markdown; the Chinese one goes beside it")
    arguments = parser.parse_args()
    rows = []
    for case, bytes_measured in measure_all(arguments.work):
        rows.append((case, bytes_measured, planned(case)))
        print(*table(rows[-1:], ("",), PAGES[""]["words"])[2:], flush=True)
    for language in PAGES:
        file = arguments.output.with_stem(arguments.output.stem + language)
        file.write_text(page(rows, language), encoding="utf-8")
    return int(any(abs(bytes_planned / bytes_measured - 1) > BOUND for _, bytes_measured, bytes_planned in rows))


if __name__ == "__main__":
    sys.exit(main())
