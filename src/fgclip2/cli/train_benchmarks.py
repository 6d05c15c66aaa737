"""Benchmarks during `fgclip2 train`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..benchmarks.callback import BenchmarkCallback
    from ..training import FGClip2Trainer
    from .train_options import BenchmarkOptions


def add_benchmarks(trainer: FGClip2Trainer, options: BenchmarkOptions) -> BenchmarkCallback | None:
    """Let a trainer measure the benchmarks of the options, if there are any.

    Raises:
        ValueError: An option or a data set can't be used.
        OSError: A benchmark of the package can't be fetched.
    """
    from ..benchmarks.callback import BenchmarkCallback, parse_changes, parse_entries

    _check_use(options)
    entries = parse_entries(options.benchmarks or [], options.benchmark_images or [])
    if not entries:
        return None
    changes = parse_changes(options.benchmark_settings or [])
    callback = BenchmarkCallback(trainer, entries, options.benchmark_steps, changes)
    trainer.add_callback(callback)
    return callback


def describe_benchmarks(options: BenchmarkOptions) -> list[dict[str, Any]]:
    """Read the benchmarks' data sets; return name, images, items and records left out of each.

    Raises:
        ValueError, OSError: As in [`add_benchmarks`].
    """
    from ..benchmarks.callback import describe, parse_changes, parse_entries

    _check_use(options)
    entries = parse_entries(options.benchmarks or [], options.benchmark_images or [])
    return describe(entries, parse_changes(options.benchmark_settings or []))


def _check_use(options: BenchmarkOptions) -> None:
    for name in ("benchmark_images", "benchmark_settings", "benchmark_steps"):
        if getattr(options, name) is not None and not options.benchmarks:
            raise ValueError(
                f"{name} has no effect without benchmarks: name one with --benchmarks NAME=FOLDER, or leave {name} out"
            )
