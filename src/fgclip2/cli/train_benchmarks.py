"""Benchmarks during `fgclip2 train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..benchmarks.callback import BenchmarkCallback
    from ..benchmarks.catalogue import Benchmark
    from ..training import FGClip2Trainer
    from .train_options import BenchmarkOptions


def add_benchmarks(trainer: FGClip2Trainer, options: BenchmarkOptions) -> BenchmarkCallback | None:
    """Let a trainer measure the benchmarks of the options, if there are any.

    Raises:
        ValueError: An option or a data set can't be used.
        OSError: A benchmark of the package can't be fetched.
    """
    from ..benchmarks.callback import BenchmarkCallback

    entries = _entries(options)
    if not entries:
        return None
    callback = BenchmarkCallback(trainer, entries, options.benchmark_steps, _changes(options))
    trainer.add_callback(callback)
    return callback


def describe_benchmarks(options: BenchmarkOptions) -> list[dict[str, Any]]:
    """Read the benchmarks' data sets: name, images, items and records that can't be used of each.

    Raises:
        ValueError, OSError: As [`add_benchmarks`].
    """
    from ..benchmarks.callback import open_data_set

    described = []
    for benchmark, folder, images in _entries(options):
        data = open_data_set(benchmark, folder, images, _changes(options))
        counts = {"images": len(data.images), "items": data.items, "left_out": len(data.problems)}
        described.append({"name": benchmark.name, **counts})
    return described


def _entries(options: BenchmarkOptions) -> list[tuple[Benchmark, Path, str | None]]:
    """Each benchmark, the folder of its data, and its images."""
    from .bench import fetch_bundled, find_benchmarks

    for name in ("benchmark_images", "benchmark_settings", "benchmark_steps"):
        if getattr(options, name) is not None and not options.benchmarks:
            raise ValueError(f"{name} has no effect without benchmarks; allowed: --benchmarks NAME=FOLDER")
    images = dict(_pair("benchmark_images", each, "NAME=FOLDER") for each in options.benchmark_images or [])
    entries = []
    for each in options.benchmarks or []:
        name, path = _pair("benchmarks", each, "NAME=FOLDER") if "=" in each else (each, None)
        found = find_benchmarks(name, None if path is None else Path(path))
        folder = fetch_bundled() if path is None else Path(path)
        entries += [(benchmark, folder, images.pop(benchmark.name, None)) for benchmark in found]
    if images:
        raise ValueError(f"benchmark_images names {', '.join(images)}; allowed: names of benchmarks")
    return entries


def _changes(options: BenchmarkOptions) -> dict[str, str]:
    return dict(_pair("benchmark_settings", each, "NAME=VALUE") for each in options.benchmark_settings or [])


def _pair(option: str, text: str, allowed: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not (name and value):
        raise ValueError(f"{option}: {text!r}; allowed: {allowed}")
    return name, value
