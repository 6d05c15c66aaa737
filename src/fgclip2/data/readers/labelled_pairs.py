"""Labelled pairs of image and text, to calibrate by: CSV, TSV, JSONL and list-of-records JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...calibration.pairs import LabelledPair
from ...checks import is_number
from ..records import InvalidRecordError
from .checks import check_inside, check_path, check_text, existing_folder, language_of_texts, optional_label, shown
from .files import SUFFIXES, columns_of, read_files, record_files

_FIELDS = ("image", "text")
_A_BOX = "x1, y1, x2, y2 in pixels of the image, with x1 < x2 and y1 < y2"


def read_labelled_pairs(
    path: str | Path, images_folder: str | Path | None = None, follow_links: bool = False
) -> list[LabelledPair]:
    """Read the pairs of a file, or of all files of records in a folder.

    Records have the fields `image` (a path), `text`, `label` (1 where both match, else 0; may be left out of all
    records), and for a pair of a region `box` (x1, y1, x2, y2 in pixels; in a table as text).

    Args:
        path: A `.json`, `.jsonl`, `.csv` or `.tsv`, or a folder of such files.
        images_folder: Folder that paths of images are relative to; `None`: the folder of the file.
        follow_links: Also use files that links lead to outside of their folder.

    Raises:
        ValueError: There is no such file, or it has no such columns.
        InvalidRecordError: A record can't be used; the message names its place, field and value.
    """
    images = existing_folder(images_folder if images_folder is not None else _folder_of(path))
    for file in record_files(path, SUFFIXES, follow_links):
        columns = columns_of(file)
        missing = [name for name in _FIELDS if columns is not None and name not in columns]
        if columns is not None and missing:
            raise ValueError(
                f"{file} has no column {missing[0]!r}; its columns are {', '.join(columns)}, and those of pairs are "
                "image, text, label and, for regions, box"
            )
    datasets: Sequence[Any] = read_files(path, LabelledPairParser(images, follow_links), SUFFIXES, follow_links)
    return [pair for dataset in datasets for pair in dataset]


def _folder_of(path: str | Path) -> Path:
    return Path(path) if Path(path).is_dir() else Path(path).parent


@dataclass(frozen=True)
class LabelledPairParser:
    """Makes labelled pairs of rows."""

    images_folder: Path
    follow_links: bool = False

    def language(self, item: Any) -> Any:
        """Return the language of a row."""
        return language_of_texts(item.get("text"))

    def __call__(self, item: Any, source: str) -> LabelledPair:
        """Check a row and make a pair of it."""
        if not isinstance(item, Mapping):
            raise InvalidRecordError(source, "the record", shown(item), "one JSON object")
        image = self.images_folder / check_path(item.get("image"), "image", source)
        path = check_inside(image, self.images_folder, self.follow_links, "image", source)
        text = check_text(item.get("text"), "text", source)
        return LabelledPair(
            path,
            text,
            optional_label(item.get("label"), "label", source),
            _check_box(item.get("box"), source),
            source,
        )


def _check_box(value: Any, source: str) -> tuple[float, float, float, float] | None:
    """Return the corners of a box, a list or the text of one, or `None` of a pair without one."""
    if value is None:
        return None
    corners = value
    if isinstance(value, str):
        try:
            corners = [float(part) for part in re.split(r"[\s,，]+", value.strip("[]() \t"))]
        except ValueError as error:
            raise InvalidRecordError(source, "box", shown(value), _A_BOX) from error
    if not isinstance(corners, (list, tuple)) or len(corners) != 4 or not all(map(is_number, corners)):
        raise InvalidRecordError(source, "box", shown(value), _A_BOX)
    x1, y1, x2, y2 = map(float, corners)
    if not (x1 < x2 and y1 < y2):
        raise InvalidRecordError(source, "box", shown(value), _A_BOX)
    return x1, y1, x2, y2
