"""Both stages on 8 to 4,096 devices by arithmetic, and the same arithmetic against 1 to 4 processes of this machine.

python -m scripts.perf.scale --output docs/scale.md
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from fgclip2 import FGClip2Config
from fgclip2.distributed import barrier, world_size
from fgclip2.training import FGClip2ForTraining, FGClip2TrainingArguments, estimates
from fgclip2.training.estimates import DataSummary, StepContents, Strategy
from fgclip2.training.memory import StepPlan
from fgclip2.training.objective import FGClip2Objective, ObjectiveSettings
from fgclip2.training.parameters import count_parameters, freeze
from fgclip2.training.scale import ADAMW_BYTES, Machine, StepTime, Work, step_operations, step_time

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
MEMORY_BANDWIDTH = 2e12  # bytes a second: 60% of the 3.35e12 of an H100
CORES = 12  # of the host, for each device
IMAGES_PER_CORE = 139  # a second, 1,024 patches: lower than measured, docs/performance.md
DEEPSPEED = {"zero_optimization": {"reduce_bucket_size": 5e8, "overlap_comm": True}}  # as in recipes/accelerate
STRATEGIES: tuple[Strategy, ...] = ("ddp", "zero2", "fsdp")
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
    """Time, memory and traffic of a stage on so many devices."""

    images: float  # of a device in a step
    time: dict[str, StepTime]  # by strategy, those that can be trained with
    memory: dict[str, float]  # by strategy, bytes
    sent: dict[str, float]  # for gradients and weights by strategy, and for texts, bytes in a step
    loader: float  # share of the host's cores
    days: float

    @property
    def use(self) -> dict[str, float]:
        """How much of each limit is used; above 1 it breaks."""
        shares = {
            "memory": self.memory["ddp"] / (MEMORY * GIB),
            "exchange": self.time["ddp"].waiting,
            "loader": self.loader,
            "duration": self.days,
        }
        return {name: share / LIMITS[name] for name, share in shares.items()}


def predict(stage: Stage, devices: int, size: str = "base") -> Prediction:
    """Predict a stage on so many devices, with gradient checkpointing and, from two chunks on, the cache."""
    config = FGClip2Config.from_preset(size)
    model = _model_to_train(config, stage.settings)
    count = count_parameters(model)["total"]
    images = stage.batch / devices
    contents = StepContents.expected(images, stage.data, stage.settings, 10)  # type: ignore[arg-type]  # on average
    cached = images > stage.chunk
    chunk = stage.chunk if cached else None
    plans = {
        strategy: StepPlan(_arguments(strategy, chunk), model, config, stage.settings, contents, devices)
        for strategy in STRATEGIES
    }
    gathers = estimates.gathers_of_step(1, math.ceil(images / stage.chunk) if cached else 0)
    sent = {strategy: estimates.gradient_traffic(count, strategy, devices, True, gathers) for strategy in STRATEGIES}
    sent["texts"] = estimates.embedding_traffic(model.embedding_size, contents, devices, stage.settings.sigmoid_form)
    operations = step_operations(config, contents, devices, checkpointing=True, cached=cached, ring=True)
    modules = 1 + config.vision_config.num_hidden_layers + config.text_config.num_hidden_layers  # divided one by one
    seconds = {}
    for strategy in STRATEGIES:
        if strategy == "zero2" and cached:
            continue  # DeepSpeed takes one backward pass for each step
        work = Work(
            operations,
            gradient_bytes=sent[strategy],
            text_bytes=sent["texts"],
            gradient_messages=(devices - 1) * (modules * (gathers + 1) if strategy == "fsdp" else 2),
            text_messages=2 * (3 * devices - 2),  # of short and of long texts
            update_bytes=ADAMW_BYTES * count.trained / (1 if strategy == "ddp" else devices),
        )
        # With the cache gradients are sent behind the last chunk alone, divided weights behind all of them.
        overlap = OVERLAP * (stage.chunk / images if cached and strategy == "ddp" else 1.0)
        machine = Machine(
            OPERATIONS, INSIDE if devices <= NODE else BETWEEN, LATENCY, overlap=overlap, memory=MEMORY_BANDWIDTH
        )
        seconds[strategy] = step_time(work, machine, devices)
    duration = seconds["ddp"].total
    return Prediction(
        images=images,
        time=seconds,
        memory={strategy: plan.at_most(0) for strategy, plan in plans.items()},
        sent=sent,
        loader=images / duration / (CORES * IMAGES_PER_CORE),
        days=stage.pairs / stage.batch * duration / 86_400,
    )


def _model_to_train(config: FGClip2Config, settings: ObjectiveSettings) -> FGClip2ForTraining:
    with torch.device("meta"):
        model = FGClip2ForTraining(config)
    freeze(model, model.unused_parameters(settings))
    return model


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
    args.deepspeed = DEEPSPEED if strategy == "zero2" else None
    args.fsdp = strategy == "fsdp"
    return args


# ---------------------------------------------------------------------------------------------------------------------
# This machine
# ---------------------------------------------------------------------------------------------------------------------

SHAPE = {"width": 128, "layers": 4, "vocabulary": 4_000}
IMAGES = 4  # of each process in a step that is predicted
CALIBRATION = (2, 8)  # images of the steps by which operations and overhead are measured
PROCESSES = (1, 2, 3, 4)
RELEASED = FGClip2Objective("released").settings


class Clock(NamedTuple):
    """A way to measure a step of several processes."""

    now: Callable[[], float]  # seconds
    of_all: Callable[[list[float]], float]  # what a step takes, by what it takes each process
    at_once: int  # processes that a machine would have to run at full speed to have that


# CPU seconds of all processes are what a step takes on one core, whatever else runs beside it.
CLOCKS = {
    "cpu": Clock(time.process_time, sum, 1),
    "wall": Clock(time.perf_counter, max, os.cpu_count() or 1),
}


def step_seconds(images: int, now: Callable[[], float], runs: int = 5) -> float:
    """Seconds that a step takes this process, the least of some: what else runs can only add to it."""
    model: Any = random_model(**SHAPE)
    freeze(model, model.unused_parameters(RELEASED))
    batch, objective = random_batch(images, SHAPE["vocabulary"]), FGClip2Objective("released")
    if world_size() > 1:
        model = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], fused=True)

    def step() -> None:
        optimizer.zero_grad()
        objective(model(**batch), batch)["loss"].backward()
        optimizer.step()

    return _least_seconds(step, now, runs)


def update_seconds(values: int, now: Callable[[], float], runs: int = 8) -> float:
    """Seconds that AdamW takes this process to update so many weights."""
    weight = torch.nn.Parameter(torch.ones(values))
    weight.grad = torch.ones(values)
    return _least_seconds(torch.optim.AdamW([weight], fused=True).step, now, runs)


def exchange_seconds(values: int, now: Callable[[], float], runs: int = 8) -> float:
    """Seconds that summing so many float32 values over the ranks takes this process."""
    tensor = torch.ones(values)
    return _least_seconds(lambda: dist.all_reduce(tensor), now, runs)


def _least_seconds(function: Callable[[], object], now: Callable[[], float], runs: int) -> float:
    function()
    seconds = []
    for _ in range(runs):
        barrier()
        start = now()
        function()
        seconds.append(now() - start)
    return min(seconds)


def this_machine(clock: Clock) -> Machine:
    """Measure the constants of a core: by steps of one process of two sizes, an update, two sums over two processes."""
    count = count_parameters(_model_to_train(_work_of(IMAGES)[0], RELEASED))["total"].trained
    update = on_ranks(update_seconds, 1, count, clock.now)[0]
    operations = [step_operations(*_work_of(images), 1) for images in CALIBRATION]
    seconds = [on_ranks(step_seconds, 1, images, clock.now)[0] - update for images in CALIBRATION]
    rate = (operations[1] - operations[0]) / (seconds[1] - seconds[0])
    overhead = max(0.0, seconds[0] - operations[0] / rate)
    few, many = 2**20, 2**24
    small, large = (
        clock.of_all(on_ranks(exchange_seconds, 2, values, clock.now)) * min(1.0, clock.at_once / 2)
        for values in (few, many)
    )
    bandwidth = estimates.FLOAT32 * (many - few) / (large - small)  # of two processes, each sends as much as it has
    return Machine(rate, bandwidth, 0.0, at_once=clock.at_once, overhead=overhead, memory=ADAMW_BYTES * count / update)


def _work_of(images: int) -> tuple[FGClip2Config, StepContents]:
    with torch.device("meta"):
        config = random_model(**SHAPE).config
    return config, contents_of(random_batch(images, SHAPE["vocabulary"]))


def predict_here(machine: Machine, processes: int) -> float:
    """Seconds of a step."""
    config, contents = _work_of(IMAGES)
    count = count_parameters(_model_to_train(config, RELEASED))["total"]
    work = Work(
        step_operations(config, contents, processes),
        gradient_bytes=estimates.gradient_traffic(count, "ddp", processes),
        text_bytes=estimates.embedding_traffic(config.vision_config.hidden_size, contents, processes),
        update_bytes=ADAMW_BYTES * count.trained,
    )
    return step_time(work, machine, processes).total


def measure_here(clock: Clock) -> dict[str, Any]:
    """Measure the machine by a clock, and steps of 1 to 4 processes beside what it predicts."""
    machine = this_machine(clock)
    rows = []
    for processes in PROCESSES:
        measured = clock.of_all(on_ranks(step_seconds, processes, IMAGES, clock.now))
        rows.append({"processes": processes, "predicted": predict_here(machine, processes), "measured": measured})
    return {
        "operations": machine.operations,
        "bandwidth": machine.bandwidth,
        "overhead": machine.overhead,
        "memory": machine.memory,
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
images at 1,024 patches; bfloat16 by autocast, gradient checkpointing, the sigmoid loss in a ring, and the gradient
cache where a device has more than 64 images. Memory and traffic are those of `--dry-run`. Times are those of DDP, and
of what divides the optimizer over the devices: ZeRO-2, which does not go with the gradient cache, and FSDP2, which
gathers the weights for each of its chunks and is divided over all devices: rings within nodes (hybrid sharding) would
have fewer messages one after the other. The same arithmetic of time is held against processes of one machine at the
end.

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
            (
                "gradients sent behind",
                f"{OVERLAP:.0%} of the computation",
                "of the last chunk with the gradient cache; with FSDP2 of all of it",
            ),
            (
                "read and written by AdamW",
                f"{ADAMW_BYTES} bytes for each parameter, {MEMORY_BANDWIDTH / 1e12:.0f} TB/s",
                "60% of an H100's memory bandwidth",
            ),
            ("host cores of a device", f"{CORES}", "96 for a node"),
            (
                "images a core loads",
                f"{IMAGES_PER_CORE} a second",
                "lower than [measured](performance.md), 1,024 patches",
            ),
            ("stage 1", "2.45 x 10^9 pairs, one epoch", "published"),
            ("stage 2", "24 x 10^6 images, one epoch, 3.3 regions, 0.83 of them with 10 hard negatives", "published"),
        ],
        "stage": "## Stage {}",
        "columns": [
            "devices",
            "images of a device",
            "computing, s",
            "updating weights, s",
            "waiting for gradients, s",
            "waiting for texts, s",
            "images a second",
            "days",
            "sent: gradients, GiB",
            "sent: texts, GiB",
            "memory, GiB",
        ],
        "sharded": "### Stage {} with a sharded optimizer",
        "sharded columns": [
            "devices",
            "ZeRO-2: updating weights, s",
            "waiting, s",
            "images a second",
            "memory, GiB",
            "FSDP2: updating weights, s",
            "waiting, s",
            "images a second",
            "memory, GiB",
            "sent for weights and gradients, GiB",
        ],
        "first": "### What breaks first in stage {}, by DDP",
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
process) by DDP over gloo with AdamW, each process with one thread, by two clocks. *CPU* has the CPU seconds of all
processes, which is what a step takes where they share one core; *wall* what it takes on the {cores} cores of this
machine, which had nothing else to do. The constants come from other runs by the same clock: operations, and a time
beside them, from steps of {few} and {many} images in one process; the bytes sent from sums of 4 and 64 MiB over two
processes; those read and written from updates of the weights alone. The command fails where a prediction is off by
more than 20%.""",
        "constants columns": ["clock", "GFLOP/s", "beside them, s", "sent, GB/s", "read and written, GB/s"],
        "clocks": {"cpu": "CPU", "wall": "wall"},
        "here columns": ["clock", "processes", "predicted, s", "measured, s", "predicted / measured"],
    },
    "_zh": {
        "top": """\
# 8 至 4,096 个设备上的两个阶段

[English](scale.md) · 各项设置：[训练](training_zh.md)

**这是推算，不是测量**，由 `python -m scripts.perf.scale --output docs/scale.md` 生成。采用公布的批量：
base 规模第一阶段 61,440 张图像，第二阶段 4,096 张，平均分给各设备；所有图像都是 1,024 个图块；autocast 用
bfloat16，梯度检查点，环形的 sigmoid 损失；每个设备超过 64 张图像时用梯度缓存。内存和通信量与 `--dry-run`
相同。时间分别按 DDP 和把优化器分到各设备的两种方式推算：ZeRO-2 不能与梯度缓存同用，FSDP2 为梯度缓存的每一块
都要收集一次权重，且分到全部设备：只在节点内的环（混合分片）中依次发送的消息更少。时间的算法在最后与一台机器上的
多个进程对照。

## 假设""",
        "assumptions": [
            ("项目", "数值", "来源"),
            ("一个设备的运算速度", f"bfloat16 {OPERATIONS / 1e12:.0f} TFLOP/s", "H100 标称值的 40%"),
            ("一个设备的内存", f"{MEMORY:.0f} GiB，其中 {LIMITS['memory']:.0%} 可用", "80 GB"),
            ("每个节点的设备数", f"{NODE}", "常见配置"),
            ("设备在节点内的发送速度", f"{INSIDE / 1e9:.0f} GB/s", "NVLink 峰值的三分之二"),
            ("设备向其他节点的发送速度", f"{BETWEEN / 1e9:.0f} GB/s", "每个设备 400 Gbit/s 的 80%"),
            ("一条消息的延迟", f"{LATENCY * 1e6:.0f} µs", "环形通信中消息依次发送"),
            ("可掩盖梯度通信的时间", f"计算的 {OVERLAP:.0%}", "用梯度缓存时只有最后一块；FSDP2 为全部"),
            (
                "AdamW 的读写量",
                f"每个参数 {ADAMW_BYTES} 字节，{MEMORY_BANDWIDTH / 1e12:.0f} TB/s",
                "H100 内存带宽的 60%",
            ),
            ("每个设备的主机核数", f"{CORES}", "每个节点 96 个"),
            ("每核读取的图像数", f"每秒 {IMAGES_PER_CORE}", "低于[实测](performance.md)，1,024 个图块"),
            ("第一阶段", "2.45 x 10^9 对，一轮", "公布值"),
            ("第二阶段", "24 x 10^6 张图像，一轮，每张 3.3 个区域，其中 0.83 个有 10 条难负例", "公布值"),
        ],
        "stage": "## 第 {} 阶段",
        "columns": [
            "设备数",
            "每设备图像数",
            "计算（s）",
            "更新权重（s）",
            "等待梯度（s）",
            "等待文本（s）",
            "每秒图像数",
            "天数",
            "发送：梯度（GiB）",
            "发送：文本（GiB）",
            "内存（GiB）",
        ],
        "sharded": "### 第 {} 阶段，优化器分到各设备",
        "sharded columns": [
            "设备数",
            "ZeRO-2：更新权重（s）",
            "等待（s）",
            "每秒图像数",
            "内存（GiB）",
            "FSDP2：更新权重（s）",
            "等待（s）",
            "每秒图像数",
            "内存（GiB）",
            "为权重和梯度发送（GiB）",
        ],
        "first": "### 第 {} 阶段用 DDP 时最先出问题的是什么",
        "first columns": ["设备数", "最接近上限的", "已用", "内存", "通信", "读取", "时长"],
        "limits": """\
占上限的比例。上限：内存的 {memory:.0%}，一步中等待其他进程的时间占 {exchange:.0%}，读取进程的全部核，
{duration:.0f} 天。超过 100% 即超限。""",
        "names": {"memory": "内存", "exchange": "通信", "loader": "读取", "duration": "时长"},
        "breaks": "{}，超限",
        "holds": "{}，未超限",
        "here": """\
## 同样的算法与本机对照

小模型（宽度 {width}，{layers} 层，每个进程 {images} 张 256 块的图像）完整目标的一步，gloo 上的 DDP，AdamW，每个进程
一个线程，用两种时钟。*CPU* 是全部进程的 CPU 秒数，即这些进程共用一个核时一步所需的时间；*实际*是在本机 {cores} 个核上、
没有其他程序运行时所需的时间。常数来自用同一时钟的另外的测量：单进程 {few} 张和 {many} 张图像的一步得到运算速度和此外的
时间；两个进程上 4 MiB 和 64 MiB 的求和得到发送速度；单独更新权重得到读写速度。预测偏差超过 20% 时该命令失败。""",
        "constants columns": ["时钟", "GFLOP/s", "此外（s）", "发送（GB/s）", "读写（GB/s）"],
        "clocks": {"cpu": "CPU", "wall": "实际"},
        "here columns": ["时钟", "进程数", "预测（s）", "实测（s）", "预测 / 实测"],
    },
}


