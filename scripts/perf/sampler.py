"""Memory of the order of millions of records on a node, and the time until a run on them has its first batch.

python -m scripts.perf --only sampler
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from fgclip2 import FGClip2Processor, embedded_checkpoint
from fgclip2.data import Record, RecordDataset, concatenate, read_finehard
from fgclip2.data.readers import record_index
from fgclip2.distributed import join_on_machine
from fgclip2.training import FGClip2ForTraining
from fgclip2.training.mixture import sources_of
from fgclip2.training.patch_counts import read_patch_counts
from fgclip2.training.sampler import BatchOrderSampler

from .measuring import Row, added_peak_memory, in_fresh_process, on_ranks
from .padding import photo_mix
from .training import bounded_row

EXPLANATION = """\
The order of batches of 8 x 512 of 12 million records in two languages and two sources with sampling rates. Memory is
that of 8 processes of a node, of which two are run: the peak of each above what it had before, with the counting of
patches for `patch_batches: alike`, and once the files that all of them map: in which language each record is, and how
many patches its image has. The sizes of images are mapped too, and read through once at the start; that file is left
out. *Start* is the time from opening a JSONL file of a million records in one process to the first batch of `alike`,
for a mix of photos of about a hundred sizes, times 12: in the first run, which finds the records and the sizes that
they state, and in a later one. A hundred thousand other sizes take some 2 s more, divided over the processes."""

RECORDS, BATCH_SIZE, PROCESSES = 12_000_000, 512, 8
RANKS, WARM_UP = 2, 100_000  # processes that are run; records
LOOKED_AT = 1_000_000  # records of an epoch
MOST_MEMORY = 100  # MB, of a node
WRITTEN, LONGEST_START = 1_000_000, 20  # records of the file; seconds for RECORDS


def row_groups(runs: int) -> list[Callable[[], list[Row]]]:
    """The measurements, each made once: they are of memory, and of starts."""
    return [memory_rows, start_rows]


def memory_rows(records: int = RECORDS, looked_at: int = LOOKED_AT) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "languages.npy", (np.arange(records) % 3 == 0).astype(np.uint8))
        np.save(Path(folder) / "sizes.npy", photo_mix(records).astype(np.int32))
        rows = []
        for patch_batches, looked_up, bytes_mapped in (("any", 1, 1), ("alike", 1 + 2, 1 + 2 + 8)):  # of each record
            measured = on_ranks(added_by_order, RANKS, Path(folder), records, patch_batches == "alike", looked_at)
            private = max(measured) - bytes_mapped * records
            node = (PROCESSES * private + looked_up * records) / 1e6
            name = (
                f"order of {records / 1e6:g} M records, patch_batches={patch_batches}, memory of {PROCESSES} processes"
            )
            rows.append(bounded_row(name, node, MOST_MEMORY, "<=", unit="MB"))
    return rows


class MappedRecords(RecordDataset):
    """Records of an index, of which nothing else is there."""

    def __init__(self, folder: Path, part: slice):
        self.languages = np.load(folder / "languages.npy", mmap_mode="r")[part]
        self.image_sizes = np.load(folder / "sizes.npy", mmap_mode="r+")[part]

    def _read(self, index: int) -> Record:
        raise AssertionError("the order reads no record")

    def _source(self, index: int) -> str:
        raise AssertionError("the order reads no record")


def added_by_order(folder: Path, records: int, alike: bool, looked_at: int) -> float:
    """Return the peak memory that the order takes in this process, mapped files included, in bytes."""

    def run(count: int, looked_at: int) -> None:
        halves = [MappedRecords(folder, part) for part in (slice(0, count // 2), slice(count // 2, count))]
        both = concatenate(halves, [1.5, 0.5])
        patches = read_patch_counts(both, count_patches) if alike else None
        sampler = BatchOrderSampler(sources_of(both, join_on_machine), BATCH_SIZE, PROCESSES, patches=patches)
        for _ in islice(sampler, looked_at):
            pass
        mapped = [part.languages for part in halves] + ([] if patches is None else [patches])
        for values in mapped:  # so that all of a file is in memory, of which the whole is taken away
            values.max()

    count_patches = partial(FGClip2ForTraining.count_patches, _processor(), max_num_patches=256)
    run(min(records, WARM_UP), 1)  # which loads code that a run has loaded anyway
    return added_peak_memory(partial(run, records, looked_at))


def _processor() -> FGClip2Processor:
    return FGClip2Processor.from_pretrained(embedded_checkpoint())


def start_rows(records: int = WRITTEN) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        write_records(Path(folder) / "records.jsonl", records)
        rows = []
        for run, bound in (("first", None), ("later", LONGEST_START)):
            seconds = in_fresh_process(seconds_to_first_batch, Path(folder)) * RECORDS / records
            name = f"start on {RECORDS / 1e6:g} M records, {run} run, time"
            rows.append(bounded_row(name, seconds, bound, "<=", unit="s"))
    return rows


def write_records(file: Path, records: int) -> None:
    """Write records in the schema of FineHARD, with sizes of a mix of photos and captions in both languages."""
    captions = (
        "两只猫在沙发上睡觉，旁边有一盆绿色的植物和一盏台灯。",
        "Two cats sleep on a sofa beside a green plant.",
    )
    with file.open("w", encoding="utf-8") as lines:
        for number, (height, width) in enumerate(photo_mix(records).tolist()):
            record = {"f_path": f"{number}.jpg", "caption": captions[number % 2] * 4, "height": height, "width": width}
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")


def seconds_to_first_batch(folder: Path) -> float:
    """Return how long it takes to open records and to draw a batch of them, with a cache of its own in the folder."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    record_index.LARGE_SOURCE = 1  # so that few records have an index as well
    processor = _processor()
    start = time.perf_counter()
    records = read_finehard(folder / "records.jsonl", folder)
    patches = read_patch_counts(records, partial(FGClip2ForTraining.count_patches, processor, max_num_patches=256))
    next(iter(BatchOrderSampler(sources_of(records), BATCH_SIZE, PROCESSES, patches=patches)))
    return time.perf_counter() - start
