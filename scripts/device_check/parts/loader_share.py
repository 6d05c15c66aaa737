"""Measure the loader's share of a training step, by steps on one batch that is there and on the loader's batches."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from fgclip2 import FGClip2Processor, embedded_checkpoint
from fgclip2.training.collator import FGClip2Collator
from fgclip2.training.sampler import DrawnRecord

from ...perf.loader import published_records
from ..machine import usable_cores
from ..records import Case, Column, Part, Settings, Words
from ..timing import seconds_of, synchronize
from .training_step import Step

FILES, BATCH, STEPS, PATCHES = 256, 32, 96, 256
PREFETCHED = 2  # batches that each worker makes ahead
WORKERS = (2, 4, 8, 16)
BOUND = 0.05


def loader_of(folder: Path, workers: int, settings: Settings) -> DataLoader:
    """Return a loader of enough batches, of records as published, with those to be skipped in front."""
    records = published_records(folder, settings.pick(FILES, 4))
    size = settings.pick(BATCH, 2)
    count = size * (settings.pick(STEPS, 2) + PREFETCHED * workers)
    drawn = [DrawnRecord(records[number % len(records)], number // len(records)) for number in range(count)]
    processor = FGClip2Processor.from_pretrained(embedded_checkpoint())
    return DataLoader(
        drawn,  # type: ignore[arg-type]
        batch_size=size,
        collate_fn=FGClip2Collator(processor, max_num_patches=PATCHES),
        num_workers=workers,
        prefetch_factor=PREFETCHED,
        pin_memory=settings.device.type == "cuda",
    )


def seconds_of_batches(loader: DataLoader, use: Callable[[dict[str, Any]], object], settings: Settings) -> float:
    """Return seconds for a batch, without as many as may have been ready when the first was asked for."""
    batches = iter(loader)
    for batch in islice(batches, PREFETCHED * loader.num_workers):
        use(batch)
    synchronize(settings.device)
    start, count = time.perf_counter(), 0
    for batch in batches:
        use(batch)
        count += 1
    synchronize(settings.device)
    return (time.perf_counter() - start) / count


def measure(workers: int, settings: Settings) -> dict[str, Any]:
    """Time the loader alone, steps alone, and both together."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as in the trainer's workers
    train = Step("base", False, settings).on_batch
    with tempfile.TemporaryDirectory() as folder:
        loader = loader_of(Path(folder), workers, settings)
        loading = seconds_of_batches(loader, lambda batch: None, settings)
        together = seconds_of_batches(loader, train, settings)
        alone = seconds_of(partial(train, next(iter(loader))), settings)
    size = loader.batch_size or 1
    share = max(0.0, 1 - alone / together)
    return {
        "loader": size / loading,
        "step": size / alone,
        "both": size / together,
        "share": share,
        "bound": BOUND,
        "held": share <= BOUND,
    }


def cases(settings: Settings) -> Iterator[Case]:
    """Give numbers of workers, as many as there are cores at most."""
    for workers in settings.pick([count for count in WORKERS if count <= usable_cores()] or [1], [1]):
        yield Case({"workers": workers}, partial(measure, workers, settings))


PART = Part(
    Words("Loader", "数据加载"),
    Words(
        f"Base size, batches of {BATCH} JPEG files of 640x480 at {PATCHES} patches, each with 4 boxes of 11 texts and "
        "2 captions; steps as above. The share is by how much steps are slower on the loader's batches than on one "
        "batch that is on the host already.",
        f"base 尺寸，每批 {BATCH} 个 640x480 的 JPEG 文件，{PATCHES} 个图块，"
        "每张有 4 个框（各 11 条文本）和 2 条描述；训练步同上。"
        "占比是使用加载器的批次比使用已在主机内存中的同一批次慢的比例。",
    ),
    (
        Column("workers", Words("workers", "工作进程"), "d"),
        Column("loader", Words("loader alone, images per second", "只加载，每秒图像数"), ",.0f"),
        Column("step", Words("steps alone", "只训练"), ",.0f"),
        Column("both", Words("both", "两者"), ",.0f"),
        Column("share", Words("share of the loader", "加载所占比例"), ".1%"),
        Column("bound", Words("bound", "上限"), ".0%"),
        Column("held", Words("held", "满足")),
    ),
    cases,
)
