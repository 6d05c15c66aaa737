"""Records: an image with its captions and regions, whatever file it comes from, and data sets of them."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UnreadableImageError
from ..files import printable
from ..languages import Language
from ..modeling.inputs import load_image, open_image
from .jpeg import decode_jpeg
from .sampling import check_sampling_rates


class InvalidRecordError(ValueError):
    """A record can't be used.

    Args:
        source: Where it is, e.g. `"file.jsonl:17"`.
        field: Which part of it is wrong, e.g. `"bbox_info[2].bbox"`.
        found: What is there, as text.
        allowed: What it must be, as text.
    """

    def __init__(self, source: str, field: str, found: str, allowed: str):
        super().__init__(source, field, found, allowed)  # as arguments: so it comes out of a worker process intact
        self.source, self.field, self.found, self.allowed = source, field, found, allowed

    def __str__(self) -> str:
        return printable(f"{self.source}: {self.field} is {self.found}; it must be {self.allowed}")


@dataclass(frozen=True)
class Region:
    """A part of an image and what is said of it."""

    box: tuple[float, float, float, float]  # x1, y1, x2, y2 as fractions of the image's width and height, 0..1
    short_text: str
    long_text: str | None = None
    hard_negatives: tuple[str, ...] = ()  # false variants of short_text


@dataclass(frozen=True)
class Record:
    """An image, its captions and its regions. At least one of the captions is there."""

    image: str | bytes | Image.Image  # path, encoded image (from a shard), or decoded image (from a data set object)
    short_caption: str | None
    long_caption: str | None
    language: Language
    regions: tuple[Region, ...]
    source: str  # "file.jsonl:17" (line or item number, from 1), for error messages
    matches: bool | None = None  # of a labelled pair: whether the caption is one of the image; None: it has no label
    # Height and width in pixels of the image as it is stored, where the data says them; None: see its header.
    image_size: tuple[int, int] | None = None


class RecordDataset(ABC):
    """A map-style data set of records: `len(dataset)`, `dataset[index]`, iteration, pickling.

    Records are read and checked on access, in any order and always to the same result; what is kept per record is a
    few bytes, so 12 million of them are no burden. Threads and processes may share one data set.

    Attributes:
        languages: uint8 (N,), an index into `LANGUAGES` for each record (0 en, 1 zh), known without reading it. Of a
            record that can't be read it is a guess.
        image_sizes: int32 (N, 2), height and width in pixels of each image as it is stored, 0 where it is not known;
            what is written into it is kept for later runs if the index of the records is. They are good enough to
            choose batches by, and to nothing else: an image may have been replaced since. `None`: nothing is known.
    """

    languages: np.ndarray
    image_sizes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.languages)

    def __getitem__(self, index: int) -> Record:
        """Read one record.

        Raises:
            InvalidRecordError: A `ValueError`: the record can't be used; names file, line, field and value.
        """
        return self._read(self._position(index))

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    @property
    def parts(self) -> tuple[RecordDataset, ...]:
        """Return the data sets that these records were concatenated of, which are not concatenated themselves."""
        return (self,)

    def source(self, index: int) -> str:
        """Return where a record comes from, e.g. `"file.jsonl:17"`, also where it can't be read."""
        return self._source(self._position(index))

    def _position(self, index: int) -> int:
        return range(len(self))[operator.index(index)]

    @abstractmethod
    def _read(self, index: int) -> Record: ...

    @abstractmethod
    def _source(self, index: int) -> str: ...


class ConcatenatedRecords(RecordDataset):
    """Several data sets one after another.

    Attributes:
        datasets: The data sets.
        sampling_rates: How many times an epoch of training takes the records of each; `None`: once.
    """

    def __init__(self, datasets: Sequence[RecordDataset], sampling_rates: Sequence[float] | None = None):
        if not datasets:
            raise ValueError("datasets must hold at least one data set")
        if sampling_rates is not None:
            check_sampling_rates(sampling_rates, len(datasets))
        self.datasets, self.sampling_rates = tuple(datasets), sampling_rates and tuple(map(float, sampling_rates))
        self._ends = np.cumsum([len(dataset) for dataset in datasets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def languages(self) -> np.ndarray:  # type: ignore[override]
        """Return the languages of all, put together anew each time, for those of a data set may be mapped files."""
        return np.concatenate([dataset.languages for dataset in self.datasets])

    @property
    def parts(self) -> tuple[RecordDataset, ...]:
        """Return the data sets of these and of those among them that are concatenated, in the order of records."""
        return tuple(part for dataset in self.datasets for part in dataset.parts)

    def _locate(self, index: int) -> tuple[RecordDataset, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        start = int(self._ends[number - 1]) if number else 0
        return self.datasets[number], index - start

    def _read(self, index: int) -> Record:
        dataset, position = self._locate(index)
        return dataset[position]

    def _source(self, index: int) -> str:
        dataset, position = self._locate(index)
        return dataset.source(position)


def concatenate(datasets: Sequence[RecordDataset], sampling_rates: Sequence[float] | None = None) -> RecordDataset:
    """Join data sets; the records of the first come first.

    Args:
        datasets: The data sets.
        sampling_rates: How many times an epoch of training takes the records of each: 3 takes each record three times,
            0.25 takes a quarter of them, another in each epoch, and 2.5 takes each twice and half of them a third time.
            `None`: once. It changes neither the length of what is returned nor an evaluation.

    Raises:
        ValueError: There is none, or a rate is not positive, or there are not as many of them.
    """
    if len(datasets) == 1 and sampling_rates is None:
        return datasets[0]
    return ConcatenatedRecords(datasets, sampling_rates)


def open_record_image(record: Record) -> Image.Image:
    """Decode the image of a record.

    Returns:
        PIL image in mode RGB, upright (EXIF orientation applied); of an animation the first frame.

    Raises:
        UnreadableImageError: It is missing, truncated, corrupt or of an unknown format; the message names the record's
            source and the path.
    """
    image: Any = record.image
    try:
        return decode_jpeg(image) or load_image(image)
    except Exception as error:  # on corrupt data decoders raise nearly everything
        reason = str(error) if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"
        path = f"{image}: " if isinstance(image, str) and image not in reason else ""
        raise UnreadableImageError(printable(f"{record.source}: {path}{reason}")) from error


def read_image_size(record: Record) -> tuple[int, int]:
    """Return height and width in pixels of a record's image as it is stored, by its header.

    Raises:
        ValueError: It can't be read; names the record.
    """
    image = record.image
    if isinstance(image, Image.Image):
        return image.height, image.width
    try:
        with open_image(image) as opened:  # reads no more than the header
            return opened.height, opened.width
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{record.source}: {error}") from error
