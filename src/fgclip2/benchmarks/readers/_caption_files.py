"""Parts that readers of captions share: where files and images are, lines of text, collecting what is usable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...data.readers.checks import check_text, existing_folder
from ...data.records import InvalidRecordError
from ...files import UTF8_BOM
from ..base import Problem
from ..image_files import ImageStore, check_inside, open_archive
from ..tasks.retrieval import RetrievalData
from ._files import NamedImages, check_list, check_object, check_usable, existing_file, note_repeated_line, problem_of

Folder = str | Path


def find_file(folder: Folder, names: Sequence[str], origin: str) -> Path:
    """Return the first of some files that is there.

    Args:
        folder: Folder of the data set.
        names: Names relative to the folder, the preferred one first.
        origin: Where to get it, for the error message.

    Raises:
        ValueError: There is no such folder, or none of the files.
    """
    for name in names:
        if (existing_folder(folder) / name).is_file():
            return existing_file(Path(folder) / name)
    raise ValueError(f"{folder} has no file {' or '.join(names)}; get it from {origin}")


def find_folder(folder: Folder, name: str, subfolder: str, origin: str) -> Path:
    """Return the folder, or its subfolder, in which another one is.

    Raises:
        ValueError: There is none.
    """
    for root in (existing_folder(folder), Path(folder) / subfolder):
        if (root / name).is_dir():
            return root
    raise ValueError(f"{folder} has no folder {name} or {subfolder}/{name}; get it from {origin}")


def find_images(folder: Folder, images: Folder | None, *places: str, follow_links: bool = False) -> Path:
    """Return where the images are: as the user says, else the first of some places that is there, else the folder.

    Args:
        folder: Folder of the data set.
        images: What the user says; `None`: nothing.
        places: Folders or archives within the folder, the preferred one first.
        follow_links: Whether one of the places may be a link that leads out of the folder.

    Raises:
        ValueError: There is no such folder, an archive in it is broken, or a link leads out of it.
    """
    inside = (Path(folder) / name for name in places)
    found = Path(images) if images is not None else next((path for path in inside if path.exists()), Path(folder))
    if images is None:
        check_inside(found, Path(folder), follow_links)
    for archive in ImageStore(found, follow_links).archives:
        open_archive(archive)  # a broken one is an error of the data set, not of each record
    return found


def numbered_lines(path: Path, doubts: list[Problem]) -> Iterator[tuple[str, bytes]]:
    r"""Yield ("file:17", line) of each line that is not blank; only `\n` ends one; what repeats one is a doubt."""
    seen: dict[bytes, str] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            content = line.removeprefix(UTF8_BOM) if number == 1 else line
            if content.strip():
                note_repeated_line(content.strip(), f"{path}:{number}", seen, doubts)
                yield f"{path}:{number}", content.rstrip(b"\r\n")


def decode_text(content: bytes, source: str) -> str:
    """Decode UTF-8.

    Raises:
        InvalidRecordError: It is something else.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidRecordError(source, "the line", f"broken at byte {error.start}", "UTF-8") from error


class CaptionCollector:
    """Collects a `RetrievalData`: images that many captions name are in it once, and bad records are its problems.

    Args:
        images, follow_links: Folder or archive of the images, as for `ImageStore`.
    """

    def __init__(self, images: Path, follow_links: bool = False):
        self.problems: list[Problem] = []
        self.doubts: list[Problem] = []
        self._images = NamedImages(images, follow_links)
        self._captions: list[str] = []
        self._pairs: list[tuple[int, int]] = []

    @contextmanager
    def checking(self) -> Iterator[None]:
        """Make a problem of an `InvalidRecordError`."""
        try:
            yield
        except InvalidRecordError as error:
            self.problems.append(problem_of(error))

    def add(self, source: str, image: tuple[str, Any], captions: Mapping[str, Any]) -> None:
        """Take an image and those of its captions that can be used.

        Args:
            source: Place of the record, "file:17".
            image: The field its name is from, and the name.
            captions: Field -> caption.
        """
        texts = []
        for field, caption in captions.items():
            with self.checking():
                texts.append(check_text(caption, field, source))
        if not texts:
            return
        with self.checking():
            number = self._images.index(check_text(image[1], image[0], source), image[0], source)
            self._pairs += ((number, len(self._captions) + offset) for offset in range(len(texts)))
            self._captions += texts

    def add_column(self, source: str, image: tuple[str, Any], caption: str) -> None:
        """Take an image and its caption, the last column of a line; more columns are a doubt, and part of the caption.

        Args:
            source, image: As of `add`.
            caption: The rest of the line.
        """
        columns = 2 + caption.count("\t")
        if columns > 2:
            reason = f"the line has {columns} columns, and all after the first are its caption: leave one tab"
            self.doubts.append(Problem(source, reason))
        self.add(source, image, {"caption": caption})

    def members(self, document: Any, key: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (source, record) of each object in a list within a JSON document.

        Raises:
            ValueError: There is no such list.
        """
        records = check_list(check_object(document, str(path), "the content").get(key), key, str(path))
        for index, record in enumerate(records):
            source = f"{path}:{key}[{index}]"
            with self.checking():
                yield source, check_object(record, source)

    def data(self, path: Path) -> RetrievalData:
        """Return what was collected from a file or folder.

        Raises:
            ValueError: Nothing can be used; names the first problem.
        """
        check_usable(len(self._pairs), path, self.problems)
        problems, doubts = tuple(self.problems), tuple(self.doubts)
        return RetrievalData(self._images.files, self._captions, self._pairs, problems=problems, doubts=doubts)
