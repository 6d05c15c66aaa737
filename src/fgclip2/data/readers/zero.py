"""Rows of the Zero corpus of CCMB: an image by its key, and several Chinese texts of it."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ...languages import Language
from ..records import InvalidRecordError, Record, RecordDataset, concatenate
from .checks import (
    check_inside,
    check_language_option,
    check_path,
    check_text,
    existing_folder,
    language_of_texts,
    shown,
)
from .files import SUFFIXES, FileRecords, check_record_files, columns_of, read_files, record_files

KEY = "ImageKey"
TEXTS = ("ImageQuery", "Title", "Content", "Keywords")  # all that a row may say of its image
DEFAULT_TEXTS = ("ImageQuery", "Title", "Content")
_LONG = ("Content",)  # texts around an image, of several sentences
_SUFFIXES = ("", ".jpg", ".jpeg", ".png", ".webp")  # that a file may have behind the key


def read_zero(
    path: str | Path,
    image_folder: str | Path | None = None,
    texts: Sequence[str] = DEFAULT_TEXTS,
    language: Language | None = None,
    follow_links: bool = False,
) -> RecordDataset:
    """Read rows of Zero, the corpus that R2D2 was trained on (arXiv 2205.03860), for images that you have.

    A row has `Url`, `Title`, `Content`, `Keywords`, `ImageKey`, `ImageUrl` and `ImageQuery`: a page, its texts, and an
    image on it with the query that led there. No address is ever fetched: rows whose image is not there raise when
    they are read. Each text of a row is a record of its own, with the same image: `Content` as a long caption, the
    others as short ones. Blank texts are none.

    Args:
        path: `.csv`, `.tsv`, `.jsonl` or `.json` (a list of objects), or a folder of such files, in UTF-8.
        image_folder: The folder of the images, `<ImageKey>` with or without `.jpg`, `.jpeg`, `.png` or `.webp`; or of
            tar shards whose members are named so. None takes that of `path`.
        texts: Which texts of a row are read, of `TEXTS`.
        language: The language of all records. None: what `detect_language` says of each text.
        follow_links: Also read what links in these folders lead to outside them.

    Returns:
        The records, in the order of file names, of the rows and of `texts`. What is wrong with one raises when it is
        accessed.

    Raises:
        ValueError: There is no such file or column, not one record, or `texts` has another name; or a file of records,
            or a shard, is a link out of its folder or damaged.
    """
    check_language_option(language)
    if isinstance(texts, str) or not texts or not set(texts) <= set(TEXTS) or len(set(texts)) < len(texts):
        raise ValueError(f"texts must be some of {', '.join(TEXTS)}, each once, got {texts!r}")
    path = Path(path)
    for file in record_files(path, SUFFIXES, follow_links):
        columns = columns_of(file)
        if columns is None:
            continue
        missing = [name for name in (KEY, *texts) if name not in columns]
        if missing:
            raise ValueError(f"{file}:1: the header has no column {missing[0]!r}; its columns are {', '.join(columns)}")
    images = images_by_key(existing_folder(image_folder or (path if path.is_dir() else path.parent)), follow_links)
    parser = ZeroParser(images, tuple(texts), language)
    return concatenate(read_files(path, parser, SUFFIXES, follow_links, ZeroRecords))


# ---------------------------------------------------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ZeroParser:
    """Makes records of rows, one of each text."""

    images: FolderImages | TarImages
    texts: tuple[str, ...]
    fixed_language: Language | None = None

    def language(self, item: Any, place: int) -> Language:
        """Return the language of a row's text, right or wrong."""
        return self.fixed_language or language_of_texts(item.get(self.texts[place]))

    def texts_of(self, item: Any) -> list[int]:
        """Return which texts a row has, as places in `texts`; the first for a row that can't be used."""
        if not isinstance(item, Mapping):
            return [0]
        return [place for place, name in enumerate(self.texts) if not _is_blank(item.get(name))] or [0]

    def __call__(self, item: Any, place: int, source: str) -> Record:
        """Check a row and make a record of one of its texts."""
        if not isinstance(item, Mapping):
            raise InvalidRecordError(source, "the record", shown(item), "one JSON object")
        name = self.texts[place]
        if all(_is_blank(item.get(name)) for name in self.texts):
            raise InvalidRecordError(source, " or ".join(self.texts), "missing", "a text, in at least one of them")
        text = check_text(item.get(name), name, source)
        image = self.images(check_path(item.get(KEY), KEY, source), source)
        language = self.fixed_language or language_of_texts(text)
        short, long = (None, text) if name in _LONG else (text, None)
        return Record(image, short, long, language, (), source)


