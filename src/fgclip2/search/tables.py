"""Images in the rows of tables: Parquet files, and datasets of the library `datasets`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

from .._imports import require
from ..files import printable
from .archives import MAX_MEMBER_BYTES
from .metadata import BOXES, ID, Metadata, Records, check_boxes, check_metadata
from .scan import ImageFile, Scan, UnusableFile

ROWS_PER_BATCH = 64


class TableSource:
    """Images in a column of a table, encoded: bytes, or a struct of `bytes` and `path` as `datasets` writes them.

    Ids are those of the column `id`, or the numbers of the rows from 0 on. Columns of text, numbers, true and false,
    dates and times, which become text, are metadata; `boxes`, lists of (x1, y1, x2, y2), are the regions of an image.
    Other columns are not used, nor is `id` where another column has the ids, which filters call by this name.

    Args:
        name: What messages call the table.
        path: See [`Source`].
        schema: The names and types of the columns, of pyarrow.
        id_column: The column of the ids; `None`: `id`, if there is one.
        image_column: The column of the images; `None`: `image`, else the only one that can be it.
    """

    kind: str
    tells_contents = True
    adds_entries = False

    def __init__(self, name: str, path: Path, schema: Any, id_column: str | None, image_column: str | None):
        self._types = require("pyarrow", "search").types
        self.name, self.path, self.schema = name, path, schema
        self._lock = Lock()
        self.image_column = self._choose_images(image_column)
        self.id_column = id_column or (ID if ID in schema.names else None)
        if self.id_column is not None and self.id_column not in schema.names:
            raise ValueError(f"{name} has no column {self.id_column!r} for ids; it has {', '.join(schema.names)}")

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "id_column": self.id_column, "image_column": self.image_column}

    def scan(self, known: Iterable[ImageFile], compare_contents: bool) -> Scan:
        images: list[ImageFile] = []
        unusable: list[UnusableFile] = []
        metadata: dict[str, Metadata] = {}
        boxes: dict[str, list[list[float]]] = {}
        plain = [field.name for field in self.schema if self._is_plain(field)]
        extra = [BOXES] if BOXES in self.schema.names and self._types.is_list(self.schema.field(BOXES).type) else []
        ids = [self.id_column] if self.id_column else []
        number = 0
        for batch in self._batches([*ids, self.image_column, *plain, *extra]):
            columns = {name: batch.column(name) for name in batch.schema.names}
            values = {name: columns[name].to_pylist() for name in (*ids, *plain, *extra)}
            for row, content in enumerate(_contents(columns[self.image_column])):
                where = f"{self.name} row {number}"
                entry = self._id_of(values[self.id_column][row], where) if self.id_column else str(number)
                if entry in metadata:
                    raise ValueError(f"{where}: {self.id_column} is {printable(entry)!r}, which an earlier row has too")
                metadata[entry] = {name: _plain(values[name][row]) for name in plain}
                check_metadata(metadata[entry], where)
                if extra:
                    boxes[entry] = check_boxes(values[BOXES][row] or [], where)
                number += 1
                if isinstance(content, str):
                    unusable.append(UnusableFile(entry, content))
                else:
                    images.append(ImageFile(entry, len(content), 0, hashlib.sha256(content).hexdigest()))
        self.__dict__["_rows"] = {entry: row for row, entry in enumerate(metadata)}
        records = Records(metadata if plain else {}, boxes if extra else None)
        return Scan(images, sorted(unusable), {}, records)

    def image(self, entry: str) -> Callable[[], bytes]:
        return partial(self._read, entry)

    def images(self, files: list[ImageFile]) -> Sequence[Callable[[], bytes]] | Iterable[bytes]:
        return [self.image(file.path) for file in files]

    def shown_path(self, entry: str) -> Path:
        return self.path / entry.lstrip("/")

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        """Yield the rows of some columns as tables or record batches of pyarrow, a few at a time."""
        raise NotImplementedError

    def _row(self, number: int) -> Any:
        """Return the image column of one row, an array of pyarrow."""
        raise NotImplementedError

    def _count(self) -> int:
        """Return the number of rows, without reading them."""
        raise NotImplementedError

    def _read(self, entry: str) -> bytes:
        """Return the image of a row.

        Raises:
            ValueError: The row is not there any more, or has no image.
        """
        row = self._rows.get(entry)
        if row is None:
            raise ValueError(f"{self.name} has no row {printable(entry)!r} any more")
        with self._lock:  # threads that load images call this, and a reader of a file is one
            (content,) = _contents(self._row(row))
        if isinstance(content, str):
            raise ValueError(f"{self.name} row {row}: {content}")
        return content

    @cached_property
    def _rows(self) -> dict[str, int]:
        """Id -> number of its row."""
        if self.id_column is None:
            return {str(row): row for row in range(self._count())}
        values = (value for batch in self._batches([self.id_column]) for value in batch.column(0).to_pylist())
        return {str(value): row for row, value in enumerate(values)}

    def _choose_images(self, name: str | None) -> str:
        fitting = [field.name for field in self.schema if self._can_be_images(field.type)]
        if name is None and "image" in fitting:
            return "image"
        if name is None and len(fitting) == 1:
            return fitting[0]
        if name is not None and name in fitting:
            return name
        wrong = f"the column {name!r}" if name else "no column that is named image, or the only one"
        raise ValueError(
            f"{self.name} has {wrong} of encoded images, bytes or a struct of bytes and path: give one of "
            f"{', '.join(fitting) or 'them'} as `image_column` (`--image-column`)"
        )

    def _can_be_images(self, kind: Any) -> bool:
        if self._types.is_struct(kind):
            return any(kind.field(place).name == "bytes" for place in range(kind.num_fields))
        return self._types.is_binary(kind) or self._types.is_large_binary(kind)

    def _is_plain(self, field: Any) -> bool:
        kind, types = field.type, self._types
        if types.is_dictionary(kind):
            kind = kind.value_type
        tests = (types.is_string, types.is_large_string, types.is_boolean, types.is_integer, types.is_floating)
        dates = (types.is_date, types.is_time, types.is_timestamp, types.is_decimal)
        is_one = any(test(kind) for test in (*tests, *dates))
        return is_one and field.name not in (ID, self.id_column, self.image_column)

    def _id_of(self, value: Any, where: str) -> str:
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise ValueError(f"{where}: {self.id_column} is {value!r:.80}; an id is a text or a whole number")
        return str(value)


class ParquetSource(TableSource):
    """The images of a Parquet file, which are read a few rows at a time, whatever the size of its row groups."""

    kind = "parquet"

    def __init__(self, path: Path, id_column: str | None = None, image_column: str | None = None):
        parquet, pyarrow = require("pyarrow.parquet", "search"), require("pyarrow", "search")
        try:
            self._file = parquet.ParquetFile(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise ValueError(f"{printable(path)} is not a Parquet file, or is damaged: {error}") from error
        super().__init__(printable(path), path, self._file.schema_arrow, id_column, image_column)

    def images(self, files: list[ImageFile]) -> Iterable[bytes]:
        return _InOrder(self, [self._rows[file.path] for file in files])

    def contents_of(self, rows: Sequence[int]) -> Iterator[bytes]:
        """Yield the images of some rows, in rising order, reading on from one to the next; one without is empty."""
        waiting = iter(rows)
        wanted = next(waiting, None)
        start = 0
        for group in range(self._file.num_row_groups):
            end = start + self._file.metadata.row_group(group).num_rows
            if wanted is not None and wanted < end:
                for batch in self._batches([self.image_column], [group]):
                    while wanted is not None and wanted < start + batch.num_rows:
                        (content,) = _contents(batch.column(0).slice(wanted - start, 1))
                        yield b"" if isinstance(content, str) else content
                        wanted = next(waiting, None)
                    if wanted is None:
                        return
                    start += batch.num_rows
            start = end

    def _batches(self, columns: list[str], groups: list[int] | None = None) -> Iterator[Any]:
        return self._file.iter_batches(ROWS_PER_BATCH, columns=columns, row_groups=groups)

    def _row(self, number: int) -> Any:
        start = 0
        for group in range(self._file.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if number < start + rows:
                for batch in self._batches([self.image_column], [group]):
                    if number < start + batch.num_rows:
                        return batch.column(0).slice(number - start, 1)
                    start += batch.num_rows
            start += rows
        raise AssertionError(f"row {number} of {start}")

    def _count(self) -> int:
        return self._file.metadata.num_rows


class DatasetSource(TableSource):
    """The images of a `datasets.Dataset` with an `Image` feature, which are not decoded by it."""

    kind = "dataset"

    def __init__(self, dataset: Any, path: Path, id_column: str | None = None, image_column: str | None = None):
        datasets = require("datasets", "train")
        for name, feature in dataset.features.items():
            if isinstance(feature, datasets.Image):
                dataset = dataset.cast_column(name, datasets.Image(decode=False))
        self._dataset = dataset.with_format("arrow")
        super().__init__("the dataset", path, dataset.features.arrow_schema, id_column, image_column)

    def _batches(self, columns: list[str]) -> Iterator[Any]:
        return self._dataset.select_columns(columns).iter(ROWS_PER_BATCH)

    def _row(self, number: int) -> Any:
        return self._dataset.select_columns([self.image_column])[number].column(0)

    def _count(self) -> int:
        return len(self._dataset)


class _InOrder:
    """Images of rows that are read one after the other while others work on the last ones."""

    def __init__(self, source: ParquetSource, rows: list[int]):
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[bytes]:
        return self._source.contents_of(self._rows)


def _contents(column: Any) -> Iterator[bytes | str]:
    """Yield the bytes of each image of a column, or why it has none that can be used."""
    for value in column.to_pylist():
        content = value.get("bytes") if isinstance(value, dict) else value
        if content is None:
            named = value.get("path") if isinstance(value, dict) else None
            yield (
                f"it names the file {printable(named)!r}, which is not read: keep bytes" if named else "it has no image"
            )
        elif len(content) > MAX_MEMBER_BYTES:
            yield f"it has {len(content):,} bytes, more than {MAX_MEMBER_BYTES:,}"
        else:
            yield content


def _plain(value: Any) -> Any:
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
