"""Training files of CCMB: pairs of ICM, IQM, ICR and IQR, and captions of Flickr30k-CNA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

from ...languages import Language
from ..records import InvalidRecordError, Record, RecordDataset, concatenate
from .checks import check_inside, check_language_option, check_text, existing_folder, optional_label, shown
from .files import JSON_SUFFIXES, FileRecords, read_files, record_files, scan_lines
from .record_index import make_index


def read_ccmb(
    path: str | Path, image_folder: str | Path, language: Language = "zh", follow_links: bool = False
) -> RecordDataset:
    """Read ICM, IQM, ICR or IQR: lines of JSON with `text`, `image_path` and, in ICM and IQM, `label`.

    The text is the short caption, whatever its length, and the label, 1 for a pair that matches and 0 for one that does
    not, becomes `Record.matches`. Of `image_path` only the last part counts. Source: `data/` of yuxie11/R2D2.

    Args:
        path: A file, e.g. `ICM/train/long_itm_train.json`, or a folder of such files.
        image_folder: The folder of the images, published as `IQR_IQM_ICR_ICM_images`.
        language: The language of all records.
        follow_links: Also read what links in these folders lead to outside them.

    Returns:
        The records, in the order of file names and of the files. What is wrong with one raises when it is accessed.

    Raises:
        ValueError: There is no such file or folder, or not one record; or a file of records is a link out of its
            folder.
    """
    check_language_option(language)
    parser = CCMBParser(existing_folder(image_folder), language, follow_links)
    return concatenate(read_files(path, parser, JSON_SUFFIXES, follow_links))


def read_flickr30k_cna(
    path: str | Path, image_folder: str | Path, language: Language = "zh", follow_links: bool = False
) -> RecordDataset:
    """Read Flickr30k-CNA: lines `id#k TAB caption`, of the image `id.jpg`. Each caption is a record.

    Arguments, result and errors are those of [`read_ccmb`]; the files end with `.txt`, e.g.
    `train/flickr30k_cna_train.txt`.
    """
    check_language_option(language)
    parser = KeyedCaptionParser(existing_folder(image_folder), language, follow_links)
    files = record_files(path, (".txt",), follow_links)
    read = []
    for file in files:
        index = make_index(scan_lines(file, bytes.decode), partial(FileRecords.records_in, parser))
        read.append(FileRecords(file, bytes.decode, parser, index))
    if not any(map(len, read)):
        raise ValueError(f"{path} must hold at least one record")
    return concatenate(read)


@dataclass(frozen=True)
class _Parser:
    """Has what both parsers share: one language, and images in one folder."""

    image_folder: Path
    fixed_language: Language
    follow_links: bool = False

    def language(self, item: Any) -> Language:
        """Return the language of all records."""
        return self.fixed_language

    def record(self, image: tuple[str, str], text: str, source: str, matches: bool | None = None) -> Record:
        """Make a record of an image, by field and name of its file, and a text."""
        field, name = image
        path = check_inside(self.image_folder / name, self.image_folder, self.follow_links, field, source)
        return Record(path, text, None, self.fixed_language, (), source, matches)


class CCMBParser(_Parser):
    """Makes records of objects."""

    def __call__(self, item: Any, source: str) -> Record:
        """Check an object and make a record of it."""
        if not isinstance(item, Mapping):
            raise InvalidRecordError(source, "the record", shown(item), "one JSON object")
        text = check_text(item.get("text"), "text", source)
        # The last part by the rules of any system; of a path that ends with `..` there is none.
        name = PureWindowsPath(check_text(item.get("image_path"), "image_path", source)).name
        if name in ("", ".."):
            raise InvalidRecordError(source, "image_path", shown(item["image_path"]), "a path of an image")
        return self.record(("image_path", name), text, source, optional_label(item.get("label"), "label", source))


class KeyedCaptionParser(_Parser):
    """Makes records of lines that have the image's id and a number before the caption."""

    def __call__(self, item: str, source: str) -> Record:
        """Check a line and make a record of it."""
        key, caption = split_key(item, source)
        name = f"{key}.jpg"
        if PureWindowsPath(name).name != name:
            raise InvalidRecordError(source, "the image's id", shown(key), "the name of a file, without folders")
        return self.record(("the image's id", name), check_text(caption, "the caption", source), source)


def split_key(line: str, source: str) -> tuple[str, str]:
    """Return the image's id and the caption of a line `id#k TAB caption`; some files have a space for the tab.

    Raises:
        InvalidRecordError: The line has no caption.
    """
    key, *caption = line.split(maxsplit=1)
    if not caption:
        raise InvalidRecordError(source, "the line", shown(line), "an id, # and a number, a tab and a caption")
    return key.partition("#")[0], caption[0].strip()
