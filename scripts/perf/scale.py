"""Both stages on 8 to 4,096 devices by arithmetic, and the same arithmetic against 1 to 4 processes of this machine.

python -m scripts.perf.scale --output docs/scale.md
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from fgclip2 import FGClip2Config
from fgclip2.distributed import world_size
from fgclip2.training import FGClip2ForTraining, FGClip2TrainingArguments, estimates
from fgclip2.training.estimates import DataSummary, StepContents
from fgclip2.training.memory import StepPlan
from fgclip2.training.objective import FGClip2Objective, ObjectiveSettings
from fgclip2.training.parameters import count_parameters, freeze
from fgclip2.training.scale import Machine, StepTime, Work, step_operations, step_time

from .measuring import on_ranks
from .step_memory import contents_of
from .training import random_batch, random_model

GIB = 2**30
DEVICES = (8, 64, 512, 4096)
BOUND = 0.2  # of the difference between prediction and measurement


# ---------------------------------------------------------------------------------------------------------------------
# Assumptions
# ---------------------------------------------------------------------------------------------------------------------

OPERATIONS = 400e12  # a second: 40% of the 989e12 in bfloat16 that a device of the H100 kind is sold with
MEMORY = 79.0  # GiB
NODE = 8  # devices
INSIDE, BETWEEN = 300e9, 40e9  # bytes a second that a device sends: within its node, and to another
LATENCY = 10e-6  # seconds
OVERLAP = 0.5  # of the computation, gradients can be sent behind: the backward pass, without its first layers
CORES = 12  # of the host, for each device
IMAGES_PER_CORE = 139  # a second, 1,024 patches: docs/performance.md
STRATEGIES = ("ddp", "zero2", "fsdp")
LIMITS = {"memory": 0.9, "exchange": 0.3, "loader": 1.0, "duration": 30.0}  # shares; days


@dataclass(frozen=True)
class Stage:
    """A published stage: its batch is the same on any number of devices.

    Attributes:
        batch: Images of all devices in a step.
        pairs: Of the whole run.
        data: What a record holds.
        settings: Of the objective.
        chunk: Images of the gradient cache.
    """

    batch: int
    pairs: float
    data: DataSummary
    settings: ObjectiveSettings
    chunk: int = 64


STAGES = {
    1: Stage(
        batch=61_440,
        pairs=2.45e9,
        data=DataSummary(1, max_patches=1024),
        settings=FGClip2Objective(
            "paper", region_weight=0.0, tic_weight=0.0, hard_negative_weight=0.0, sigmoid_form="ring"
        ).settings,
    ),
    2: Stage(
        batch=4096,
        pairs=24e6,
        data=DataSummary(1, regions=40 / 12, hard_regions=10 / 12, max_patches=1024),
        settings=FGClip2Objective("paper", sigmoid_form="ring").settings,
    ),
}


@dataclass(frozen=True)
class Prediction:
    """What a stage takes on so many devices."""

    images: float  # of a device in a step
    cached: bool
    time: StepTime
    memory: dict[str, float]  # by strategy, bytes
    sent: dict[str, float]  # bytes in a step
    loader: float  # share of the host's cores
    days: float

    @property
    def use(self) -> dict[str, float]:
        """How much of each limit is used; above 1 it breaks."""
        shares = {
            "memory": self.memory["ddp"] / (MEMORY * GIB),
            "exchange": self.time.waiting,
            "loader": self.loader,
            "duration": self.days,
        }
        return {name: share / LIMITS[name] for name, share in shares.items()}


def predict(stage: Stage, devices: int, size: str = "base") -> Prediction:
    """Predict a stage on so many devices, by DDP with gradient checkpointing and, from two chunks on, the cache."""
    config = FGClip2Config.from_preset(size)
    with torch.device("meta"):
        model = FGClip2ForTraining(config)
    freeze(model, model.unused_parameters(stage.settings))
    count = count_parameters(model)["total"]
    images = stage.batch / devices
    contents = StepContents.expected(images, stage.data, stage.settings, 10)  # type: ignore[arg-type]  # on average
    cached = images > stage.chunk
    chunk = stage.chunk if cached else None
    plans = {
        strategy: StepPlan(_arguments(strategy, chunk), model, config, stage.settings, contents, devices)
        for strategy in STRATEGIES
    }
    sent = {
        "gradients": estimates.gradient_traffic(count, "ddp", devices),
        "sharded": estimates.gradient_traffic(count, "fsdp", devices, mixed=True),
        "texts": estimates.embedding_traffic(model.embedding_size, contents, devices, stage.settings.sigmoid_form),
    }
    work = Work(
        step_operations(config, contents, devices, checkpointing=True, cached=cached, ring=True),
        gradient_bytes=sent["gradients"],
        text_bytes=sent["texts"],
        gradient_messages=2 * (devices - 1),
        text_messages=2 * (3 * devices - 2),  # of short and of long texts
    )
    # With the cache gradients are sent behind the last chunk alone.
    overlap = OVERLAP * (stage.chunk / images if cached else 1.0)
    machine = Machine(OPERATIONS, INSIDE if devices <= NODE else BETWEEN, LATENCY, overlap=overlap)
    seconds = step_time(work, machine, devices)
    return Prediction(
        images=images,
        cached=cached,
        time=seconds,
        memory={strategy: plan.at_most(0) for strategy, plan in plans.items()},
        sent=sent,
        loader=images / seconds.total / (CORES * IMAGES_PER_CORE),
        days=stage.pairs / stage.batch * seconds.total / 86_400,
    )


def _arguments(strategy: str, chunk: int | None) -> FGClip2TrainingArguments:
    args = FGClip2TrainingArguments(
        "unused",
        use_cpu=True,
        report_to=[],
        bf16=True,
        gradient_checkpointing=True,
        gradient_cache_chunk_size=chunk,
    )
    # Not passed above, where transformers would set up FSDP and ask for the package of DeepSpeed.
    args.deepspeed = "zero2" if strategy == "zero2" else None
    args.fsdp = strategy == "fsdp"
    return args


# ---------------------------------------------------------------------------------------------------------------------
# This machine
# ---------------------------------------------------------------------------------------------------------------------

SHAPE = {"width": 128, "layers": 4, "vocabulary": 4_000}
IMAGES = 4  # of each process in a step that is predicted
CALIBRATION = (2, 8)  # images of the steps by which operations and overhead are measured
PROCESSES = (1, 2, 3, 4)


def step_seconds(images: int, runs: int = 3) -> float:
    """CPU seconds that a step takes this process, the least of some: what else runs can only add to it."""
    model: Any = random_model(**SHAPE)
    freeze(model, model.unused_parameters(FGClip2Objective("released").settings))
    batch, objective = random_batch(images, SHAPE["vocabulary"]), FGClip2Objective("released")
    if world_size() > 1:
        model = DistributedDataParallel(model)

    def step() -> None:
        model.zero_grad()
        objective(model(**batch), batch)["loss"].backward()

    return _least_cpu_seconds(step, runs)


def exchange_seconds(values: int, runs: int = 8) -> float:
    """CPU seconds that summing so many float32 values over the ranks takes this process."""
    tensor = torch.ones(values)
    return _least_cpu_seconds(lambda: dist.all_reduce(tensor), runs)


def _least_cpu_seconds(function: Callable[[], object], runs: int) -> float:
    function()
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


def this_machine() -> Machine:
    """Measure the constants of one core: from steps of one process of two sizes, and two sums over two processes."""
    operations = [step_operations(*_work_of(images), 1) for images in CALIBRATION]
    seconds = [on_ranks(step_seconds, 1, images)[0] for images in CALIBRATION]
    rate = (operations[1] - operations[0]) / (seconds[1] - seconds[0])
    overhead = max(0.0, seconds[0] - operations[0] / rate)
    few, many = 2**20, 2**24
    small, large = (sum(on_ranks(exchange_seconds, 2, values)) / 2 for values in (few, many))
    bandwidth = estimates.FLOAT32 * (many - few) / (large - small)  # of two processes, each sends as much as it has
    return Machine(rate, bandwidth, 0.0, at_once=1, overhead=overhead)


def _work_of(images: int) -> tuple[FGClip2Config, StepContents]:
    with torch.device("meta"):
        config = random_model(**SHAPE).config
    return config, contents_of(random_batch(images, SHAPE["vocabulary"]))


def predict_here(machine: Machine, processes: int) -> float:
    """CPU seconds of all processes in a step: its time on one core."""
    config, contents = _work_of(IMAGES)
    with torch.device("meta"):
        model = FGClip2ForTraining(config)
    freeze(model, model.unused_parameters(FGClip2Objective("released").settings))
    work = Work(
        step_operations(config, contents, processes),
        gradient_bytes=estimates.gradient_traffic(count_parameters(model)["total"], "ddp", processes),
        text_bytes=estimates.embedding_traffic(config.vision_config.hidden_size, contents, processes),
    )
    return step_time(work, machine, processes).total


def measure_here() -> dict[str, Any]:
    """Measure the machine, and steps of 1 to 4 processes beside what it predicts."""
    machine = this_machine()
    rows = []
    for processes in PROCESSES:
        measured = sum(on_ranks(step_seconds, processes, IMAGES))
        rows.append({"processes": processes, "predicted": predict_here(machine, processes), "measured": measured})
    return {
        "operations": machine.operations,
        "bandwidth": machine.bandwidth,
        "overhead": machine.overhead,
        "rows": rows,
    }


# ---------------------------------------------------------------------------------------------------------------------
# Pages
# ---------------------------------------------------------------------------------------------------------------------

TEXT = {
    "": {
        "top": """\
