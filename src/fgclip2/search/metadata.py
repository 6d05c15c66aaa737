"""Metadata of the entries of an index: what a value may be, and files that bring them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..checks import is_number
from ..files import UTF8_BOM, decode_json, printable

Value = str | int | float | bool | None
Metadata = dict[str, Value]

ID = "id"  # the name of the built-in column that no metadata may have
KEYS = ("path", ID)  # the field of a record that says which entry it is of
BOXES = "boxes"  # the field with the regions of an image
LARGEST_INTEGER = 2**63 - 1
KINDS = {str: "text", bool: "true and false", int: "whole numbers", float: "numbers"}


class Records(NamedTuple):
    """What a file of records says about the entries of an index.

    Attributes:
        metadata: Id of an entry -> its metadata.
        boxes: Id of an entry -> boxes (x1, y1, x2, y2) in pixels; `None`: the file has none of any entry.
    """

    metadata: dict[str, Metadata]
    boxes: dict[str, list[list[float]]] | None = None


def check_metadata(metadata: Any, where: str) -> None:
    """Raise a `ValueError` that starts with `where` unless `metadata` is an object of names and plain values."""
    if not isinstance(metadata, Mapping):
        raise ValueError(f"{where}: metadata must be an object of names and values, got {metadata!r:.80}")
    for name, value in metadata.items():
        if not isinstance(name, str) or not name.strip() or name == ID:
            raise ValueError(f"{where}: a field must have a name, and another one than {ID!r}, got {name!r:.80}")
        is_whole = isinstance(value, int) and abs(value) <= LARGEST_INTEGER
        if not (value is None or isinstance(value, (str, bool)) or is_whole or isinstance(value, float)):
            raise ValueError(
                f"{where}: {name} is {value!r:.80}; allowed are text, numbers (whole ones below 2**63), true, false "
                "and null"
            )
        if isinstance(value, float) and not is_number(value):
            raise ValueError(f"{where}: {name} is {value!r}, which is not finite; give null for what is not known")


def kinds_of_columns(metadata: Mapping[str, Metadata]) -> dict[str, type]:
    """Return the type of each column, `str`, `bool`, `int` or `float`; columns of nulls alone are text.

    Args:
        metadata: Id of an entry -> its metadata. Whole numbers may be among others.

    Raises:
        ValueError: A column has values of two types; the message names both entries. Or the names of two columns
            differ by upper and lower case alone, which SQL does not tell apart.
    """
    kinds: dict[str, type] = {}
    first: dict[str, str] = {}
    for entry, its in metadata.items():
        for name, value in its.items():
            if value is None:
                kinds.setdefault(name, type(None))
                continue
            kind, before = type(value), kinds.get(name, type(None))
            if before is type(None):
                kinds[name], first[name] = kind, entry
            elif {kind, before} == {int, float}:
                kinds[name] = float
            elif kind is not before:
                raise ValueError(
                    f"the entry {printable(entry)!r}: {name} is {value!r:.80}, where {printable(first[name])!r} has "
                    f"{KINDS[before]}: a field must have values of one type, or null"
                )
    spelt: dict[str, str] = {}
    for name in kinds:
        if spelt.setdefault(name.casefold(), name) != name:
            raise ValueError(f"metadata have fields {spelt[name.casefold()]!r} and {name!r}: give them one spelling")
    return {name: str if kind is type(None) else kind for name, kind in kinds.items()}


def read_records(path: Path) -> Records:
    """Read metadata of images from a CSV file with a header, or a JSONL file with an object a line, in UTF-8.

    Each record has a field `path` (or `id`), the path of an image below its folder with forward slashes, or the id of
    an entry. In CSV a column is of whole numbers, numbers, or true and false where all its values are, else text; empty
    is null. A JSONL record may have `boxes`, a list of boxes (x1, y1, x2, y2) in pixels.

    Raises:
        OSError: It can't be read.
        ValueError: A record can't be used; the message has its line, the field and the value.
    """
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".jsonl"):
        raise ValueError(f"{printable(path)}: metadata must be a .csv or a .jsonl file, got {suffix or 'no suffix'!r}")
    content = path.read_bytes().removeprefix(UTF8_BOM)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{printable(path)} line {line} is not UTF-8: save it in that encoding") from error
    records = _csv_records(text, path) if suffix == ".csv" else _json_records(text, path)
    metadata: dict[str, Metadata] = {}
    boxes: dict[str, list[list[float]]] = {}
    for line, record in records:
        where = f"{printable(path)} line {line}"
        key = next((name for name in KEYS if name in record), None)
        entry = record.pop(key) if key else None
        if not isinstance(entry, str) or not entry:
            raise ValueError(f"{where}: a record needs `path`, the path of an image below its folder, got {entry!r}")
        entry = entry.removeprefix("./")
        if entry in metadata:
            raise ValueError(f"{where}: {key} is {printable(entry)!r}, which an earlier record has: leave one out")
        if BOXES in record:
            boxes[entry] = check_boxes(record.pop(BOXES), where)
        check_metadata(record, where)
        metadata[entry] = record
    return Records(metadata, boxes or None)


def check_boxes(boxes: Any, where: str) -> list[list[float]]:
    """Return a list of boxes; raise a `ValueError` that starts with `where` unless each is four numbers."""
    if not isinstance(boxes, Iterable) or isinstance(boxes, (str, bytes, Mapping)):
        raise ValueError(f"{where}: boxes must be a list of boxes (x1, y1, x2, y2) in pixels, got {boxes!r:.80}")
    checked = []
    for number, box in enumerate(boxes):
        try:
            corners = [float(edge) for edge in box]
        except (TypeError, ValueError, OverflowError):
            corners = []
        if len(corners) != 4 or not all(map(is_number, corners)):
            raise ValueError(f"{where}: boxes[{number}] must be four numbers (x1, y1, x2, y2), got {box!r:.80}")
        checked.append(corners)
    return checked


def _json_records(text: str, path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            record = decode_json(content.encode())
        except ValueError as error:
            raise ValueError(f"{printable(path)} line {line} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{printable(path)} line {line} must be an object, got {content.strip()!r:.80}")
        yield line, record


def _csv_records(text: str, path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    rows: list[tuple[int, list[str]]] = []
    try:
        names = next(reader, [])
        rows.extend((reader.line_num, row) for row in reader if row)
    except csv.Error as error:
        raise ValueError(f"{printable(path)} line {reader.line_num} is not CSV: {error}") from error
    if not any(key in names for key in KEYS):
        raise ValueError(
            f"{printable(path)} line 1: the header must have a column `path`, got {', '.join(names)!r:.80}"
        )
    if BOXES in names:
        raise ValueError(f"{printable(path)} line 1: a column `{BOXES}` needs a .jsonl file, whose values may be lists")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{printable(path)} line 1: the header has the column {twice!r} twice")
    for line, row in rows:
        if len(row) != len(names):
            raise ValueError(f"{printable(path)} line {line}: {len(row)} fields, but the header has {len(names)}")
    columns = [
        values if name in KEYS else _typed(values)
        for name, values in zip(names, ([row[place] for _, row in rows] for place in range(len(names))), strict=True)
    ]
    for number, (line, _) in enumerate(rows):
        yield line, {name: values[number] for name, values in zip(names, columns, strict=True)}


def _typed(values: list[str]) -> list[Any]:
    """Return the values of a CSV column in the narrowest type that all of them have; empty ones become null."""
    known = [value for value in values if value]
    if known and all(value.lower() in ("true", "false") for value in known):
        return [value.lower() == "true" if value else None for value in values]
    kind: type
    for kind in (int, float):
        try:
            numbers = [kind(value) for value in known]
        except ValueError:
            continue
        # 007 is a name rather than a number, and so is what no column of whole numbers holds.
        if kind is int and any(abs(number) > LARGEST_INTEGER for number in numbers):
            break
        if all(map(is_number, numbers)) and not any(_has_leading_zero(value) for value in known):
            return [kind(value) if value else None for value in values]
    return [value or None for value in values]


def _has_leading_zero(value: str) -> bool:
    digits = value.lstrip("+-")
    return len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
