"""Folders of images whose subfolders' names are the captions."""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...files import IMAGE_SUFFIXES
from ...languages import LANGUAGES, Language, detect_language
from ..records import InvalidRecordError, Record, RecordDataset
from .checks import check_inside, check_language_option, check_text, existing_folder

LABEL = "{}"  # stands for the label in a template


def read_image_folder(
    folder: str | Path,
    templates: str | Mapping[Language, str] = LABEL,
    language: Language | None = None,
    follow_links: bool = False,
) -> RecordDataset:
    """Read labelled images: the short caption is the name of the subfolder, `_` read as a space.

    Args:
        folder: Holds one subfolder for each label, in Chinese or English; images may lie deeper in it. Files without an
            image's suffix, and hidden ones, are no images; links to folders are not followed. A subfolder that can't be
            listed is a record that can't be read.
        templates: The text around a label, e.g. `"a photo of a {}"`, or one for each language:
            `{"en": "a photo of a {}", "zh": "一张{}的照片"}`.
        language: The language of all labels; None lets `detect_language` tell that of each.
        follow_links: Also read images that links in the folder lead to outside it.

    Returns:
        The records, in the order of labels and paths; `source` is the path.

    Raises:
        ValueError: There is no such folder, no image, an image outside a subfolder, or a template without `{}`.
    """
    check_language_option(language)
    by_language = dict.fromkeys(LANGUAGES, templates) if isinstance(templates, str) else dict(templates)
    for name in LANGUAGES:
        if LABEL not in by_language.get(name, ""):
            raise ValueError(f"templates[{name!r}] must be a text with {LABEL} in it, got {by_language.get(name)!r}")
    return FolderRecords(existing_folder(folder), by_language, language, follow_links)


class FolderRecords(RecordDataset):
    """The images of a folder."""

    def __init__(
        self, folder: Path, templates: Mapping[Language, str], language: Language | None, follow_links: bool = False
    ):
        self.folder, self._templates, self._follow_links = folder, templates, follow_links
        self._unreadable: dict[int, str] = {}  # position of a folder that can't be listed -> why
        # Paths as one string of bytes: 12 million Python strings would take gigabytes.
        ends, languages, content = array("q"), bytearray(), bytearray()

        def add(path: str, label: str) -> None:
            nonlocal content
            content += os.fsencode(path)
            ends.append(len(content))
            languages.append(LANGUAGES.index(language or detect_language(label)))

        def add_unreadable(error: OSError) -> None:  # else `os.walk` leaves out what it can't list
            self._unreadable[len(ends)] = error.strerror or str(error)
            add(Path(error.filename).relative_to(folder).as_posix(), "")

        for root, subfolders, names in os.walk(folder, onerror=add_unreadable):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(names):
                if name.startswith(".") or Path(name).suffix.lower() not in IMAGE_SUFFIXES:
                    continue
                path = Path(root, name).relative_to(folder).as_posix()
                label = label_of(path)
                if label is None:
                    raise ValueError(f"{folder / path} must lie in a subfolder whose name is the caption")
                add(path, label)
        if not ends:
            raise ValueError(f"{folder} must hold at least one image")
        self._ends = np.array(ends, dtype=np.int64)
        self._paths = bytes(content)
        self.languages = np.frombuffer(bytes(languages), dtype=np.uint8)

    def _path(self, index: int) -> str:
        start = self._ends[index - 1] if index else 0
        return os.fsdecode(self._paths[start : self._ends[index]])

    def _source(self, index: int) -> str:
        return str(self.folder / self._path(index))

    def _read(self, index: int) -> Record:
        path, source = self._path(index), self._source(index)
        if index in self._unreadable:
            raise InvalidRecordError(
                source, "the folder", f"unreadable ({self._unreadable[index]})", "a folder to list"
            )
        language = LANGUAGES[self.languages[index]]
        label = check_text(label_of(path), "the name of the subfolder", source)
        caption = self._templates[language].replace(LABEL, label)
        image = check_inside(self.folder / path, self.folder, self._follow_links, "the image", source)
        return Record(image, caption, None, language, (), source)


def label_of(path: str) -> str | None:
    """Return the label in a relative path, None for a file in no subfolder."""
    label, separator, _ = path.partition("/")
    return label.replace("_", " ").strip() if separator else None
