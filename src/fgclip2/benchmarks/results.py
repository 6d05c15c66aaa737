"""Result files: reading them and checking that they are whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..checks import is_number
from ..data.readers.checks import shown
from ..files import read_json

Result = dict[str, Any]  # content of a result file

A_TEXT = "a text"
AN_OBJECT = "a JSON object"
A_COUNT = "a whole number from 0"
_KINDS: dict[str, Callable[[Any], bool]] = {
    A_TEXT: lambda value: isinstance(value, str),
    "a text or null": lambda value: value is None or isinstance(value, str),
    "a text that is not empty": lambda value: isinstance(value, str) and value != "",
    AN_OBJECT: lambda value: isinstance(value, dict),
    "a JSON object with at least one metric": lambda value: isinstance(value, dict) and bool(value),
    A_COUNT: lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    'a list of {"source": text, "reason": text}': lambda value: (
        isinstance(value, list)
        and all(
            isinstance(row, dict) and isinstance(row.get("source"), str) and isinstance(row.get("reason"), str)
            for row in value
        )
    ),
    "a finite number from 1": lambda value: is_number(value) and value >= 1,
    "a number from 0 to 1": lambda value: is_number(value) and 0 <= value <= 1,
}


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
            raise ValueError(f"{path} must be a result file, or a folder with result files (*.json)")
        files += found
    results = [read_json(file) for file in files]
    for file, result in zip(files, results, strict=True):
        check_result(result, str(file))
    return results


def check_result(result: Any, file: str) -> None:
    """Check what reports read of a result.

    Args:
        result: The content of a file.
        file: Its name, for the messages.

    Raises:
        ValueError: Something is missing or of another kind.
    """
    if not isinstance(result, dict):
        raise ValueError(f"{file} must be {AN_OBJECT}, got {shown(result)}")
    for key in ("benchmark", "language", "preset"):
        _check(result, key, file, "a text that is not empty")
    for key in ("changed", "settings", "counts", "model", "data"):
        _check(result, key, file, AN_OBJECT)
    _check(result, "metrics", file, "a JSON object with at least one metric")
    _check(result, "left_out", file, 'a list of {"source": text, "reason": text}')
    _check(result["model"], "name", f"{file}: model", A_TEXT)
    _check(result["data"], "digest", f"{file}: data", A_TEXT)
    _check(result["data"], "path", f"{file}: data", "a text or null")
    for key in ("images", "items", "unreadable", "problems"):
        _check(result["counts"], key, f"{file}: counts", A_COUNT)
    for metric, content in result["metrics"].items():
        place = f"{file}: metrics.{metric}"
        _check(result["metrics"], metric, f"{file}: metrics", AN_OBJECT)
        number = "a finite number from 1" if is_rank(metric) else "a number from 0 to 1"
        _check(content, "value", place, number)
        _check(content, "count", place, A_COUNT)
        interval = content.get("interval")
        bounds = interval if isinstance(interval, list) else []
        is_interval = len(bounds) == 2 and all(map(_KINDS[number], bounds)) and bounds[0] <= bounds[1]
        if interval is not None and not is_interval:
            must = f"null, or two numbers, the lower first, each {number}"
            raise ValueError(f"{place}: interval must be {must}, got {shown(interval)}")


def _check(content: dict[str, Any], key: str, place: str, kind: str) -> None:
    if key not in content or not _KINDS[kind](content[key]):
        raise ValueError(f"{place}: {key} must be {kind}, got {shown(content.get(key))}")


def is_rank(metric: str) -> bool:
    """Return whether a metric counts from 1 up, rather than being a share of 1."""
    return metric.endswith("_rank")


def left_out_count(result: Result) -> int:
    """Return how many records a result does not measure, be it for the file's sake or the image's."""
    return result["counts"]["unreadable"] + result["counts"]["problems"]


def is_part(result: Result) -> bool:
    """Return whether less than the whole data set was measured: something can't be used, or is not there."""
    published = result.get("published_counts", {})
    return left_out_count(result) > 0 or any(
        result["counts"].get(name, count) < count for name, count in published.items()
    )
