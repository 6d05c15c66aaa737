"""Results beside published numbers: Markdown in English or Chinese, CSV, and a plot."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from .._imports import require
from ..languages import LANGUAGES
from .published import PublishedNumber, Source, published_numbers

Result = dict[str, Any]  # content of a result file
Point = tuple[str, float, Sequence[float] | None]  # label, value and, of ours, interval

_LISTED = 5  # records left out that the Markdown names, of each result
_LONGEST = 60  # characters of a changed setting that it shows; the CSV has all

_LONGEST_VALUE = 200  # characters of a wrong value that an error shows: it may be a whole file of something else

_DETECTOR = "_detector"  # ends the names of what a detector had by itself
_TEXTS = {
    "en": {
        "title": "Benchmark results",
        "legend": "Percent, with confidence intervals in brackets; ranks as they are. "
        "\\*: settings of the preset were changed. †: measured on a part of the data. "
        "Published numbers were measured by their authors, under settings that they often don't state.",
        "published": "published",
        "changed": "changed: ",
        "measured": "measured",
        "left_out": "Left out of {model} ({settings}):",
        "more": "and {count} more",
        "sources": "Sources",
        "detector": ", detector alone",
    },
    "zh": {
        "title": "评测结果",
        "legend": "单位为百分比，括号内为置信区间；排名为原值。\\*：改动了预设的设置。†：只用了部分数据。"
        "已发表的数值由其作者测得，测试设置往往没有写明。",
        "published": "已发表",
        "changed": "改动：",
        "measured": "实测",
        "left_out": "{model}（{settings}）未计入：",
        "more": "另有 {count} 项",
        "sources": "来源",
        "detector": "，仅检测器",
    },
}
_COLUMNS = {
    "en": ("Model", "Settings", "Images", "Items", "Left out", "Source"),
    "zh": ("模型", "设置", "图像数", "条目数", "未计入", "来源"),
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
_PLOTTED = (
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


# Reading


def read_results(paths: str | Path | Iterable[str | Path]) -> list[Result]:
    """Read result files and check them.

    Args:
        paths: Files, or folders of which each `*.json` is read, in the order of the names.

    Returns:
        The content of each file.

    Raises:
        ValueError: A file or a folder with results is missing, or a file is not a result; the message names file, key
            and value, and says what is allowed.
    """
    files: list[Path] = []
    for path in [Path(paths)] if isinstance(paths, (str, Path)) else map(Path, paths):
        found = sorted(path.glob("*.json")) if path.is_dir() else [path] if path.is_file() else []
        if not found:
            raise ValueError(f"{path}: no result there; allowed: a result file, or a folder with result files (*.json)")
        files += found
    return [_read_result(file) for file in files]


def _read_result(file: Path) -> Result:
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
        raise ValueError(f"{file}: {error}; allowed: a result as JSON in UTF-8") from error
    _check_result(result, str(file))
    return result


def _check_result(result: Any, file: str) -> None:
    _check(isinstance(result, dict), file, result, "a JSON object")
    for key in ("benchmark", "language", "preset"):
        _check_key(result, key, file, lambda value: isinstance(value, str) and value != "", "a text that is not empty")
    for key in ("changed", "settings", "metrics", "counts", "model", "data"):
        _check_key(result, key, file, lambda value: isinstance(value, dict), "a JSON object")
    for key, of_it in (("model", "name"), ("data", "digest")):
        _check_key(result[key], of_it, f"{file}: {key}", lambda value: isinstance(value, str), "a text")
    _check_key(
        result["data"], "path", f"{file}: data", lambda path: path is None or isinstance(path, str), "a text or null"
    )
    for key in ("images", "items", "unreadable", "problems"):
        _check_key(result["counts"], key, f"{file}: counts", _is_count, "a whole number from 0")
    _check(bool(result["metrics"]), f"{file}: metrics", {}, "at least one metric")
    for metric, content in result["metrics"].items():
        _check_metric(metric, content, f"{file}: metrics.{metric}")
    _check_key(result, "left_out", file, _is_left_out, 'a list of {"source": text, "reason": text}')


def _check_metric(metric: str, content: Any, place: str) -> None:
    _check(isinstance(content, dict), place, content, 'a JSON object with "value", "interval" and "count"')
    low, high = (1.0, math.inf) if _is_rank(metric) else (0.0, 1.0)
    allowed = "a finite number from 1" if _is_rank(metric) else "a number from 0 to 1"
    _check_key(content, "value", place, lambda value: _is_number(value) and low <= value <= high, allowed)
    _check_key(content, "count", place, _is_count, "a whole number from 0")
    interval = content.get("interval")
    is_interval = isinstance(interval, list) and len(interval) == 2 and all(map(_is_number, interval))
    is_right = interval is None or (is_interval and low <= interval[0] <= interval[1] <= high)
    _check(is_right, f"{place}.interval", interval, f"null, or two numbers, the lower first, each {allowed}")


def _check_key(content: dict[str, Any], key: str, place: str, is_right: Callable[[Any], bool], allowed: str) -> None:
    if key not in content:
        raise ValueError(f"{place}: {key} is missing; allowed: {allowed}")
    _check(is_right(content[key]), f"{place}: {key}", content[key], allowed)


def _check(is_right: bool, place: str, value: Any, allowed: str) -> None:
    if not is_right:
        text = repr(value)
        short = text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
        raise ValueError(f"{place}={short}; allowed: {allowed}")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_left_out(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict) and isinstance(each.get("source"), str) and isinstance(each.get("reason"), str)
        for each in value
    )


# What a result says


def _is_rank(metric: str) -> bool:
    return metric.endswith("_rank")


def _left_out_count(result: Result) -> int:
    return result["counts"]["unreadable"] + result["counts"]["problems"]


def _is_part(result: Result) -> bool:
    """Whether less than the whole data set was measured: something can't be used, or is not there."""
    published = result.get("published_counts", {})
    return _left_out_count(result) > 0 or any(
        result["counts"].get(name, count) < count for name, count in published.items()
    )