# Both stages on 8 to 4,096 devices

[中文](scale_zh.md) · The settings: [Training](training.md)

**A calculation, not a measurement**, by `python -m scripts.perf.scale --output docs/scale.md`. It has the published
batches, 61,440 images in stage 1 and 4,096 in stage 2 for the base size, which each device gets an equal part of; all
images at 1,024 patches; bfloat16 by autocast, DDP, gradient checkpointing, the sigmoid loss in a ring, and the gradient
cache where a device has more than 64 images. Memory and traffic are those of `--dry-run`. The same arithmetic of time
is held against processes of one machine at the end.

## Assumptions""",
        "assumptions": [
            ("figure", "value", "origin"),
            (
                "operations of a device",
                f"{OPERATIONS / 1e12:.0f} TFLOP/s in bfloat16",
                "40% of an H100's",
            ),
            ("memory of a device", f"{MEMORY:.0f} GiB, {LIMITS['memory']:.0%} of it usable", "80 GB"),
            ("devices of a node", f"{NODE}", "usual"),
            ("sent by a device within a node", f"{INSIDE / 1e9:.0f} GB/s", "NVLink, two thirds of its peak"),
            ("sent by a device to another node", f"{BETWEEN / 1e9:.0f} GB/s", "400 Gbit/s for each device, 80% of it"),
            ("latency of a message", f"{LATENCY * 1e6:.0f} µs", "a ring has one after the other"),
            ("gradients sent behind", f"{OVERLAP:.0%} of the computation", "of the last chunk with the gradient cache"),
            ("host cores of a device", f"{CORES}", "96 for a node"),
            ("images a core loads", f"{IMAGES_PER_CORE} a second", "[measured](performance.md), 1,024 patches"),
            ("stage 1", "2.45 x 10^9 pairs, one epoch", "published"),
            ("stage 2", "24 x 10^6 images, one epoch, 3.3 regions, 0.83 of them with 10 hard negatives", "published"),
        ],
        "stage": "## Stage {}",
        "columns": [
            "devices",
            "images of a device",
            "computing, s",
            "waiting for gradients, s",
            "waiting for texts, s",
            "images a second",
            "days",
            "sent: gradients, GiB",
            "sent: FSDP2, GiB",
            "sent: texts, GiB",
            "memory: DDP, GiB",
            "ZeRO-2, GiB",
            "FSDP2, GiB",
        ],
        "first": "### What breaks first in stage {}",
        "first columns": ["devices", "nearest to its limit", "used", "memory", "exchange", "loader", "duration"],
        "limits": """\
Shares of the limits: {memory:.0%} of the memory, {exchange:.0%} of a step waiting for others, all cores of the loader,
{duration:.0f} days. Above 100% it breaks.""",
        "names": {"memory": "memory", "exchange": "exchange", "loader": "loader", "duration": "duration"},
        "breaks": "{} breaks",
        "holds": "{}, nothing breaks",
        "here": """\
## The same arithmetic on this machine

Steps of the full objective of a small model (width {width}, {layers} layers, {images} images of 256 patches for each
process) by DDP over gloo, in CPU seconds of all processes, which is the time of a step on one core that they share; on
two cores it is half of that from two processes on. The constants come from other runs: {operations:.1f} GFLOP/s and
{overhead:.3f} s beside them, from steps of {few} and {many} images in one process; {bandwidth:.2f} GB/s, from sums of
4 and 64 MiB over two processes. The command fails where a prediction is off by more than 20%.""",
        "here columns": ["processes", "predicted, s", "measured, s", "predicted / measured"],
    },
    "_zh": {
        "top": """\
# 8 至 4,096 个设备上的两个阶段

[English](scale.md) · 各项设置：[训练](training_zh.md)

**这是推算，不是测量**，由 `python -m scripts.perf.scale --output docs/scale.md` 生成。采用公布的批量：
base 规模第一阶段 61,440 张图像，第二阶段 4,096 张，平均分给各设备；所有图像都是 1,024 个图块；autocast 用
bfloat16，DDP，梯度检查点，环形的 sigmoid 损失；每个设备超过 64 张图像时用梯度缓存。内存和通信量与
`--dry-run` 相同。时间的算法在最后与一台机器上的多个进程对照。

## 假设""",
        "assumptions": [
            ("项目", "数值", "来源"),
            ("一个设备的运算速度", f"bfloat16 {OPERATIONS / 1e12:.0f} TFLOP/s", "H100 标称值的 40%"),
            ("一个设备的内存", f"{MEMORY:.0f} GiB，其中 {LIMITS['memory']:.0%} 可用", "80 GB"),
            ("每个节点的设备数", f"{NODE}", "常见配置"),
            ("设备在节点内的发送速度", f"{INSIDE / 1e9:.0f} GB/s", "NVLink 峰值的三分之二"),
            ("设备向其他节点的发送速度", f"{BETWEEN / 1e9:.0f} GB/s", "每个设备 400 Gbit/s 的 80%"),
            ("一条消息的延迟", f"{LATENCY * 1e6:.0f} µs", "环形通信中消息依次发送"),
            ("可掩盖梯度通信的时间", f"计算的 {OVERLAP:.0%}", "用梯度缓存时只有最后一块"),
            ("每个设备的主机核数", f"{CORES}", "每个节点 96 个"),
            ("每核读取的图像数", f"每秒 {IMAGES_PER_CORE}", "[实测](performance.md)，1,024 个图块"),
            ("第一阶段", "2.45 x 10^9 对，一轮", "公布值"),
            ("第二阶段", "24 x 10^6 张图像，一轮，每张 3.3 个区域，其中 0.83 个有 10 条难负例", "公布值"),
        ],
        "stage": "## 第 {} 阶段",
        "columns": [
            "设备数",
            "每设备图像数",
            "计算（s）",
            "等待梯度（s）",
            "等待文本（s）",
            "每秒图像数",
            "天数",
            "发送：梯度（GiB）",
            "发送：FSDP2（GiB）",
            "发送：文本（GiB）",
            "内存：DDP（GiB）",
            "ZeRO-2（GiB）",
            "FSDP2（GiB）",
        ],
        "first": "### 第 {} 阶段最先出问题的是什么",
        "first columns": ["设备数", "最接近上限的", "已用", "内存", "通信", "读取", "时长"],
        "limits": """\
占上限的比例。上限：内存的 {memory:.0%}，一步中等待其他进程的时间占 {exchange:.0%}，读取进程的全部核，
{duration:.0f} 天。超过 100% 即超限。""",
        "names": {"memory": "内存", "exchange": "通信", "loader": "读取", "duration": "时长"},
        "breaks": "{}，超限",
        "holds": "{}，未超限",
        "here": """\
## 同样的算法与本机对照

小模型（宽度 {width}，{layers} 层，每个进程 {images} 张 256 块的图像）完整目标的一步，gloo 上的 DDP，
数值为全部进程的 CPU 秒数，即这些进程共用一个核时一步所需的时间；从两个进程起，两个核只需一半。常数来自另外的测量：
单进程 {few} 张和 {many} 张图像的一步得到 {operations:.1f} GFLOP/s 和此外的 {overhead:.3f} s；两个进程上
4 MiB 和 64 MiB 的求和得到 {bandwidth:.2f} GB/s。预测偏差超过 20% 时该命令失败。""",
        "here columns": ["进程数", "预测（s）", "实测（s）", "预测 / 实测"],
    },
}


