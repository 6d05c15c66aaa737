"""Images and captions for retrieval in Chinese-CLIP's format: Flickr30k-CN, MUGE, COCO-CN."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...data.readers.checks import check_text, shown
from ...data.records import InvalidRecordError
from ...errors import UnreadableImageError
from ...files import UTF8_BOM
from ..base import Problem
from ..tasks.retrieval import RetrievalData
from ._caption_files import Folder, find_file
from ._files import check_list, check_usable, numbered_json_lines, problem_of, shifted_ids

_URL_SAFE = bytes.maketrans(b"-_", b"+/")  # both alphabets are in use


@dataclass(frozen=True)
class EncodedImage:
    """An image in Base64, a cell of a table."""

    path: Path  # of the table
    number: int  # its id
    start: int  # byte
    length: int  # bytes

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            UnreadableImageError: The table is gone, or the cell is no Base64.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                return base64.b64decode(file.read(self.length).translate(_URL_SAFE), validate=True)
        except (OSError, binascii.Error) as error:
            raise UnreadableImageError(f"{self}: {error}") from error


def read_chinese_clip(
    folder: Folder, split: str = "test", images: None = None, *, follow_links: bool = False
) -> RetrievalData:
    """Read a data set in Chinese-CLIP's format; all images of the split are candidates, also those without a caption.

    Source: README.md of github.com/OFA-Sys/Chinese-CLIP, which has Flickr30k-CN and MUGE in this format: lines
    `id TAB Base64` of `test_imgs.tsv`, lines of JSON with `text_id`, `text` and `image_ids` of `test_texts.jsonl`.

    Args:
        folder: Has both files.
        split: What their names begin with. Of MUGE take "valid": its test captions are published without their images.
        images: Must stay `None`, since the images are in one of the files.
        follow_links: Makes no difference, for the same reason.

    Raises:
        ValueError: A file is missing or broken as a whole, or there is not one pair that can be used.
    """
    if images is not None:
        raise ValueError(f"images={images}: leave it out, since this data set has its images in {split}_imgs.tsv")
    origin = "https://github.com/OFA-Sys/Chinese-CLIP"
    table = find_file(folder, (f"{split}_imgs.tsv",), origin)
    path = find_file(folder, (f"{split}_texts.jsonl",), origin)
    problems: list[Problem] = []
    doubts: list[Problem] = []
    named: set[Any] = set()
    indices: dict[int, int] = {}
    stored = _read_images(table, indices, problems)
    captions: list[str] = []
    pairs: list[tuple[int, int]] = []
    for source, record in numbered_json_lines(path, problems, doubts):
        try:
            text = check_text(record.get("text"), "text", source)
            ids = check_list(record.get("image_ids"), "image_ids", source)
        except InvalidRecordError as error:
            problems.append(problem_of(error))
            continue
        named.update(number for number in ids if isinstance(number, int))
        found = _known(ids, source, indices, table, problems)
        if found:
            pairs += ((index, len(captions)) for index in found)
            captions.append(text)
    check_usable(len(pairs), path, problems)
    doubts += shifted_ids("image id", named, indices, str(path))
    return RetrievalData(stored, captions, pairs, problems=tuple(problems), doubts=tuple(doubts))


def _read_images(table: Path, indices: dict[int, int], problems: list[Problem]) -> list[EncodedImage]:
    """Find the images of a table, and put the index of each by its id into `indices`."""
    images: list[EncodedImage] = []
    for source, start, line in _rows(table):
        try:
            image = _image(table, source, start, line)
            if image.number in indices:
                raise InvalidRecordError(source, "the image's id", str(image.number), "an id that no row before has")
        except InvalidRecordError as error:
            problems.append(problem_of(error))
        else:
            indices[image.number] = len(images)
            images.append(image)
    check_usable(len(images), table, problems)
    return images


def _rows(table: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield (source, where it starts, row) of each row that is not blank."""
    start = 0
    with table.open("rb") as file:
        for number, row in enumerate(file, start=1):
            if row.strip():
                yield f"{table}:{number}", start, row.rstrip(b"\r\n")
            start += len(row)


def _image(table: Path, source: str, start: int, row: bytes) -> EncodedImage:
    key, tab, cell = row.partition(b"\t")
    if not tab or not cell.strip() or b"\t" in cell.strip():
        raise InvalidRecordError(source, "the row", shown(row), "an id, a tab and an image in Base64")
    digits = key.removeprefix(UTF8_BOM)
    if not digits.isdigit():
        raise InvalidRecordError(source, "the image's id", shown(digits), "an integer")
    return EncodedImage(table, int(digits), start + len(key) + len(tab), len(cell))


def _known(
    ids: Sequence[Any], source: str, indices: Mapping[int, int], table: Path, problems: list[Problem]
) -> list[int]:
    """Return the indices of the images that are in the table; the others are problems."""
    found = []
    for position, number in enumerate(ids):
        if type(number) is int and number in indices:  # True is 1 to a mapping
            found.append(indices[number])
        else:
            reason = f"image_ids[{position}] is {shown(number)}; it must be the id of an image in {table}"
            problems.append(Problem(source, reason))
    return list(dict.fromkeys(found))