def _model(result: Result) -> str:
    """E.g. "embedded@main (1f2e3d4c)"."""
    model = result["model"]
    revision = f"@{model['revision']}" if model.get("revision") else ""
    fingerprint = f" ({model['fingerprint'][:8]})" if model.get("fingerprint") else ""
    return f"{model['name']}{revision}{fingerprint}"


def _marks(result: Result) -> str:
    return ("*" if result["changed"] else "") + ("†" if _is_part(result) else "")


def _published_model(number: PublishedNumber) -> str:
    return " ".join(filter(None, (number.model, number.backbone)))


def _by_benchmark(results: Sequence[Result]) -> dict[str, list[Result]]:
    return {name: [each for each in results if each["benchmark"] == name] for name in _unique(results, "benchmark")}


def _unique(results: Sequence[Result], key: str) -> list[Any]:
    return list(dict.fromkeys(each[key] for each in results))


def _metrics(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(metric for each in results for metric in each["metrics"]))


# Markdown


def markdown(results: Sequence[Result], language: str = "en") -> str:
    """Tables of results beside the published numbers, one for each benchmark.

    Args:
        results: What `read_results` returns.
        language: Of headings and notes, `"en"` or `"zh"`.

    Raises:
        ValueError: `language` is neither.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language={language!r}; allowed: {', '.join(LANGUAGES)}")
    texts = _TEXTS[language]
    sources: dict[Source, int] = {}  # and its number in this report
    sections = [_section(name, each, language, sources) for name, each in _by_benchmark(results).items()]
    parts = [f"# {texts['title']}", texts["legend"], *sections]
    if sources:
        parts += [f"## {texts['sources']}", "\n".join(_source_line(*each) for each in sources.items())]
    return "\n\n".join(parts) + "\n"


def _section(benchmark: str, results: Sequence[Result], language: str, sources: dict[Source, int]) -> str:
    published = published_numbers(benchmark)
    metrics = list(dict.fromkeys([*_metrics(results), *(each.metric for each in published)]))
    model, settings, *rest = _COLUMNS[language]
    head = [model, settings, *(_metric_title(each, language) for each in metrics), *rest]
    rows = [head, ["---"] * 2 + ["---:"] * (len(metrics) + 3) + ["---"]]
    names = _data_names(results)
    rows += [_measured_row(each, metrics, language, *name) for each, name in zip(results, names, strict=True)]
    rows += _published_rows(published, metrics, language, sources)
    table = "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)
    notes = [_left_out_note(each, language) for each in results if each["left_out"]]
    return "\n\n".join([f"## {_cell(benchmark)}", table, *notes])


def _data_names(results: Sequence[Result]) -> list[list[str]]:
    """E.g. "LIT-CN (1f2e3d4c)": folder and digest of each, where they are not of the same data."""
    if len({each["data"]["digest"] for each in results}) < 2:
        return [[] for _ in results]
    names = [PureWindowsPath(each["data"]["path"] or "").name for each in results]
    return [[f"{name} ({each['data']['digest'][:8]})".strip()] for name, each in zip(names, results, strict=True)]


def _measured_row(result: Result, metrics: Sequence[str], language: str, *data_name: str) -> list[str]:
    values = [_value(metric, result["metrics"].get(metric)) for metric in metrics]
    counts = [f"{result['counts'][key]:,}" for key in ("images", "items")]
    measured = f"{_TEXTS[language]['measured']} {result.get('created', '')[:10]}".strip()
    name = _model(result) + _marks(result)
    settings = "; ".join([_settings(result, language), *data_name])
    return [name, settings, *values, *counts, f"{_left_out_count(result):,}", measured]


def _published_rows(
    published: Sequence[PublishedNumber], metrics: Sequence[str], language: str, sources: dict[Source, int]
) -> list[list[str]]:
    """One row for each model, source and subset; gives each new source its number."""
    rows: dict[tuple[str, Source, str | None], dict[str, str]] = {}
    for each in published:
        sources.setdefault(each.source, len(sources) + 1)
        row = rows.setdefault((_published_model(each), each.source, each.subset), {})
        row[each.metric] = f"{each.value:.1%}"[:-1]
    kind = _TEXTS[language]["published"]
    table = []
    for (model, source, subset), row in rows.items():
        values = [row.get(metric, "–") for metric in metrics]
        table.append([model, f"{kind}, {subset}" if subset else kind, *values, "–", "–", "–", f"[{sources[source]}]"])
    return table


def _source_line(source: Source, number: int) -> str:
    printed = ", ".join(filter(None, (source.paper, source.table)))
    return f"{number}. {printed}: {source.url}"


def _metric_title(metric: str, language: str) -> str:
    """E.g. "I→T R@1" of "image_to_text/recall@1"; a metric that has no title keeps its name."""
    if metric.endswith(_DETECTOR):
        return f"{_metric_title(metric.removesuffix(_DETECTOR), language)}{_TEXTS[language]['detector']}"
    words = [part.replace("recall@", "R@") for part in metric.split("/")]
    return " ".join(_METRICS[word][language] if word in _METRICS else word for word in words)


def _value(metric: str, content: dict[str, Any] | None) -> str:
    """E.g. "82.4 [80.0, 84.0]"."""
    if content is None:
        return "–"
    scale = 1 if _is_rank(metric) else 100
    interval = content.get("interval")
    bounds = f" [{interval[0] * scale:.1f}, {interval[1] * scale:.1f}]" if interval else ""
    return f"{content['value'] * scale:.1f}{bounds}"


def _settings(result: Result, language: str) -> str:
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in result["changed"].items()}
    short = (f"{key}={text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}" for key, text in texts.items())
    note = [_TEXTS[language]["changed"] + ", ".join(short)] if texts else []
    return "; ".join([f"{result['preset']}, {result['language']}", *note])


def _left_out_note(result: Result, language: str) -> str:
    texts = _TEXTS[language]
    title = texts["left_out"].format(model=_model(result), settings=_settings(result, language))
    lines = [f"{each['source']}: {each['reason']}" for each in result["left_out"][:_LISTED]]
    if _left_out_count(result) > _LISTED:
        lines.append(texts["more"].format(count=_left_out_count(result) - _LISTED))
    return "\n".join([_cell(title), "", *(f"- {_cell(line)}" for line in lines)])


def _cell(text: str) -> str:
    """Keep text of a result from being read as a column, a line or HTML."""
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*").split())


# CSV


def write_csv(results: Sequence[Result], path: str | Path) -> None:
    """Write one line for each number, measured and published; shares from 0 to 1, UTF-8."""
    lines = [line for each in results for line in _measured_lines(each)]
    lines += [_published_line(each) for name in _unique(results, "benchmark") for each in published_numbers(name)]
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _CSV_COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(lines)


def _measured_lines(result: Result) -> list[dict[str, Any]]:
    common = {
        "kind": "measured",
        "model": result["model"]["name"],
        "changed": json.dumps(result["changed"], ensure_ascii=False) if result["changed"] else "",
        "part": _is_part(result),
        **{key: result["model"].get(key) or "" for key in ("revision", "fingerprint")},
        **{key: result.get(key, "") for key in ("benchmark", "language", "preset", "created")},
        "data": result["data"]["path"],
        **{key: result["counts"][key] for key in ("images", "items", "unreadable", "problems")},
    }
    lines = []
    for metric, content in result["metrics"].items():
        low, high = content.get("interval") or ("", "")
        numbers = {"value": content["value"], "low": low, "high": high, "count": content["count"]}
        lines.append({**common, "metric": metric, **numbers})
    return lines


def _published_line(number: PublishedNumber) -> dict[str, Any]:
    keys = ("benchmark", "metric", "model", "backbone", "value", "subset")
    return {"kind": "published", "source": number.source.key, **{key: getattr(number, key) for key in keys}}


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
        raise ValueError(f"path={str(path)!r}; allowed: a file that ends in .png, .svg or .pdf")
    if not results:
        raise ValueError("results is empty; allowed: at least one result")
    require("matplotlib", "bench")
    from matplotlib.figure import Figure  # not pyplot: neither a screen nor state that the caller may have

    panels = [(name, each, _plotted_metrics(each)) for name, each in _by_benchmark(results).items()]
    heights = [1 + 0.25 * max(len(_points(name, each, metric)) for metric in metrics) for name, each, metrics in panels]
    columns = max(len(metrics) for *_, metrics in panels)
    figure = Figure(figsize=(7.5 * columns, sum(heights) + 0.5), layout="constrained")
    figure.suptitle(
        "filled: measured, hollow: published, *: changed settings, +: a part of the data", fontsize="medium"
    )
    grid = figure.add_gridspec(len(panels), columns, height_ratios=heights)
    for row, (name, each, metrics) in enumerate(panels):
        for column, metric in enumerate(metrics):
            _draw(figure.add_subplot(grid[row, column]), f"{name}: {metric}", _points(name, each, metric), metric)
    figure.savefig(path)


def _plotted_metrics(results: Sequence[Result]) -> list[str]:
    names = _metrics(results)
    return [metric for metric in _PLOTTED if metric in names] or names[:1]


def _points(benchmark: str, results: Sequence[Result], metric: str) -> list[Point]:
    """Ours first; where ours have no interval, it is the value alone."""
    points: list[Point] = []
    for each, data_name in zip(results, _data_names(results), strict=True):
        if content := each["metrics"].get(metric):
            marks = _marks(each).replace("†", "+")
            label = f"{', '.join([_model(each), each['preset'], each['language'], *data_name])}{marks}"
            points.append((label, content["value"], content.get("interval") or (content["value"],) * 2))
    for number in published_numbers(benchmark):
        if number.metric == metric:
            label = ", ".join(filter(None, (_published_model(number), number.subset)))
            points.append((f"{label} ({number.source.key})", number.value, None))
    return points


def _draw(axes: Any, title: str, points: Sequence[Point], metric: str) -> None:
    scale = 1 if _is_rank(metric) else 100
    ours = [(row, value, interval) for row, (_, value, interval) in enumerate(points) if interval]
    theirs = [(row, value) for row, (_, value, interval) in enumerate(points) if not interval]
    axes.hlines([row for row, *_ in ours], *([bounds[i] * scale for *_, bounds in ours] for i in (0, 1)), linewidth=2)
    axes.plot([value * scale for _, value, _ in ours], [row for row, *_ in ours], "o", color="C0")
    axes.plot([value * scale for _, value in theirs], [row for row, _ in theirs], "o", color="0.4", fillstyle="none")
    axes.set_yticks(range(len(points)), [_ascii(label) for label, *_ in points], parse_math=False)
    axes.set_ylim(len(points) - 0.5, -0.5)  # the first on top
    axes.set_title(_ascii(title), parse_math=False)
    axes.set_xlabel("rank" if _is_rank(metric) else "percent")
    axes.grid(axis="x", alpha=0.3)


def _ascii(text: str) -> str:
    """Fonts with Chinese characters are not everywhere."""
    return text.encode("ascii", "backslashreplace").decode()
