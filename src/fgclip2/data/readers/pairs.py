"""Plain pairs of image and caption: CSV, TSV, JSONL, list-of-records JSON, Parquet and Hugging Face `datasets`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..._imports import require
from ...languages import LANGUAGES, Language
from ..records import InvalidRecordError, Record, RecordDataset, concatenate
from .checks import (
    check_captions,
    check_inside,
    check_language,
    check_language_option,
    check_path,
    existing_folder,
    language_of_texts,
    optional_label,
    optional_text,
    shown,
    stated_image_size,
)
from .files import SUFFIXES, check_record_files, columns_of, read_files, record_files

_ROWS_PER_SCAN = 10_000
_CAPTIONS = ("short_caption", "long_caption", "caption")


@dataclass(frozen=True)
class Columns:
    """Which column, or key, holds what.

    Attributes:
        image: The path relative to the image folder (a data set object or Parquet may also hold images). None takes
            `image`, or where there is no such column `filepath`, as open_clip calls it.
        short_caption: None takes `short_caption` where there is such a value, else `caption`, or where there is no
            column of captions `title`, as open_clip calls it.
        long_caption: None takes `long_caption` where there is such a value, else `caption` where that is not the short
            one.
        language: None takes `language`, which need not be there.
        label: 1 where image and caption match, else 0, for what is trained to tell these apart; None takes none.
    """

    image: str | None = None
    short_caption: str | None = None
    long_caption: str | None = None
    language: str | None = None
    label: str | None = None

    def check(self, names: Sequence[str], where: str) -> None:
        """Check against the columns that a table has.

        Raises:
            ValueError: A column that was asked for is not there, or none with a caption.
        """
        asked = [self.image_name(names), self.short_caption, self.long_caption, self.language, self.label]
        missing = [name for name in asked if name is not None and name not in names]
        if missing:
            raise ValueError(
                f"{where} has no column {missing[0]!r}; its columns are {', '.join(names)}. Say which holds what: "
                "Columns(...) in Python, --image_column and so on in a command"
            )
        if not {self.short_caption, self.long_caption, *_CAPTIONS, "title"} & set(names):
            raise ValueError(
                f"{where} has no column of captions; name one of: {', '.join(names)} (Columns(...) in Python, "
                "--short_caption_column or --long_caption_column in a command)"
            )

    def image_name(self, names: Collection[str]) -> str:
        """Return the column of images among the columns of a table, or the keys of an object."""
        return self.image or ("filepath" if "filepath" in names and "image" not in names else "image")

    def captions(self, item: Mapping[str, Any]) -> tuple[tuple[str, Any], tuple[str, Any]]:
        """Return (name, value) of the short and of the long caption."""
        short = self.short_caption or ("caption" if item.get("short_caption") is None else "short_caption")
        if self.short_caption is None and self.long_caption is None and not any(name in item for name in _CAPTIONS):
            short = "title"
        long = self.long_caption
        if long is None:
            long = "caption" if item.get("long_caption") is None and short != "caption" else "long_caption"
        return (short, item.get(short)), (long, item.get(long))


def read_pairs(
    path: str | Path,
    image_folder: str | Path | None = None,
    columns: Columns = Columns(),
    language: Language | None = None,
    follow_links: bool = False,
) -> RecordDataset:
    """Read pairs of image and caption, English or Chinese, with a short caption, a long one or both.

    CSV is quoted as usual; TSV is not: a quotation mark is part of the caption. An empty cell counts as missing. The
    tables that open_clip writes and reads, with the columns `filepath` and `title`, are read as they are, also where a
    `.csv` has tabs in place of commas.

    Args:
        path: `.csv`, `.tsv`, `.jsonl`, `.json` (a list of objects) or `.parquet`, or a folder with files of one kind.
            Text files are UTF-8. Parquet is read by `datasets`, which keeps a copy of it in its cache.
        image_folder: The folder of the images; None takes that of `path`.
        columns: Which column holds what.
        language: The language of all records. None: that of the column of languages (`en` or `zh`) where it has a
            value, else what `detect_language` says of the captions.
        follow_links: Also read what links in these folders lead to outside them.

    Returns:
        The records, in the order of file names and of the files. What is wrong with one raises when it is accessed.

    Raises:
        ValueError: There is no such file or column, or not one record; or a file of records is a link out of its
            folder.
        ImportError: `datasets` is not installed, and the file is Parquet.
    """
    check_language_option(language)
    path = Path(path)
    folder = existing_folder(image_folder or (path if path.is_dir() else path.parent))
    parquet = [path] if path.suffix.lower() == ".parquet" else sorted(path.glob("*.parquet"))
    if parquet:
        if path.is_dir():
            check_record_files(parquet, path, follow_links)
        missing = [file for file in parquet if not file.is_file()]
        if missing:
            raise ValueError(f"{missing[0]}: no such file")
        table = require("datasets", "train").Dataset
        files = [(table.from_parquet(str(file)), str(file)) for file in parquet]
        return concatenate([from_dataset(rows, folder, columns, language, name, follow_links) for rows, name in files])
    for file in record_files(path, SUFFIXES, follow_links):
        names = columns_of(file)
        if names is not None:
            columns.check(names, f"{file}:1: the header")
    parser = PairParser(folder, columns, language, follow_links)
    return concatenate(read_files(path, parser, SUFFIXES, follow_links))


def from_dataset(
    dataset: Any,
    image_folder: str | Path | None = None,
    columns: Columns = Columns(),
    language: Language | None = None,
    name: str = "dataset",
    follow_links: bool = False,
) -> RecordDataset:
    """Take the pairs of a Hugging Face `datasets.Dataset`.

    Args:
        dataset: Its images are paths, encoded images (bytes), PIL images, or a column of type `datasets.Image`, which
            is read undecoded.
        image_folder: The folder that paths are relative to and may not leave. None uses paths as they stand; only for
            data sets that you trust.
        columns, language: As in `read_pairs`.
        name: The name of the data set in error messages, which read "name:17".
        follow_links: Also read images that links in `image_folder` lead to outside it.

    Raises:
        ValueError: A column is missing, there is not one record, or the data set has no length.
    """
    check_language_option(language)
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "column_names")):
        raise ValueError(f"dataset must be a datasets.Dataset, with a length, got {type(dataset).__name__}")
    if not len(dataset):
        raise ValueError(f"{name} must hold at least one record")
    columns.check(dataset.column_names, name)
    folder = None if image_folder is None else existing_folder(image_folder)
    return DatasetRecords(dataset, PairParser(folder, columns, language, follow_links), name)


@dataclass(frozen=True)
class PairParser:
    """Makes records of rows."""

    image_folder: Path | None
    columns: Columns
    fixed_language: Language | None = None
    follow_links: bool = False

    def language(self, item: Any) -> Language:
        """Return the language of a row, right or wrong."""
        if self.fixed_language:
            return self.fixed_language
        language = item.get(self.columns.language or "language")
        if language is not None:
            return language
        (_, short), (_, long) = self.columns.captions(item)
        return language_of_texts(short, long)

    def __call__(self, item: Any, source: str) -> Record:
        """Check a row and make a record of it."""
        if not isinstance(item, Mapping):
            raise InvalidRecordError(source, "the record", shown(item), "one JSON object")
        image = self._image(item, source)
        (short_name, short), (long_name, long) = self.columns.captions(item)
        short_caption = optional_text(short, short_name, source)
        long_caption = optional_text(long, long_name, source)
        check_captions(short_caption, long_caption, f"{short_name} or {long_name}", source)
        language = check_language(self.language(item), self.columns.language or "language", source)
        label = self.columns.label
        matches = None if label is None else optional_label(item.get(label), label, source)
        size = stated_image_size(item)
        return Record(image, short_caption, long_caption, language, (), source, matches, size)

    def _image(self, item: Mapping[str, Any], source: str) -> str | bytes | Image.Image:
        field = self.columns.image_name(item)
        value = item.get(field)
        if isinstance(value, Mapping) and {"bytes", "path"} & set(value):  # datasets.Image, undecoded
            value = value.get("path") if value.get("bytes") is None else value["bytes"]
        if isinstance(value, (bytes, Image.Image)):
            if not value:
                raise InvalidRecordError(source, field, "empty", "an encoded image")
            return value
        if not isinstance(value, str) or not value.strip():
            raise InvalidRecordError(source, field, shown(value), "a path or an image")
        if self.image_folder is None:
            return value
        path = self.image_folder / check_path(value, field, source)
        return check_inside(path, self.image_folder, self.follow_links, field, source)


class DatasetRecords(RecordDataset):
    """The rows of a Hugging Face data set, which keeps them on disk."""

    def __init__(self, dataset: Any, parser: PairParser, name: str):
        self._parser, self._name = parser, name
        image_column = parser.columns.image_name(dataset.column_names)
        self.languages = np.zeros(len(dataset), dtype=np.uint8)
        if parser.fixed_language:
            self.languages[:] = LANGUAGES.index(parser.fixed_language)
        else:  # scan the columns of texts, without reading the images
            texts = dataset.select_columns([name for name in dataset.column_names if name != image_column])
            for start in range(0, len(dataset), _ROWS_PER_SCAN):
                columns = texts[start : start + _ROWS_PER_SCAN]  # column -> values
                for number, values in enumerate(zip(*columns.values(), strict=True), start):
                    language = parser.language(dict(zip(columns, values, strict=True)))
                    self.languages[number] = LANGUAGES.index(language) if language in LANGUAGES else 0
        feature: Any = (dataset.features or {}).get(image_column)
        if type(feature).__name__ == "Image" and feature.decode:  # else a broken image would fail as a broken row
            dataset = dataset.cast_column(image_column, replace(feature, decode=False))
        self._dataset = dataset

    def _source(self, index: int) -> str:
        return f"{self._name}:{index + 1}"

    def _read(self, index: int) -> Record:
        return self._parser(self._dataset[index], self._source(index))
