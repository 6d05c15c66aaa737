"""Run a benchmark and write what was measured, in which settings, on what."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .. import distributed
from .catalogue import Benchmark
from .data_sets import DataSet, Problem
from .encoding import PACKAGES, Encoder
from .models import BenchmarkModel, run_on
from .scores import Scores
from .settings import Settings, as_dict, change


def run(
    benchmark: Benchmark,
    folder: str | Path,
    model: BenchmarkModel,
    images: str | Path | None = None,
    preset: str = "paper",
    changes: Mapping[str, str] | None = None,
    language: str | None = None,
    cache: str | Path | None = None,
    show_progress_bar: bool = True,
    with_items: bool = False,
) -> dict[str, Any]:
    """Measure a model on a data set; under `torchrun` the processes share the work, and all return the result.

    Args:
        benchmark: Of [`find_benchmark`].
        folder: The data set as its owners publish it.
        model: Of [`load_model`], or anything with its methods.
        images: Folder or archive of the images; `None`: beside the rest.
        preset: "paper" or "released".
        changes: Settings that are to differ from the preset's; the result is marked with them.
        language: Of the names of classes, where the data set has several; `None`: the benchmark's.
        cache: Folder where embeddings are kept, so that a run that was killed goes on; `None`: nowhere.
        show_progress_bar: With the time left.
        with_items: Whether the result has a number for each item, such as ranks.

    Returns:
        The content of a result file: see docs/benchmarks.md.

    Raises:
        ValueError: The data set can't be read, nothing in it can be used, or a setting is not allowed.
    """
    started = time.perf_counter()
    preset_settings = benchmark.settings(preset)
    settings = change(preset_settings, dict(changes or {}))
    data = benchmark.read(Path(folder), None if images is None else Path(images), settings)
    language = check_language(benchmark, data, language)
    encoder = Encoder(model, None if cache is None else Path(cache), show_progress_bar)
    scores = benchmark.task.evaluate(data, encoder, settings, language)
    result = {
        "benchmark": benchmark.name,
        "task": benchmark.task.__name__.rpartition(".")[2],
        "language": language,
        "preset": preset,
        "changed": changed_settings(preset_settings, settings),
        "settings": as_dict(settings),
        **_measured(scores),
        **counts_and_problems(benchmark, data, scores.left_out),
        "model": {
            "name": model.name,
            "revision": model.revision,
            "fingerprint": model.fingerprint,
            **run_on(model),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "processes": distributed.world_size(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 2),
    }
    if with_items:
        result["items"] = {
            name: [None if np.isnan(v) else v for v in values.tolist()] for name, values in scores.per_item.items()
        }
    return result


def write_result(result: Mapping[str, Any], path: str | Path) -> None:
    """Write a result file, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def check_language(benchmark: Benchmark, data: DataSet, language: str | None) -> str:
    """The language of the names of classes, or of the texts where there are no names."""
    names = getattr(data, "names", {benchmark.language: ()})
    language = language or (benchmark.language if benchmark.language in names else next(iter(names)))
    if language not in names:
        raise ValueError(f"language={language!r}; {benchmark.name} has {', '.join(names)}")
    return language


def changed_settings(preset: Settings, settings: Settings) -> dict[str, Any]:
    """Those that differ from the preset's."""
    before = asdict(preset)
    return {name: value for name, value in asdict(settings).items() if value != before[name]}


def counts_and_problems(benchmark: Benchmark, data: DataSet, unreadable: Sequence[Problem]) -> dict[str, Any]:
    """How much there is, how much was published, and all that could not be used."""
    return {
        "counts": {
            "images": len(data.images),
            "items": data.items,
            "unreadable": len(unreadable),
            "problems": len(data.problems),
            "published": dict(benchmark.published),
        },
        "left_out": [asdict(problem) for problem in (*data.problems, *unreadable)],
    }


def _measured(scores: Scores) -> dict[str, Any]:
    return {"metrics": {name: asdict(estimate) for name, estimate in scores.metrics.items()}}
