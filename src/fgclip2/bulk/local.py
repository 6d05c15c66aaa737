"""Bulk embedding on one machine: a process for each device, or for some cores each; this one reads and writes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch
from tqdm.auto import tqdm

from .._imports import require
from ..embedding import default_device
from ..processes import end_with_parent
from ..streams import bounded_map
from .output import TABLES, BulkOutput
from .settings import BulkSettings
from .sources import BulkSource
from .worker import ERRORS, VECTORS, Worker

TABLES_AHEAD = 2  # for each worker, so that none waits for the reader
_worker: Worker | Exception  # of a process of the pool; the error if it could not be made


def run_local(
    source: BulkSource,
    output: BulkOutput,
    settings: BulkSettings,
    fingerprint: str,
    devices: list[str],
    threads: int,
    rows_per_file: int,
    show_progress_bar: bool | None = None,
) -> None:
    """Embed the rows of a source that the output doesn't have.

    Args:
        source, output, settings, fingerprint: See [`Worker`].
        devices: Where each worker computes; their number is that of the workers.
        threads: Cores of each worker.
        rows_per_file: After how many rows a file is written. What is not written is lost when the run is killed.
        show_progress_bar: `None`: on a terminal.

    Raises:
        ChildProcessError: A worker was killed.
        Exception: A worker could not be started, or the output not be written, for whatever reason.
    """
    pyarrow = require("pyarrow", "parquet")
    output.remove_partial()
    done = {value for table in (VECTORS, ERRORS) for value in output.ids(f"{TABLES}/{table}").to_pylist()}
    hidden = None if show_progress_bar is None else not show_progress_bar
    waiting: list[Any] = []
    with tqdm(total=source.count, initial=len(done), unit=" rows", disable=hidden) as bar:
        try:
            for results in _embedded(source, done, settings, fingerprint, devices, threads):
                bar.update(len(results))
                waiting.append(results)
                if sum(map(len, waiting)) >= rows_per_file:
                    # Of rows whose writing fails, some may be in the output: they are never written again, but those
                    # that are not there are embedded by the next run.
                    rows, waiting = waiting, []
                    output.write(pyarrow.concat_tables(rows))
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a worker was killed, perhaps for want of memory: what is done stays in "
                f"{output.place}; the same command goes on"
            ) from error
        finally:
            if waiting:
                output.write(pyarrow.concat_tables(waiting))


def choose_devices(device: str | list[str] | None, workers: int | None, threads: int) -> list[str]:
    """Return where each worker computes: on all accelerators, else on all cores, `threads` of them in each.

    Args:
        device: Device or devices to use; `None`: what there is.
        workers: Number of workers; on accelerators they take turns.
        threads: Cores of a worker on the CPU.
    """
    if device is None:
        kind = default_device().type
        device = [f"{kind}:{index}" for index in range(torch.accelerator.device_count())] if kind == "cuda" else kind
    devices = [device] if isinstance(device, str) else device
    if workers is None:
        workers = max(1, (os.cpu_count() or 1) // threads) if devices == ["cpu"] else len(devices)
    return [devices[index % len(devices)] for index in range(workers)]


def _embedded(
    source: BulkSource,
    done: set[Any],
    settings: BulkSettings,
    fingerprint: str,
    devices: list[str],
    threads: int,
) -> Iterator[Any]:
    context = multiprocessing.get_context("spawn")  # a fork would copy locks of torch's threads
    free_devices = context.SimpleQueue()
    for device in devices:
        free_devices.put(device)
    arguments = (settings, fingerprint, threads, free_devices)
    with ProcessPoolExecutor(len(devices), context, _start, arguments) as pool:
        missing = filter(len, (_without(table, settings.id_column, done) for table in source.tables()))
        ahead = TABLES_AHEAD * len(devices)
        yield from bounded_map(lambda table: pool.submit(_embed, table).result(), missing, ahead, ahead)


def _without(table: Any, id_column: str, done: set[Any]) -> Any:
    """Return a table without the rows whose ids are done."""
    return table.filter([value not in done for value in table[id_column].to_pylist()]) if done else table


def _start(settings: BulkSettings, fingerprint: str, threads: int, devices: Any) -> None:
    """Make the worker of this process, which ends with its parent."""
    global _worker
    end_with_parent()
    try:
        _worker = Worker(settings, fingerprint, devices.get(), threads)
    except Exception as error:  # raised here, the pool would say that the process was killed, and not why
        _worker = error


def _embed(table: Any) -> Any:
    if isinstance(_worker, Exception):
        raise _worker
    return _worker(table)
