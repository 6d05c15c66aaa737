"""Memory of the order of millions of records on a node.

python -m scripts.perf --only sampler
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np

from fgclip2.training.mixture import Source
from fgclip2.training.sampler import BatchOrderSampler

from .measuring import Row, added_peak_memory, in_fresh_process
from .training import bounded_row

EXPLANATION = """\
The order of batches of 8 x 512 of 12 million records in two languages and two sources with sampling rates. Memory is
the peak of 8 processes of a node, each above what it had before, and once the mapped file that says in which language
each record is. `patch_batches: alike` keeps two bytes for each record in each process."""

RECORDS, BATCH_SIZE, PROCESSES = 12_000_000, 512, 8
LOOKED_AT = 1_000_000  # records of an epoch
MOST_MEMORY = 100  # MB, of a node


def row_groups(runs: int) -> list[Callable[[], list[Row]]]:
    """The measurements, each made once: they are of memory."""
    return [sampler_rows]


def sampler_rows(records: int = RECORDS, looked_at: int = LOOKED_AT) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "languages.npy"
        np.save(file, (np.arange(records) % 3 == 0).astype(np.uint8))
        rows = []
        for patch_batches, bound in (("any", MOST_MEMORY), ("alike", None)):
            memory = in_fresh_process(measure, file, patch_batches == "alike", looked_at)
            name = (
                f"order of {records / 1e6:g} M records, patch_batches={patch_batches}, memory of {PROCESSES} processes"
            )
            node = (PROCESSES * (memory - file.stat().st_size) + file.stat().st_size) / 1e6
            rows.append(bounded_row(name, node, bound, "<=", unit="MB"))
    return rows


def measure(file: Path, alike: bool, looked_at: int) -> int:
    """Return the peak memory that the order takes in this process, the mapped file included, in bytes."""

    def run() -> None:
        languages = np.load(file, mmap_mode="r")
        half = len(languages) // 2
        sources = [Source(languages[:half], 1.5), Source(languages[half:], 0.5)]
        patches = np.random.default_rng(0).integers(100, 1025, len(languages), np.uint16) if alike else None
        sampler = BatchOrderSampler(sources, BATCH_SIZE, PROCESSES, patches=patches)
        for _ in islice(sampler, looked_at):
            pass

    return added_peak_memory(run)
