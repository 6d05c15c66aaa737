"""Validation of a data set: all of its records are read, in spite of errors, and what is wrong is counted."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..checks import check_choice, check_positive_integer
from ..errors import UnreadableImageError
from ..files import printable
from ..languages import Language
from ..streams import bounded_map, chunks
from .readers.checks import check_language_option, shown
from .readers.files import JSON_SUFFIXES, SUFFIXES, columns_of, first_item, record_files
from .readers.zero import KEY
from .records import InvalidRecordError, Record, RecordDataset, open_record_image
from .shard_files import BrokenShardError, Shard, ShardReader, check_count, is_index

Format = Literal["finehard", "ccmb", "zero", "pairs", "folder", "shards"]
ImageCheck = Literal["none", "exists", "open"]

IMAGE_CHECKS: tuple[ImageCheck, ...] = ("none", "exists", "open")

_AHEAD_PER_THREAD = 8


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    source: str  # "file.jsonl:17"
    field: str  # e.g. "bbox_info[2].bbox"
    found: str
    allowed: str

    def __str__(self) -> str:
        return str(InvalidRecordError(self.source, self.field, self.found, self.allowed))


@dataclass
class Report:
    """The findings of `validate`. Counts are of the records that could be read, but for `records`."""

    records: int = 0  # all, also those that could not be read
    unusable: int = 0  # of these, those with at least one problem
    languages: dict[str, int] = field(default_factory=lambda: {"en": 0, "zh": 0})
    short_captions: int = 0
    long_captions: int = 0
    with_regions: int = 0
    regions: int = 0
    long_region_texts: int = 0
    regions_with_hard_negatives: int = 0
    hard_negatives: int = 0
    repeated_images: int = 0  # records whose image (path, or bytes in a shard) an earlier one has: no problem by itself
    problems: list[Problem] = field(default_factory=list)

    @property
    def problems_by_field(self) -> dict[str, int]:
        """Return how many problems each field has, most first; positions in lists count as one field."""
        fields = Counter(re.sub(r"\[[^]]*\]", "[]", problem.field) for problem in self.problems)
        return dict(fields.most_common())

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        result = asdict(self)
        problems = result.pop("problems")
        return {**result, "problems_by_field": self.problems_by_field, "problems": problems}


@dataclass(frozen=True)
class _Outcome:
    record: Record | None  # None: could not be read
    image_key: int | None  # 64 bits of the image's path or bytes
    problems: list[Problem]
    is_record: bool = True  # False: a shard as a whole


def validate(
    dataset: RecordDataset | Sequence[Shard],
    images: ImageCheck = "exists",
    threads: int = 8,
    show_progress_bar: bool | None = None,
    language: Language | None = None,
) -> Report:
    """Read every record and report all that is wrong, and what the data set holds.

    Beyond what reading checks, a hard negative may not equal the text that it is a false variant of.

    Args:
        dataset: What a reader gives, or the shards that `list_shards` gives.
        images: "none" doesn't look, "exists" sees whether there is such a file, "open" decodes it whole.
        threads: Threads of reading and decoding.
        show_progress_bar: None shows it on a terminal, for many records.
        language: The language of the records in shards; None: by each sample (readers have set that of theirs).

    Raises:
        ValueError: An argument is out of range; never for what is wrong with a record.
    """
    check_choice("images", images, IMAGE_CHECKS)
    check_positive_integer("threads", threads)
    check_language_option(language)
    attempts: Iterator[Attempt]
    if isinstance(dataset, RecordDataset):
        size = len(dataset)
        attempts = (partial(dataset.__getitem__, index) for index in range(size))
    else:
        size = sum(max(shard.samples, 0) for shard in dataset)
        attempts = shard_attempts(dataset, language)
    report, keys = Report(), array("Q")
    check = partial(_check, images=images)
    outcomes = bounded_map(check, attempts, threads, _AHEAD_PER_THREAD * threads)
    for some in chunks(outcomes, _AHEAD_PER_THREAD, size, show_progress_bar, "records"):
        for outcome in some:
            _count(report, outcome)
            if outcome.image_key is not None:
                keys.append(outcome.image_key)
    report.repeated_images = len(keys) - len(np.unique(np.array(keys, dtype=np.uint64)))
    return report


def guess_format(path: str | Path, follow_links: bool = False) -> tuple[Format, str]:
    """Tell the format of a data set from its files; with `follow_links` also from those that links lead out to.

    Returns:
        The format, and what it was seen from.

    Raises:
        ValueError: There is no such path, or nothing in it tells.
    """
    text, path = str(path), Path(path)
    if text.endswith(".tar") or is_index(path) or (path.is_dir() and any(path.glob("*.tar"))):
        return "shards", "tar files"
    if path.suffix.lower() == ".parquet" or (path.is_dir() and any(path.glob("*.parquet"))):
        return "pairs", "Parquet"
    if path.is_dir() and not any(file.suffix.lower() in SUFFIXES for file in path.iterdir()):
        return "folder", "a folder without files of records"
    file = record_files(path, SUFFIXES, follow_links)[0]
    if file.suffix.lower() not in JSON_SUFFIXES:
        if KEY in (columns_of(file) or ()):
            return "zero", f"{KEY} in {file.name}"
        return "pairs", f"a table, {file.name}"
    item = first_item(file)
    if isinstance(item, dict) and KEY in item:
        return "zero", f"{KEY} in {file.name}"
    if isinstance(item, dict) and "f_path" in item:
        return "finehard", f"f_path in {file.name}"
    if isinstance(item, dict) and {"text", "image_path"} <= set(item):
        return "ccmb", f"text and image_path in {file.name}"
    return "pairs", f"no f_path in {file.name}"


Attempt = Callable[[], Record]  # raises what is wrong


def shard_attempts(shards: Sequence[Shard], language: Language | None) -> Iterator[Attempt]:
    """Yield for each sample of shards a function that returns its record, or raises what is wrong with it.

    Shards are read where this is iterated, for a file has one position.
    """

    def outcome(record: Record | Exception) -> Record:
        if isinstance(record, Exception):
            raise record
        return record

    for shard in shards:
        found = 0
        try:
            with ShardReader(shard.path, language) as reader:
                for sample in reader.samples():
                    found += 1
                    try:
                        record: Record | Exception = reader.record(sample)
                    except ValueError as error:
                        record = error
                    yield partial(outcome, record)
            check_count(shard.path, found, shard.samples)
        except BrokenShardError as error:
            yield partial(outcome, error)


def _check(attempt: Attempt, images: ImageCheck) -> _Outcome:
    """Read a record and look at its image; runs in threads."""
    try:
        record = attempt()
    except InvalidRecordError as error:
        problem = Problem(error.source, error.field, error.found, error.allowed)
        return _Outcome(None, None, [problem], is_record=not isinstance(error, BrokenShardError))
    problems = []
    if images == "exists" and isinstance(record.image, str):
        try:
            is_file = Path(record.image).is_file()
        except OSError:  # e.g. a name that is too long
            is_file = False
        if not is_file:
            problems.append(Problem(record.source, "the image", f"missing at {record.image}", "an existing file"))
    if images == "open":
        try:
            open_record_image(record)
        except UnreadableImageError as error:
            found = f"unreadable ({str(error).removeprefix(f'{printable(record.source)}: ')})"
            problems.append(Problem(record.source, "the image", found, "a whole image in a known format"))
    for region_number, region in enumerate(record.regions):
        for number, negative in enumerate(region.hard_negatives):
            if _normalised(negative) == _normalised(region.short_text):
                name = f"regions[{region_number}].hard_negatives[{number}]"
                problems.append(Problem(record.source, name, shown(negative), "another text than the region's own"))
    key = None  # decoded images are not compared
    if isinstance(record.image, (str, bytes)):
        content = record.image if isinstance(record.image, bytes) else record.image.encode(errors="surrogateescape")
        key = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
    return _Outcome(record, key, problems)


def _normalised(text: str) -> str:
    return " ".join(text.casefold().split())


def _count(report: Report, outcome: _Outcome) -> None:
    report.records += outcome.is_record
    report.problems += outcome.problems
    report.unusable += outcome.is_record and bool(outcome.problems)
    record = outcome.record
    if record is None:
        return
    report.languages[record.language] += 1
    report.short_captions += record.short_caption is not None
    report.long_captions += record.long_caption is not None
    report.with_regions += bool(record.regions)
    report.regions += len(record.regions)
    report.long_region_texts += sum(region.long_text is not None for region in record.regions)
    report.regions_with_hard_negatives += sum(bool(region.hard_negatives) for region in record.regions)
    report.hard_negatives += sum(len(region.hard_negatives) for region in record.regions)