class ZeroRecords(FileRecords):
    """The rows of one file, each as often as it has texts."""

    @staticmethod
    def records_in(parser: Any, item: Any) -> Sequence[tuple[int, Language]]:
        """Return place and language of each text that a row has."""
        return [(place, parser.language(item, place)) for place in parser.texts_of(item)]

    def _read(self, index: int) -> Record:
        source = self._source(index)
        return self._parser(self._item(index, source), int(self._index.parts[index]), source)


def _is_blank(text: Any) -> bool:
    return text is None or (isinstance(text, str) and not text.strip())


# ---------------------------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------------------------


def images_by_key(folder: Path, follow_links: bool) -> FolderImages | TarImages:
    """Find the images in a folder: in its tar shards if it has any, else in itself.

    Raises:
        ValueError: A shard is a link out of the folder, damaged, or has two members of one name.
    """
    shards = sorted(folder.glob("*.tar"))
    check_record_files(shards, folder, follow_links)
    return TarImages(folder, _members(shards)) if shards else FolderImages(folder, follow_links)


@dataclass(frozen=True)
class FolderImages:
    """Images as files that are named by their keys."""

    folder: Path
    follow_links: bool

    def __call__(self, key: str, source: str) -> str:
        """Return the path of an image."""
        for suffix in _SUFFIXES:
            path = self.folder / f"{key}{suffix}"
            if os.path.isfile(path):  # noqa: PTH113  # never raises
                return check_inside(path, self.folder, self.follow_links, KEY, source)
        raise InvalidRecordError(source, KEY, shown(key), _an_image_in(self.folder))


class Member(NamedTuple):
    """Where an image is in a tar shard."""

    shard: str
    offset: int
    size: int


@dataclass(frozen=True)
class TarImages:
    """Images as members of tar shards that are named by their keys, and read when they are asked for."""

    folder: Path
    members: Mapping[str, Member] = field(repr=False)

    def __call__(self, key: str, source: str) -> bytes:
        """Return the content of an image."""
        found = [name for suffix in _SUFFIXES if (name := f"{key}{suffix}") in self.members]
        if not found:
            raise InvalidRecordError(source, KEY, shown(key), _an_image_in(self.folder))
        member = self.members[found[0]]
        with open(member.shard, "rb") as file:  # noqa: PTH123  # anew each time: threads can't share a position
            file.seek(member.offset)
            return file.read(member.size)


def _an_image_in(folder: Path) -> str:
    return f"the name of an image, perhaps without {', '.join(_SUFFIXES[1:])}, in {folder}; none is ever fetched"


def _members(shards: Sequence[Path]) -> dict[str, Member]:
    members: dict[str, Member] = {}
    for shard in shards:
        try:
            with tarfile.open(shard, "r:") as archive:  # uncompressed, so that a member can be read by its place
                for member in archive:
                    if not member.isfile():
                        continue
                    name = member.name.removeprefix("./")  # as `tar -C images .` puts before each
                    if name in members:
                        raise ValueError(f"{shard} has a second image {name!r}: keys must be of one image each")
                    members[name] = Member(str(shard), member.offset_data, member.size)
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(f"{shard} must be a tar file that is not compressed: {error}") from error
    return members
