"""Results beside published numbers: Markdown in English or Chinese, CSV, and a plot."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path, PureWindowsPath
from typing import Any

from .._imports import require
from ..checks import check_choice
from ..languages import LANGUAGES
from .published import PublishedNumber, Source, published_numbers
from .results import Result, is_part, is_rank, left_out_count, read_results

__all__ = ["Result", "markdown", "plot", "read_results", "write_csv"]

Point = tuple[str, float, Sequence[float] | None]  # label, value and, of ours, interval

_LISTED = 5  # records left out that the Markdown names, of each result
_LONGEST = 60  # characters of a changed setting that it shows; the CSV has all
_MODELS_BESIDE = 4  # columns of models in the overview, and
_METRICS_BESIDE = 6  # of metrics in a table, so that none has more than 8

_DETECTOR = "_detector"  # ends the names of what a detector had by itself
_TEXTS = {
    "en": {
        "title": "Benchmark results",
        "legend": "Percent, with confidence intervals in brackets; ranks as they are. "
        "\\*: settings of the preset were changed. †: measured on a part of the data. "
        "Published numbers were measured by their authors, under settings that they often don't state.",
        "overview": "Overview",
        "published": "published",
        "changed": "changed: ",
        "counts": "{images:,} images, {items:,} items",
        "count_left_out": "{count:,} left out",
        "left_out": "Left out of {model} ({settings}):",
        "more": "and {count} more",
        "sources": "Sources",
        "detector": ", detector alone",
    },
    "zh": {
        "title": "评测结果",
        "legend": "单位为百分比，括号内为置信区间；排名为原值。\\*：改动了预设的设置。†：只用了部分数据。"
        "已发表的数值由其作者测得，测试设置往往没有写明。",
        "overview": "总览",
        "published": "已发表",
        "changed": "改动：",
        "counts": "{images:,} 张图像，{items:,} 个条目",
        "count_left_out": "{count:,} 项未计入",
        "left_out": "{model}（{settings}）未计入：",
        "more": "另有 {count} 项",
        "sources": "来源",
        "detector": "，仅检测器",
    },
}
_COLUMNS = {
    "en": {
        "model": "Model",
        "details": "Details",
        "benchmark": "Benchmark",
        "items": "Items",
        "metric": "Metric",
    },
    "zh": {"model": "模型", "benchmark": "评测", "items": "条目数", "metric": "指标", "details": "说明"},
}
_METRICS = {
    "image_to_text": {"en": "I→T", "zh": "图→文"},
    "text_to_image": {"en": "T→I", "zh": "文→图"},
    "mean_rank": {"en": "mean rank", "zh": "平均排名"},
    "median_rank": {"en": "median rank", "zh": "排名中位数"},
    "mean_recall": {"en": "mean R@1/5/10", "zh": "R@1/5/10 平均"},
    "top1": {"en": "top-1", "zh": "top-1"},
    "top5": {"en": "top-5", "zh": "top-5"},
    "top1_macro": {"en": "top-1, mean of classes", "zh": "top-1，按类平均"},
    "top5_macro": {"en": "top-5, mean of classes", "zh": "top-5，按类平均"},
    "hard_negative_accuracy": {"en": "accuracy", "zh": "准确率"},
    "accuracy": {"en": "accuracy", "zh": "准确率"},
    "auc": {"en": "AUC", "zh": "AUC"},
    "ap": {"en": "AP", "zh": "AP"},
    "ap50": {"en": "AP50", "zh": "AP50"},
    "ap75": {"en": "AP75", "zh": "AP75"},
    "ap_rare": {"en": "AP rare", "zh": "AP（罕见类）"},
    "ap_common": {"en": "AP common", "zh": "AP（普通类）"},
    "ap_frequent": {"en": "AP frequent", "zh": "AP（常见类）"},
    "miou": {"en": "mIoU", "zh": "mIoU"},
}
_MAIN_METRICS = (
    "image_to_text/recall@1",
    "text_to_image/recall@1",
    "top1",
    "hard_negative_accuracy",
    "accuracy",
    "ap",
    "miou",
)
_CSV_COLUMNS = (
    "kind", "benchmark", "metric", "model", "backbone", "revision", "fingerprint", "language", "preset", "changed",
    "data", "value", "low", "high", "count", "images", "items", "unreadable", "problems", "part", "subset", "source",
    "created",
)  # fmt: skip


# What a result says


def model_title(result: Result) -> str:
    """Return what to call the model of a result, e.g. "embedded@main (1f2e3d4c)"."""
    model = result["model"]
    revision = f"@{model['revision']}" if model.get("revision") else ""
    fingerprint = f" ({model['fingerprint'][:8]})" if model.get("fingerprint") else ""
    return f"{model['name']}{revision}{fingerprint}"


def _marks(result: Result) -> str:
    return ("*" if result["changed"] else "") + ("†" if is_part(result) else "")


def _published_model(number: PublishedNumber) -> str:
    return " ".join(filter(None, (number.model, number.backbone)))


def _by_benchmark(results: Sequence[Result]) -> dict[str, list[Result]]:
    names = dict.fromkeys(result["benchmark"] for result in results)
    return {name: [result for result in results if result["benchmark"] == name] for name in names}


def _metrics(results: Iterable[Result]) -> list[str]:
    return list(dict.fromkeys(metric for result in results for metric in result["metrics"]))


def _main_metrics(results: Sequence[Result]) -> list[str]:
    names = _metrics(results)
    return [metric for metric in _MAIN_METRICS if metric in names] or names[:1]


def _data_names(results: Sequence[Result]) -> list[list[str]]:
    """Return folder and digest of the data of each result, e.g. "LIT-CN (1f2e3d4c)", if they are not of the same."""
    if len({result["data"]["digest"] for result in results}) < 2:
        return [[] for _ in results]
    names = [PureWindowsPath(result["data"]["path"] or "").name for result in results]
    return [[f"{name} ({result['data']['digest'][:8]})".strip()] for name, result in zip(names, results, strict=True)]


def headline_scores(results: Sequence[Result], fingerprint: str) -> list[tuple[str, str, str, str, float]]:
    """Return what a card says of a model: (benchmark, kind, language, metric, share of 1), the main metrics only.

    Left out are results of other models, of parts of a data set, and with settings that are not those of a preset.

    Args:
        results: Content of result files.
        fingerprint: That of the checkpoint, see [`checkpoint_fingerprint`].
    """
    own = (result for result in results if result["model"].get("fingerprint") == fingerprint)
    return [
        (result["benchmark"], result["task"], result["language"], metric, result["metrics"][metric]["value"])
        for result in own
        if not is_part(result) and not result["changed"]
        for metric in _main_metrics([result])
        if not is_rank(metric)
    ]


# Markdown


def markdown(results: Sequence[Result], language: str = "en") -> str:
    """Write an overview of results, and for each benchmark tables of all numbers beside the published ones.

    No table has more than 8 columns.

    Args:
        results: What `read_results` returns.
        language: Language of headings and notes, `"en"` or `"zh"`.

    Raises:
        ValueError: `language` is neither.
    """
    check_choice("language", language, LANGUAGES)
    texts = _TEXTS[language]
    sources: dict[Source, int] = {}  # and its number in this report
    parts = [f"# {texts['title']}", texts["legend"], f"## {texts['overview']}", *_overview(results, language)]
    for benchmark, its_results in _by_benchmark(results).items():
        parts += [f"## {_cell(benchmark)}", *_tables(benchmark, its_results, language, sources)]
        parts += [_left_out_note(result, language) for result in its_results if result["left_out"]]
    if sources:
        lines = (
            f"{number}. {', '.join(filter(None, (source.paper, source.table)))}: {source.url}"
            for source, number in sources.items()
        )
        parts += [f"## {texts['sources']}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _overview(results: Sequence[Result], language: str) -> list[str]:
    """Write tables with a row for each benchmark, and the main metrics of all models side by side."""
    columns = _COLUMNS[language]
    rows: dict[tuple[str, ...], dict[str, Result]] = {}  # what was measured -> model -> result
    for benchmark, its_results in _by_benchmark(results).items():
        has_several_languages = len({result["language"] for result in its_results}) > 1
        for result, data_name in zip(its_results, _data_names(its_results), strict=True):
            is_usual = result["preset"] == "paper" and not result["changed"] and not has_several_languages
            settings = [] if is_usual else [_settings(result, language)]
            rows.setdefault((benchmark, *settings, *data_name), {})[model_title(result)] = result
    models = list(dict.fromkeys(model_title(result) for result in results))
    tables = []
    for start in range(0, len(models), _MODELS_BESIDE):
        beside = models[start : start + _MODELS_BESIDE]
        table = [[columns["benchmark"], columns["items"], columns["metric"], *beside], ["---", "---:", "---"]]
        table[1] += ["---:"] * len(beside)
        for key, of_models in rows.items():
            metrics = _main_metrics(list(of_models.values()))
            titles = [_metric_title(metric, language) for metric in metrics]
            counts = f"{next(iter(of_models.values()))['counts']['items']:,}"
            values = [
                "–"
                if model not in of_models
                else " / ".join(_value(metric, of_models[model], interval=False) for metric in metrics)
                + _marks(of_models[model])
                for model in beside
            ]
            table.append(["; ".join(key), counts, " / ".join(titles), *values])
        tables.append(_table(table))
    return tables


def _tables(benchmark: str, results: Sequence[Result], language: str, sources: dict[Source, int]) -> list[str]:
    """Write tables of all metrics, those of one direction or of a detector alone beside each other; number sources."""
    texts, published = _TEXTS[language], published_numbers(benchmark)
    measured: list[tuple[str, dict[str, str], str]] = []  # model, metric -> value, details
    for result, data_name in zip(results, _data_names(results), strict=True):
        details = [_settings(result, language), *data_name, texts["counts"].format(**result["counts"])]
        details += [texts["count_left_out"].format(count=left_out_count(result))] if left_out_count(result) else []
        details += [created[:10]] if (created := result.get("created", "")) else []
        values = {metric: _value(metric, result) for metric in result["metrics"]}
        measured.append((model_title(result) + _marks(result), values, "; ".join(details)))
    rows: dict[tuple[str, Source, str | None], dict[str, str]] = {}
    for number in published:
        sources.setdefault(number.source, len(sources) + 1)
        row = rows.setdefault((_published_model(number), number.source, number.subset), {})
        row[number.metric] = f"{number.value:.1%}"[:-1]
    for (model, source, subset), values in rows.items():
        kind = f"{texts['published']}, {subset}" if subset else texts["published"]
        measured.append((model, values, f"{kind} [{sources[source]}]"))
    tables = []
    metrics = dict.fromkeys([*_metrics(results), *(number.metric for number in published)])
    by_group = sorted(metrics, key=lambda metric: (metric.endswith(_DETECTOR), metric.rpartition("/")[0]))
    for _, group in groupby(by_group, key=lambda metric: (metric.endswith(_DETECTOR), metric.rpartition("/")[0])):
        its_metrics = list(group)
        for start in range(0, len(its_metrics), _METRICS_BESIDE):
            beside = its_metrics[start : start + _METRICS_BESIDE]
            titles = [_metric_title(metric, language) for metric in beside]
            table = [[_COLUMNS[language]["model"], *titles, _COLUMNS[language]["details"]]]
            table.append(["---", *["---:"] * len(beside), "---"])
            for model, values, its_details in measured:
                if not values.keys().isdisjoint(beside):
                    table.append([model, *(values.get(metric, "–") for metric in beside), its_details])
            tables.append(_table(table))
    return tables


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _metric_title(metric: str, language: str) -> str:
    """Return e.g. "I→T R@1" for "image_to_text/recall@1"; a metric that has no title keeps its name."""
    if metric.endswith(_DETECTOR):
        return f"{_metric_title(metric.removesuffix(_DETECTOR), language)}{_TEXTS[language]['detector']}"
    words = [part.replace("recall@", "R@") for part in metric.split("/")]
    return " ".join(_METRICS[word][language] if word in _METRICS else word for word in words)


def _value(metric: str, result: Result, interval: bool = True) -> str:
    """Return e.g. "82.4 [80.0, 84.0]"."""
    content = result["metrics"].get(metric)
    if content is None:
        return "–"
    scale = 1 if is_rank(metric) else 100
    bounds = content.get("interval") if interval else None
    brackets = f" [{bounds[0] * scale:.1f}, {bounds[1] * scale:.1f}]" if bounds else ""
    return f"{content['value'] * scale:.1f}{brackets}"


def _settings(result: Result, language: str) -> str:
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in result["changed"].items()}
    short = (f"{key}={text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}" for key, text in texts.items())
    note = [_TEXTS[language]["changed"] + ", ".join(short)] if texts else []
    return "; ".join([f"{result['preset']}, {result['language']}", *note])


def _left_out_note(result: Result, language: str) -> str:
    texts = _TEXTS[language]
    title = texts["left_out"].format(model=model_title(result), settings=_settings(result, language))
    lines = [f"{record['source']}: {record['reason']}" for record in result["left_out"][:_LISTED]]
    if left_out_count(result) > _LISTED:
        lines.append(texts["more"].format(count=left_out_count(result) - _LISTED))
    return "\n".join([_cell(title), "", *(f"- {_cell(line)}" for line in lines)])


def _cell(text: str) -> str:
    """Keep text of a result from being read as a column, a line or HTML."""
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*").split())


# CSV


def write_csv(results: Sequence[Result], path: str | Path) -> None:
    """Write one line for each number, measured and published; shares from 0 to 1, UTF-8."""
    lines: list[dict[str, Any]] = []
    for result in results:
        common = {
            "kind": "measured",
            "model": result["model"]["name"],
            "changed": json.dumps(result["changed"], ensure_ascii=False) if result["changed"] else "",
            "part": is_part(result),
            **{key: result["model"].get(key) or "" for key in ("revision", "fingerprint")},
            **{key: result.get(key, "") for key in ("benchmark", "language", "preset", "created")},
            "data": result["data"]["path"],
            **{key: result["counts"][key] for key in ("images", "items", "unreadable", "problems")},
        }
        for metric, content in result["metrics"].items():
            low, high = content.get("interval") or ("", "")
            numbers = {"value": content["value"], "low": low, "high": high, "count": content["count"]}
            lines.append({**common, "metric": metric, **numbers})
    for number in (number for benchmark in _by_benchmark(results) for number in published_numbers(benchmark)):
        keys = ("benchmark", "metric", "model", "backbone", "value", "subset")
        own = {key: getattr(number, key) for key in keys}
        lines.append({"kind": "published", "source": number.source.key, **own})
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _CSV_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(lines)


# Plot


def plot(results: Sequence[Result], path: str | Path) -> None:
    """Draw the first metrics of each benchmark: ours filled with its interval, the published ones hollow.

    Args:
        results: What `read_results` returns.
        path: The file to write; its ending is the format, `.png`, `.svg` or `.pdf`.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The file has another ending, or there is no result.
    """
    if Path(path).suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"path must end in .png, .svg or .pdf, got {str(path)!r}")
    if not results:
        raise ValueError("results is empty; pass at least one result")
    require("matplotlib", "bench")
    from matplotlib.figure import Figure  # not pyplot: neither a screen nor state that the caller may have

    panels = [(name, its_results, _main_metrics(its_results)) for name, its_results in _by_benchmark(results).items()]
    points = {(name, metric): _points(name, its, metric) for name, its, metrics in panels for metric in metrics}
    heights = [1 + 0.25 * max(len(points[name, metric]) for metric in metrics) for name, _, metrics in panels]
    columns = max(len(metrics) for *_, metrics in panels)
    figure = Figure(figsize=(7.5 * columns, sum(heights) + 0.5), layout="constrained")
    figure.suptitle(
        "filled: measured, hollow: published, *: changed settings, +: a part of the data", fontsize="medium"
    )
    grid = figure.add_gridspec(len(panels), columns, height_ratios=heights)
    for row, (name, _, metrics) in enumerate(panels):
        for column, metric in enumerate(metrics):
            _draw(figure.add_subplot(grid[row, column]), f"{name}: {metric}", points[name, metric], is_rank(metric))
    figure.savefig(path)


def _points(benchmark: str, results: Sequence[Result], metric: str) -> list[Point]:
    """Return what to draw, ours first; where ours have no interval, it is the value alone."""
    points: list[Point] = []
    for result, data_name in zip(results, _data_names(results), strict=True):
        if content := result["metrics"].get(metric):
            marks = _marks(result).replace("†", "+")
            label = f"{', '.join([model_title(result), result['preset'], result['language'], *data_name])}{marks}"
            points.append((label, content["value"], content.get("interval") or (content["value"],) * 2))
    for number in published_numbers(benchmark):
        if number.metric == metric:
            label = ", ".join(filter(None, (_published_model(number), number.subset)))
            points.append((f"{label} ({number.source.key})", number.value, None))
    return points


def _draw(axes: Any, title: str, points: Sequence[Point], are_ranks: bool) -> None:
    scale = 1 if are_ranks else 100
    ours = [(row, value, interval) for row, (_, value, interval) in enumerate(points) if interval]
    theirs = [(row, value) for row, (_, value, interval) in enumerate(points) if not interval]
    axes.hlines([row for row, *_ in ours], *([bounds[i] * scale for *_, bounds in ours] for i in (0, 1)), linewidth=2)
    axes.plot([value * scale for _, value, _ in ours], [row for row, *_ in ours], "o", color="C0")
    axes.plot([value * scale for _, value in theirs], [row for row, _ in theirs], "o", color="0.4", fillstyle="none")
    axes.set_yticks(range(len(points)), [_ascii(label) for label, *_ in points], parse_math=False)
    axes.set_ylim(len(points) - 0.5, -0.5)  # the first on top
    axes.set_title(_ascii(title), parse_math=False)
    axes.set_xlabel("rank" if are_ranks else "percent")
    axes.grid(axis="x", alpha=0.3)


def _ascii(text: str) -> str:
    """Fonts with Chinese characters are not everywhere."""
    return text.encode("ascii", "backslashreplace").decode()
