"""How time and memory are measured, and the rows that figures go into."""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


@dataclass(frozen=True)
class Row:
    """One line of the table; `bound` is empty where nothing is promised."""

    name: str
    value: float | None
    unit: str
    bound: str = ""
    held: bool | None = None
    note: str = ""


def median_seconds(function: Callable[[], object], runs: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Median time of a call by a clock over runs, after one warm-up."""
    function()
    return statistics.median(_seconds(function, clock) for _ in range(runs))


def paired_ratio(
    ours: Callable[[], object],
    reference: Callable[[], object],
    runs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Median over runs of (time of ours / time of the reference), the two in turn, after one warm-up of each."""
    ours(), reference()
    return statistics.median(first / second for first, second in (seconds_in_turn(ours, reference, runs, clock)))


def seconds_in_turn(
    first: Callable[[], object],
    second: Callable[[], object],
    runs: int,
    clock: Callable[[], float] = time.perf_counter,
) -> list[tuple[float, float]]:
    """Seconds that each of two calls takes by a clock, one after the other, `runs` times."""
    return [(_seconds(first, clock), _seconds(second, clock)) for _ in range(runs)]


def _seconds(function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    start = clock()
    function()
    return clock() - start


def peak_memory() -> int:
    """Peak resident bytes of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands a parent's ru_maxrss down to its children, but not this
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if "VmHWM" in line)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def added_peak_memory(function: Callable[[], object]) -> int:
    """Bytes by which a call's peak is above what is resident before it.

    Where the peak can't be started anew (not Linux), above the process's peak so far.
    """
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")
    before = peak_memory()
    function()
    return peak_memory() - before


def in_fresh_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call an importable function in a process of its own, so that its memory is nobody else's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def on_ranks(function: Callable[..., float], world_size: int, *args: Any) -> list[float]:
    """Call an importable function on each of several new processes that talk over gloo; what each returns."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_rank, (world_size, folder, function, args), nprocs=world_size)
        return [float((Path(folder) / f"result{rank}").read_text()) for rank in range(world_size)]


def _rank(rank: int, world_size: int, folder: str, function: Callable[..., float], args: tuple) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    try:
        (Path(folder) / f"result{rank}").write_text(repr(float(function(*args))))
    finally:
        dist.destroy_process_group()
