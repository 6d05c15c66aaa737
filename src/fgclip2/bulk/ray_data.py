"""Bulk embedding by Ray Data: on this machine or a cluster, it reads, schedules, retries and writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from .._imports import require
from ..checks import check_choice
from .output import CHECKPOINT, BulkOutput
from .settings import BulkSettings
from .sources import TABLE as PARQUET
from .sources import BulkSource
from .worker import TABLE, Worker

OTHER_CPUS = 4  # for listing, reading, cutting and writing, beside the workers: with fewer, Ray may wait for itself
# On a busy machine the processes of Ray take longer to start than it waits for by default.
PATIENCE = {"RAY_raylet_start_wait_time_s": "200", "RAY_agent_register_timeout_ms": "300000"}


@contextmanager
def ray_running(address: str | None, cpus: int, object_store_bytes: int) -> Iterator[Any]:
    """Yield the module of Ray, connected to a cluster, or to a new one on this machine, which ends with the context.

    Nothing is reported to its makers, and a new one has no dashboard. A connection that is there already is used.

    Args:
        address: Of a cluster, e.g. `"auto"` or `"10.0.0.1:6379"`; `None`: this machine.
        cpus: Of workers on this machine.
        object_store_bytes: What rows on their way may take of the memory of this machine; Ray puts others on disk.

    Raises:
        ImportError: The extra `ray` is not installed.
        ValueError: There is no cluster at the address, or none can be started.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    ray = require("ray", "ray")
    require("ray.data", "ray")
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"address": address}
    if address is None:  # "local": else one that the environment names would be taken
        options = {"address": "local", "num_cpus": cpus + OTHER_CPUS, "object_store_memory": object_store_bytes}
        options["include_dashboard"] = False
    try:
        ray.init(**options, log_to_driver=False, logging_level="error")
    except Exception as error:  # of many kinds, plain ones among them
        where = "on this machine" if address is None else f"at {address}"
        raise ValueError(f"Ray can't be reached or started {where}: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def devices_of_cluster(ray: Any, device: Any, workers: int | None, cpus_per_worker: int) -> list[str]:
    """Return the kind of device of each worker: one for each GPU, else as many as the cores are enough for.

    Raises:
        ValueError: The cluster has too little for `workers`, or the device is none of a cluster.
    """
    check_choice("device", device, (None, "cpu", "cuda"))
    there = ray.cluster_resources()
    gpus, cpus = int(there.get("GPU", 0)), int(there.get("CPU", 0))
    kind = device or ("cuda" if gpus else "cpu")
    most = min(gpus, cpus) if kind == "cuda" else (cpus - OTHER_CPUS) // cpus_per_worker
    if most < (workers or 1):
        needs = "a GPU" if kind == "cuda" else f"{cpus_per_worker} CPUs"
        raise ValueError(
            f"the cluster has {cpus} CPUs and {gpus} GPUs, enough for {max(most, 0)} workers with {needs} each "
            f"beside {OTHER_CPUS} CPUs for reading and writing: lower `workers` or `cpus_per_worker`, or add nodes"
        )
    return [kind] * (workers or most)


def run_ray(
    ray: Any,
    source: BulkSource,
    output: BulkOutput,
    settings: BulkSettings,
    fingerprint: str,
    devices: list[str],
    cpus_per_worker: int,
    rows_per_file: int,
    show_progress_bar: bool | None = None,
) -> None:
    """Embed the rows of a source that the output doesn't have.

    Args:
        ray: The module, connected.
        source, output, settings, fingerprint: See [`Worker`].
        devices: The kind of device of each worker, one for all.
        cpus_per_worker: Cores of each worker on the CPU.
        rows_per_file: Rows of a block, which is written to one file.
        show_progress_bar: `None`: on a terminal.
    """
    from ray.data.checkpoint import CheckpointConfig

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = sys.stderr.isatty() if show_progress_bar is None else show_progress_bar
    context.checkpoint_config = CheckpointConfig(
        id_column=settings.id_column,
        checkpoint_path=f"{output.root}/{CHECKPOINT}",
        override_filesystem=output.filesystem,
        delete_checkpoint_on_success=False,  # else the same command again would add all rows again
    )
    on_gpu = devices[0] != "cpu"
    with ray.data.DataContext.current(context):
        if source.form == PARQUET:
            options = {"filesystem": source.filesystem, "partitioning": None}  # or folders would become columns
            rows = ray.data.read_parquet(source.paths, **options).select_columns(settings.columns)
        else:
            rows = ray.data.read_datasource(make_datasource(ray, source))
        results = rows.repartition(target_num_rows_per_block=rows_per_file).map_batches(
            Worker,
            fn_constructor_args=(settings, fingerprint, devices[0], cpus_per_worker),
            compute=ray.data.ActorPoolStrategy(size=len(devices)),
            batch_size=None,  # a block
            batch_format="pyarrow",
            num_cpus=1 if on_gpu else cpus_per_worker,
            num_gpus=1 if on_gpu else 0,
        )
        # Each table becomes a folder of this name; a column name in its name (Hive) would be the default.
        tables: dict[str, Any] = {"partition_cols": [TABLE], "partitioning_flavor": None}
        results.write_parquet(output.tables, filesystem=output.filesystem, **tables)


def make_datasource(ray: Any, source: BulkSource) -> Any:
    """Return a source of shards or of image files as Ray Data reads it: a task for each of its pieces."""
    from ray.data.block import BlockMetadata

    class BulkDatasource(ray.data.Datasource):
        def get_read_tasks(
            self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
        ) -> list[Any]:
            unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
            return [ray.data.ReadTask(partial(source.read, piece), unknown) for piece in source.pieces()]

        def estimate_inmemory_data_size(self) -> int | None:
            return None

    return BulkDatasource()