def table(rows: list[Any]) -> list[str]:
    """Return lines of Markdown, the first row being the head."""
    head, *others = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [head, "|---" * len(rows[0]) + "|", *others]


def stage_rows(predictions: dict[int, Prediction]) -> list[list[str]]:
    """Return the cells of a stage's predictions by DDP, by number of devices."""
    return [
        [
            f"{devices:,}",
            f"{its.images:,.0f}",
            *(f"{seconds:.3f}" for seconds in (ddp.compute, ddp.update, ddp.gradients, ddp.texts)),
            f"{devices * its.images / ddp.total:,.0f}",
            f"{its.days:.2f}",
            *(f"{its.sent[kind] / GIB:.2f}" for kind in ("ddp", "texts")),
            f"{its.memory['ddp'] / GIB:.2f}",
        ]
        for devices, its in predictions.items()
        for ddp in [its.time["ddp"]]
    ]


def sharded_rows(predictions: dict[int, Prediction]) -> list[list[str]]:
    """Return the cells of a stage's predictions with sharded optimizers, by number of devices."""
    rows = []
    for devices, its in predictions.items():
        cells = [f"{devices:,}"]
        for strategy in STRATEGIES[1:]:
            if strategy not in its.time:
                cells += ["-"] * 4
                continue
            seconds = its.time[strategy]
            cells += [f"{seconds.update:.3f}", f"{seconds.gradients + seconds.texts:.3f}"]
            cells += [f"{devices * its.images / seconds.total:,.0f}", f"{its.memory[strategy] / GIB:.2f}"]
        rows.append([*cells, f"{its.sent['fsdp'] / GIB:.2f}"])
    return rows


