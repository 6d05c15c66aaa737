"""A bulk run from end to end, on the engine of choice."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

from ..checks import check_choice, check_positive_integer
from .local import choose_devices, run_local
from .output import CHECKPOINT, BulkOutput
from .places import absolute
from .ray_data import devices_of_cluster, ray_running, run_ray
from .settings import BulkSettings
from .sources import open_source

ENGINES = ("local", "ray")
MEBIBYTE = 1 << 20
LEAST_OBJECT_STORE = 75  # MiB, which Ray itself asks for


class BulkReport(NamedTuple):
    """What an output holds after a run.

    Attributes:
        vectors: Rows with a vector, those of earlier runs included.
        errors: Rows that could not be embedded.
        new: Rows of this run.
        seconds: What the run took, the start of its workers included.
    """

    vectors: int
    errors: int
    new: int
    seconds: float


def embed_in_bulk(
    place: str,
    output: str,
    settings: BulkSettings,
    engine: str = "local",
    device: str | list[str] | None = None,
    workers: int | None = None,
    cpus_per_worker: int = 4,
    rows_per_file: int = 1024,
    show_progress_bar: bool | None = None,
    address: str | None = None,
    object_store_mebibytes: int = 1024,
) -> BulkReport:
    """Embed all rows of a place, each exactly once in the output, however often the run is killed and started again.

    Args:
        place: A Parquet file, a tar shard, or a folder of such files or of images: a path, or an address that fsspec
            opens.
        output: New folder, or one that a run with the same input and settings began: a path or an address.
        settings: What is embedded, by what, and from which columns.
        engine: `"local"`: processes on this machine; `"ray"`: Ray Data, on this machine or on a cluster.
        device: E.g. `"cpu"`, `"cuda:1"`, or a list; `None`: all accelerators, else the CPU. With Ray `"cpu"`, `"cuda"`
            or `None`.
        workers: Number of workers; `None`: one on each accelerator, or as many as the cores are enough for.
        cpus_per_worker: Cores that a worker on the CPU computes on.
        rows_per_file: Rows in a file of the output.
        show_progress_bar: `None`: on a terminal.
        address: Of a cluster of Ray, e.g. `"auto"`; `None`: this machine.
        object_store_mebibytes: With Ray on this machine, what rows on their way may take of its memory.

    Returns:
        What the output holds.

    Raises:
        ValueError: The input, its columns or ids, the output or the cluster can't be used; the message says why.
        IncompatibleIndexError: The output is of another model, another input or other settings.
    """
    check_choice("engine", engine, ENGINES)
    for name, value in (("cpus_per_worker", cpus_per_worker), ("rows_per_file", rows_per_file)):
        check_positive_integer(name, value)
    if workers is not None:
        check_positive_integer("workers", workers)
    if engine == "local" and address is not None:
        raise ValueError(f"address={address!r} is that of a cluster, which only engine='ray' has")
    if object_store_mebibytes < LEAST_OBJECT_STORE:
        raise ValueError(f"object_store_mebibytes must be from {LEAST_OBJECT_STORE} on, got {object_store_mebibytes}")
    start = time.monotonic()
    source = open_source(place, settings)
    fingerprint = replace(settings, dtype="float32").load_embedder().fingerprint
    if settings.backend != "torch":
        device = device or "cpu"
    # Of a folder, names are paths below it. Workers may have another working folder.
    folder = source.address if source.form == "" else settings.images_folder
    settings = replace(settings, images_folder=absolute(folder), model=absolute(settings.model))
    with ExitStack() as running:
        if engine == "local":
            ray: Any = None
            devices = choose_devices(device, workers, cpus_per_worker)
        else:
            cpus = cpus_per_worker * workers if workers else max(cpus_per_worker, os.cpu_count() or 1)
            ray = running.enter_context(ray_running(address, cpus, object_store_mebibytes * MEBIBYTE))
            devices = devices_of_cluster(ray, device, workers, cpus_per_worker)
        if settings.dtype is None:
            settings = replace(settings, dtype="float32" if set(devices) == {"cpu"} else "bfloat16")
        facts = {"engine": engine, "fingerprint": fingerprint, "input": source.address, **settings.kept()}
        target = BulkOutput(output, facts)
        running.enter_context(target.locked())
        work = (source, target, settings, fingerprint, devices, cpus_per_worker, rows_per_file)
        if engine == "local":
            before = sum(target.check())
            run_local(*work, show_progress_bar)
        else:  # of a run that was killed there are files that are not whole, until Ray has removed them
            before = len(target.ids(CHECKPOINT))
            run_ray(ray, *work, show_progress_bar)
        vectors, errors = target.check()
    return BulkReport(vectors, errors, vectors + errors - before, time.monotonic() - start)