def table(rows: list[Any]) -> list[str]:
    """Return lines of Markdown, the first row being the head."""
    head, *others = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [head, "|---" * len(rows[0]) + "|", *others]


def stage_rows(predictions: dict[int, Prediction]) -> list[list[str]]:
    """Return the cells of a stage's predictions, by number of devices."""
    return [
        [
            f"{devices:,}",
            f"{its.images:,.0f}",
            *(f"{seconds:.3f}" for seconds in (its.time.compute, its.time.gradients, its.time.texts)),
            f"{devices * its.images / its.time.total:,.0f}",
            f"{its.days:.2f}",
            *(f"{its.sent[kind] / GIB:.2f}" for kind in ("gradients", "sharded", "texts")),
            *(f"{its.memory[strategy] / GIB:.2f}" for strategy in STRATEGIES),
        ]
        for devices, its in predictions.items()
    ]


def limit_rows(predictions: dict[int, Prediction], words: dict[str, Any]) -> list[list[str]]:
    """Return the cells of what is nearest to its limit, by number of devices."""
    rows = []
    for devices, its in predictions.items():
        name, share = max(its.use.items(), key=lambda item: item[1])
        verdict = words["breaks" if share > 1 else "holds"].format(words["names"][name])
        rows.append([f"{devices:,}", verdict, f"{share:.0%}", *(f"{its.use[limit]:.0%}" for limit in LIMITS)])
    return rows