def limit_rows(predictions: dict[int, Prediction], words: dict[str, Any]) -> list[list[str]]:
    """Return the cells of what is nearest to its limit, by number of devices."""
    rows = []
    for devices, its in predictions.items():
        name, share = max(its.use.items(), key=lambda item: item[1])
        verdict = words["breaks" if share > 1 else "holds"].format(words["names"][name])
        rows.append([f"{devices:,}", verdict, f"{share:.0%}", *(f"{its.use[limit]:.0%}" for limit in LIMITS)])
    return rows


def page(language: str, here: dict[str, dict[str, Any]]) -> str:
    """Return the page in Markdown."""
    words = TEXT[language]
    lines = [words["top"], "", *table(words["assumptions"])]
    for number, stage in STAGES.items():
        predictions = {devices: predict(stage, devices) for devices in DEVICES}
        lines += ["", words["stage"].format(number), "", *table([words["columns"], *stage_rows(predictions)])]
        lines += ["", words["sharded"].format(number), ""]
        lines += table([words["sharded columns"], *sharded_rows(predictions)])
        lines += ["", words["first"].format(number), "", words["limits"].format(**LIMITS), ""]
        lines += table([words["first columns"], *limit_rows(predictions, words)])
    few, many = CALIBRATION
    lines += ["", words["here"].format(**SHAPE, images=IMAGES, few=few, many=many, cores=os.cpu_count()), ""]
    constants = [
        [
            words["clocks"][name],
            f"{its['operations'] / 1e9:.1f}",
            f"{its['overhead']:.3f}",
            f"{its['bandwidth'] / 1e9:.2f}",
            f"{its['memory'] / 1e9:.1f}",
        ]
        for name, its in here.items()
    ]
    rows = [
        [
            words["clocks"][name],
            row["processes"],
            f"{row['predicted']:.2f}",
            f"{row['measured']:.2f}",
            f"{row['predicted'] / row['measured']:.2f}",
        ]
        for name, its in here.items()
        for row in its["rows"]
    ]
    lines += [*table([words["constants columns"], *constants]), "", *table([words["here columns"], *rows])]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="page in Markdown; the Chinese one goes beside it")
    arguments = parser.parse_args()
    here = {name: measure_here(clock) for name, clock in CLOCKS.items()}
    print(json.dumps(here, indent=1))
    for language in TEXT:
        file = arguments.output.with_stem(arguments.output.stem + language)
        file.write_text(page(language, here), encoding="utf-8")
    return int(any(abs(row["predicted"] / row["measured"] - 1) > BOUND for its in here.values() for row in its["rows"]))


if __name__ == "__main__":
    sys.exit(main())
