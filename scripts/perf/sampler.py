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
from fgclip2.data import read_finehard
from fgclip2.training import FGClip2ForTraining
from fgclip2.training.mixture import Source, sources_of
from fgclip2.training.patch_counts import read_patch_counts
from fgclip2.training.sampler import BatchOrderSampler

from .measuring import Row, added_peak_memory, in_fresh_process
from .padding import photo_mix
from .training import bounded_row

EXPLANATION = """\
The order of batches of 8 x 512 of 12 million records in two languages and two sources with sampling rates. Memory is
the peak of 8 processes of a node, each above what it had before, and once the files that all of them map: in which
language each record is and, with `patch_batches: alike`, how many patches its image has. *Start* is the time from
opening a JSONL file of a million records in one process to the first batch of `alike`, for a mix of photos of about a
hundred sizes, times 12: in the first run, which finds the records and the sizes that they state, and in a later one.
A hundred thousand other sizes take some 2 s more, divided over the processes."""

RECORDS, BATCH_SIZE, PROCESSES = 12_000_000, 512, 8
LOOKED_AT = 1_000_000  # records of an epoch
MOST_MEMORY = 100  # MB, of a node
WRITTEN, LONGEST_START = 1_000_000, 20  # records of the file; seconds for RECORDS


def row_groups(runs: int) -> list[Callable[[], list[Row]]]:
    """The measurements, each made once: they are of memory, and of starts."""
    return [memory_rows, start_rows]


def memory_rows(records: int = RECORDS, looked_at: int = LOOKED_AT) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        languages, patches = Path(folder) / "languages.npy", Path(folder) / "patches.npy"
        np.save(languages, (np.arange(records) % 3 == 0).astype(np.uint8))
        np.save(patches, np.random.default_rng(0).integers(100, 1025, records, np.uint16))
        rows = []
        for patch_batches, files in (("any", [languages]), ("alike", [languages, patches])):
            mapped = sum(file.stat().st_size for file in files)
            memory = in_fresh_process(measure, files, looked_at)
            name = (
                f"order of {records / 1e6:g} M records, patch_batches={patch_batches}, memory of {PROCESSES} processes"
            )
            node = (PROCESSES * (memory - mapped) + mapped) / 1e6
            rows.append(bounded_row(name, node, MOST_MEMORY, "<=", unit="MB"))
    return rows


def measure(files: list[Path], looked_at: int) -> int:
    """Return the peak memory that the order takes in this process, mapped files included, in bytes.

    Args:
        files: The language of each record and, for batches of images that are alike, the patches of each.
        looked_at: Records of the epoch that are drawn.
    """

    def run() -> None:
        languages, *patches = [np.load(file, mmap_mode="r") for file in files]
        half = len(languages) // 2
        sources = [Source(languages[:half], 1.5), Source(languages[half:], 0.5)]
        sampler = BatchOrderSampler(sources, BATCH_SIZE, PROCESSES, patches=patches[0] if patches else None)
        for _ in islice(sampler, looked_at):
            pass
        for values in (languages, *patches):  # so that all of a file is in memory, of which the whole is taken away
            values.max()

    return added_peak_memory(run)


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
    processor = FGClip2Processor.from_pretrained(embedded_checkpoint())
    start = time.perf_counter()
    records = read_finehard(folder / "records.jsonl", folder)
    patches = read_patch_counts(records, partial(FGClip2ForTraining.count_patches, processor, max_num_patches=256))
    next(iter(BatchOrderSampler(sources_of(records), BATCH_SIZE, PROCESSES, patches=patches)))
    return time.perf_counter() - start