def page(language: str, here: dict[str, Any]) -> str:
    """Return the page in Markdown."""
    words = TEXT[language]
    lines = [words["top"], "", *table(words["assumptions"])]
    for number, stage in STAGES.items():
        predictions = {devices: predict(stage, devices) for devices in DEVICES}
        lines += ["", words["stage"].format(number), "", *table([words["columns"], *stage_rows(predictions)])]
        lines += ["", words["first"].format(number), "", words["limits"].format(**LIMITS), ""]
        lines += table([words["first columns"], *limit_rows(predictions, words)])
    few, many = CALIBRATION
    lines += [
        "",
        words["here"].format(
            **SHAPE,
            images=IMAGES,
            few=few,
            many=many,
            overhead=here["overhead"],
            operations=here["operations"] / 1e9,
            bandwidth=here["bandwidth"] / 1e9,
        ),
        "",
    ]
    rows = [
        [
            row["processes"],
            f"{row['predicted']:.2f}",
            f"{row['measured']:.2f}",
            f"{row['predicted'] / row['measured']:.2f}",
        ]
        for row in here["rows"]
    ]
    return "\n".join([*lines, *table([words["here columns"], *rows])]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="page in Markdown; the Chinese one goes beside it")
    arguments = parser.parse_args()
    here = measure_here()
    print(json.dumps(here, indent=1))
    for language in TEXT:
        file = arguments.output.with_stem(arguments.output.stem + language)
        file.write_text(page(language, here), encoding="utf-8")
    return int(any(abs(row["predicted"] / row["measured"] - 1) > BOUND for row in here["rows"]))


if __name__ == "__main__":
    sys.exit(main())
