"""FineHARD and what is written like it: captions, boxes with short and long expressions, hard negatives."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...languages import Language
from ..records import InvalidRecordError, Record, RecordDataset, Region, concatenate
from .checks import (
    check_box,
    check_captions,
    check_inside,
    check_language_option,
    check_path,
    check_text,
    existing_folder,
    language_of_texts,
    optional_text,
    shown,
    stated_image_size,
)
from .files import JSON_SUFFIXES, read_files

# The published `f_path` begins with one of these, of which the downloaded folders know nothing.
PATH_PREFIXES = ("grit-20m/data-12m/", "data/down-grit-12m/")

_GUESSED_SCHEMA = (
    "the schema of FineRegion-CN has not been found in public: it is read as FineHARD is, which is a guess. "
    "Run `fgclip2 data validate` on it first"
)


def read_finehard(
    path: str | Path, image_folder: str | Path, language: Language | None = None, follow_links: bool = False
) -> RecordDataset:
    """Read records in the schema of FineHARD, English or Chinese, with or without regions.

    A record has `f_path`, `caption` (the long one), `short_caption` (one of the two may be missing), `bbox_info` and,
    where it is Chinese, `is_cn`. An entry of `bbox_info` has `bbox` ([x1, y1, x2, y2], perhaps a score, as fractions),
    `short_expr`, perhaps `long_expr`, and `short_expr_negs` (hard negatives, which `flag_short_neg` 0 turns off).
    Other keys are left alone.

    Args:
        path: A file with one JSON list of records or with one record on each line, or a folder of such files (its
            subfolders are not read).
        image_folder: The folder of the images. `f_path` is looked for there as it stands, then without the published
            prefix (`PATH_PREFIXES`).
        language: The language of all records. None: Chinese where `is_cn` is true, English where it is false, and
            without the key what `detect_language` says of the captions.
        follow_links: Also read what links in these folders lead to outside them.

    Returns:
        The records, in the order of file names and of the files. What is wrong with one raises when it is accessed.

    Raises:
        ValueError: There is no such file or folder, or not one record; or a file of records is a link out of its
            folder.
    """
    check_language_option(language)
    parser = FineHARDParser(existing_folder(image_folder), language, follow_links)
    return concatenate(read_files(path, parser, JSON_SUFFIXES, follow_links))


def read_fineregion_cn(
    path: str | Path, image_folder: str | Path, language: Language | None = "zh", follow_links: bool = False
) -> RecordDataset:
    """Read FineRegion-CN on the guess that its schema is FineHARD's; warns that this is a guess.

    The data set is published (12 million images with Chinese region texts, made as FineHARD was), but no description
    of its files has been found. Arguments, result and errors are those of `read_finehard`.
    """
    warnings.warn(_GUESSED_SCHEMA, UserWarning, stacklevel=2)
    return read_finehard(path, image_folder, language, follow_links)


@dataclass(frozen=True)
class FineHARDParser:
    """Makes records of FineHARD's items."""

    image_folder: Path
    fixed_language: Language | None = None
    follow_links: bool = False

    def language(self, item: Any) -> Language:
        """Return the language of an item, right or wrong."""
        return self.fixed_language or item_language(item)

    def __call__(self, item: Any, source: str) -> Record:
        """Check an item and make a record of it."""
        check_item(item, source)
        return record_of_item(item, self._image(item.get("f_path"), source), source, self.fixed_language)

    def _image(self, value: Any, source: str) -> str:
        path = check_path(value, "f_path", source)
        prefix = next((prefix for prefix in PATH_PREFIXES if path.startswith(prefix)), "")
        image, stripped = self.image_folder / path, self.image_folder / path.removeprefix(prefix)
        if prefix and not os.path.exists(image) and os.path.exists(stripped):  # noqa: PTH110  # never raises
            image = stripped
        return check_inside(image, self.image_folder, self.follow_links, "f_path", source)


