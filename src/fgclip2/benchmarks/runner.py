"""Run a benchmark, and say what was measured, in which settings, on what."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path, PureWindowsPath
from typing import Any

from .. import distributed
from ..checks import check_choice, check_positive_integer, one_of
from ..embedding.reranker import CANDIDATES, RERANKERS
from ..files import replacing
from .base import DataSet, Settings, as_dict
from .catalogue import Benchmark
from .encoding import PACKAGES, Encoder
from .models import UNTRAINED, BenchmarkModel, ignored_settings, load_model, run_on, text_use
from .reranking import describe_reranking, require_reranking
from .scores import Scores
from .tasks import matching, retrieval

MAX_LEFT_OUT = 1000  # named in a result; all are counted


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
    follow_links: bool = False,
    rerank: str | None = None,
    candidates: int | None = None,
) -> dict[str, Any]:
    """Measure a model on a data set. In a process group the processes share the work, and all return the result.

    Args:
        benchmark: What [`find_benchmark`] returns.
        folder: The data set as its owners publish it.
        model: What [`load_model`] returns, or anything with its methods.
        images: Folder or archive of the images; `None`: beside the rest.
        preset: One of `PRESETS`: "paper", "released", "fg-clip-v1" or "r2d2".
        changes: Settings that are to differ from the preset's; the result is marked with them.
        language: Language of the names of classes, where the data set has several; `None`: the benchmark's.
        cache: Folder where embeddings are kept, so that a run that was killed goes on; `None`: nowhere.
        show_progress_bar: With the time left.
        with_items: Whether the result has a number for each item, such as ranks.
        follow_links: Read images that links in the folders lead to outside them; by default these are left out.
        rerank: "phrases" or "model": measure re-ranking too, see [`Embedder.rerank`], in retrieval and matching. Its
            metrics have names that begin with `reranked/`, and the result says under `reranking` what it depends on.
            `None`: what the preset does, which is "model" in "r2d2" and nothing in all others.
        candidates: How many first candidates of a query are re-ranked; `None`: as many as the preset says, else 20.
            Matching has none, all its pairs are scored.

    Returns:
        The content of a result file.

    Raises:
        ValueError: The data set can't be read, nothing in it can be used, or a setting is not allowed.
    """
    started = time.perf_counter()
    settings = benchmark.changed_settings(preset, changes or {})
    rerank = check_reranking(benchmark, rerank, preset)
    if candidates is not None:
        check_positive_integer("candidates", candidates)
    if rerank:
        require_reranking(model, rerank)  # now rather than after all images are encoded
    data = benchmark.read(Path(folder), None if images is None else Path(images), settings, follow_links)
    language = names_language(benchmark, data, language)
    texts = data.own_texts
    use = text_use(model, texts, settings.role) if texts else None
    source: dict[str, Any] = {"texts": use}
    if not benchmark.is_fetched:
        source |= {"path": str(folder), "images": None if images is None else str(images)}
    encoder = Encoder(model, None if cache is None else Path(cache), show_progress_bar)
    options: dict[str, Any] = {}  # kinds that have nothing to re-rank have no such arguments
    if rerank:
        options = {"rerank": rerank}
        if benchmark.task is retrieval:
            its_preset = benchmark.r2d2_candidates if preset == "r2d2" else None
            options["candidates"] = candidates or its_preset or CANDIDATES
    scores = benchmark.task.evaluate(data, encoder, settings, language, **options)
    result = make_result(
        benchmark,
        preset,
        settings,
        language,
        data,
        source,
        scores,
        describe(model),
        started,
        with_items,
    )
    if rerank:
        result["reranking"] = describe_reranking(rerank, benchmark.kind, options.get("candidates"))
    return result


def check_reranking(benchmark: Benchmark, rerank: str | None, preset: str) -> str | None:
    """Return how a benchmark is re-ranked, by the argument of [`run`] or by the preset.

    Raises:
        ValueError: It is of a kind without re-ranking, or the argument is wrong.
    """
    check_choice("rerank", rerank, (None, *RERANKERS))
    can_be = benchmark.task in (retrieval, matching)
    if rerank and not can_be:
        raise ValueError(f"{benchmark.name} is of the kind {benchmark.kind}: only retrieval and matching are re-ranked")
    return "model" if preset == "r2d2" and can_be and rerank is None else rerank


def run_all(
    benchmarks: Sequence[Benchmark],
    folder: str | Path,
    models: Iterable[str | None],
    device: Any = None,
    dtype: str = "auto",
    revision: str | None = None,
    **options: Any,
) -> Iterator[dict[str, Any]]:
    """Yield the results of several benchmarks and models, each as soon as it is there.

    Args:
        benchmarks: Rows of the catalogue whose data are in the same folder.
        folder: See [`run`].
        models: Names of models, of which one is loaded at a time.
        device, dtype, revision: See [`load_model`]; the control `"untrained"` has no revision.
        options: Further arguments of [`run`].

    Raises:
        OSError, ValueError: See [`load_model`] and [`run`].
    """
    for name in models:
        model = load_model(name, device, dtype, None if name == UNTRAINED else revision)
        for benchmark in benchmarks:
            yield run(benchmark, folder, model, **options)


def make_result(
    benchmark: Benchmark,
    preset: str,
    settings: Settings,
    language: str,
    data: DataSet,
    source: Mapping[str, Any],
    scores: Scores,
    model: Mapping[str, Any],
    started: float,
    with_items: bool = False,
) -> dict[str, Any]:
    """Return the content of a result file.

    Args:
        benchmark, preset, settings, language, data, scores: What was measured.
        source: Where the data are.
        model: What [`describe`] returns, or the same of what is no model.
        started: When the run did, by `time.perf_counter`.
        with_items: See [`run`].
    """
    left_out = [asdict(problem) for problem in (*data.problems, *scores.left_out)]
    preset_values = asdict(benchmark.settings(preset))
    result = {
        "benchmark": benchmark.name,
        "task": benchmark.kind,
        "language": language,
        "preset": preset,
        "changed": {name: value for name, value in asdict(settings).items() if value != preset_values[name]},
        "settings": as_dict(settings),
        "metrics": {
            name: {
                "value": estimate.value,
                "interval": estimate.interval and estimate.interval(),
                "count": estimate.count,
            }
            for name, estimate in scores.metrics.items()
        },
        "counts": {
            "images": len(data.images),
            "items": data.items,
            "unreadable": len(scores.left_out),
            "problems": len(data.problems),
        },
        "published_counts": dict(benchmark.published),
        "data": {"path": None, "images": None, "texts": None, **source, "digest": data.digest()},
        "left_out": left_out[:MAX_LEFT_OUT],
        "model": dict(model),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in (*PACKAGES, *scores.packages)},
        },
        "processes": distributed.world_size(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 2),
    }
    if with_items:  # JSON has no NaN
        result["per_item"] = {
            name: [None if value != value else value for value in values.tolist()]
            for name, values in scores.per_item.items()
        }
    return result


def describe(model: BenchmarkModel) -> dict[str, Any]:
    """Return what a result says of its model."""
    return {
        "name": model.name,
        "revision": model.revision,
        "fingerprint": model.fingerprint,
        **run_on(model),
        "ignored_settings": ignored_settings(model),
    }


def names_language(benchmark: Benchmark, data: DataSet, language: str | None) -> str:
    """Return the language of the names of classes, or of the texts where there are none.

    Raises:
        ValueError: The data set has none in that language.
    """
    names: Sequence[str] = list(getattr(data, "names", {benchmark.language: None}))
    language = language or (benchmark.language if benchmark.language in names else names[0])
    if language not in names:
        raise ValueError(f"language must be {one_of(names)} for {benchmark.name}, got {language!r}")
    return language


def result_path(folder: str | Path, result: Mapping[str, Any]) -> Path:
    """Return where to keep a result: one of other data, weights, language, preset or settings gets another file."""
    benchmark, language, model = result["benchmark"], result["language"], result["model"]
    identity = [model[key] for key in ("name", "revision", "fingerprint", "dtype")]
    identity += [result["data"]["digest"], result["changed"]]
    identity += [result["reranking"]] if "reranking" in result else []
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    short_name = re.sub(r"[^\w.-]+", "-", PureWindowsPath(model["name"]).name).strip("-.")[:40]
    first = benchmark if benchmark.endswith(f"-{language}") else f"{benchmark}-{language}"
    return Path(folder) / f"{first}-{short_name}-{result['preset']}-{digest}.json"


def write_result(result: Mapping[str, Any], path: Path) -> None:
    """Write a result file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