def check_item(item: Any, source: str) -> None:
    """Raise unless an item is a mapping."""
    if not isinstance(item, Mapping):
        raise InvalidRecordError(source, "the record", shown(item), "one JSON object")


def record_of_item(item: Mapping[str, Any], image: str | bytes, source: str, language: Language | None) -> Record:
    """Make a record of an item in the schema of FineHARD whose image is already known."""
    short_caption = optional_text(item.get("short_caption"), "short_caption", source)
    long_caption = optional_text(item.get("caption"), "caption", source)
    check_captions(short_caption, long_caption, "short_caption or caption", source)
    if item.get("is_cn") not in (None, True, False):  # 0 and 1 equal False and True
        raise InvalidRecordError(source, "is_cn", shown(item["is_cn"]), "true or false")
    if item.get("matches") not in (None, True, False):
        raise InvalidRecordError(source, "matches", shown(item["matches"]), "true or false")
    regions = _regions(item.get("bbox_info"), source)
    language = language or item_language(item)
    size = stated_image_size(item)
    return Record(image, short_caption, long_caption, language, regions, source, item.get("matches"), size)


def item_language(item: Mapping[str, Any]) -> Language:
    """Return the language that `is_cn` says, else that of the captions."""
    is_chinese = item.get("is_cn")
    if is_chinese is None:
        return language_of_texts(item.get("short_caption"), item.get("caption"))
    return "zh" if is_chinese else "en"


def item_of_record(record: Record) -> dict[str, Any]:
    """Return the item, without an image, that `record_of_item` makes the same record of."""
    item: dict[str, Any] = {"is_cn": record.language == "zh"}
    if record.short_caption is not None:
        item["short_caption"] = record.short_caption
    if record.long_caption is not None:
        item["caption"] = record.long_caption
    if record.matches is not None:
        item["matches"] = record.matches
    if record.image_size is not None:
        item["height"], item["width"] = record.image_size
    if record.regions:
        item["bbox_info"] = []
    for region in record.regions:
        entry: dict[str, Any] = {"bbox": list(region.box), "short_expr": region.short_text}
        if region.long_text is not None:
            entry["long_expr"] = region.long_text
        entry["flag_short_neg"] = int(bool(region.hard_negatives))
        if region.hard_negatives:
            entry["short_expr_negs"] = {str(number): text for number, text in enumerate(region.hard_negatives)}
        item["bbox_info"].append(entry)
    return item


def _regions(value: Any, source: str) -> tuple[Region, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidRecordError(source, "bbox_info", shown(value), "a list")
    regions = []
    for number, entry in enumerate(value):
        field = f"bbox_info[{number}]"
        if not isinstance(entry, Mapping):
            raise InvalidRecordError(source, field, shown(entry), "one JSON object")
        box = check_box(entry.get("bbox"), f"{field}.bbox", source)
        short_text = check_text(entry.get("short_expr"), f"{field}.short_expr", source)
        long_text = optional_text(entry.get("long_expr"), f"{field}.long_expr", source)
        regions.append(Region(box, short_text, long_text, _hard_negatives(entry, field, source)))
    return tuple(regions)


def _hard_negatives(entry: Mapping[str, Any], field: str, source: str) -> tuple[str, ...]:
    flag, negatives = entry.get("flag_short_neg"), entry.get("short_expr_negs")
    if flag not in (None, 0, 1):
        raise InvalidRecordError(source, f"{field}.flag_short_neg", shown(flag), "0 or 1")
    if flag == 0 or negatives is None:
        return ()
    field = f"{field}.short_expr_negs"
    if not isinstance(negatives, (Mapping, list)):
        raise InvalidRecordError(source, field, shown(negatives), "a JSON object or a list of texts")
    named = negatives.items() if isinstance(negatives, Mapping) else enumerate(negatives)
    return tuple(check_text(text, f"{field}[{name!r}]", source) for name, text in named)
