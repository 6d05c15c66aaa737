"""Where the records of text files, or of shards that are read in any order, are, kept between runs.

Scanning gigabytes takes minutes, and every process of every run would do it. The index of a large source (all files of
one data set) is made once, by one process of a machine while the others wait, and mapped into memory from then on, so
that processes share it. It is in the user's cache, and of use only while path, size and time of change of the files are
as they were; of a source that has changed, only files that are new or have changed are scanned. The files of a source
have one index together, because each mapped file is an open one, of which a process may have about a thousand.
"""

from __future__ import annotations

import hashlib
import json
import logging
import operator
import os
import shutil
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from multiprocessing import current_process
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from filelock import FileLock

from ...files import new_folder, read_json, user_cache
from ...languages import LANGUAGES, Language
from ..processes import GUARD, available_cores
from .checks import stated_image_size

logger = logging.getLogger(__name__)

FORMAT = 3  # of the index, and of what languages are guessed by
LARGE_SOURCE = 64 * 2**20  # bytes of all files; smaller sources are scanned each time, in a second or so
_UNUSED = 90 * 86_400  # seconds since it was opened, after which the index of a source as it was earlier is removed
_NOT_KEPT = "the records of large sources are found anew in each run: no index can be kept (%s)"
_NAMED = 5  # malformed records, in a warning
_ARRAYS: dict[str, tuple[type[np.integer], tuple[int, ...]]] = {  # dtype, and shape of a row
    "starts": (np.int64, ()),
    "lengths": (np.uint32, ()),
    "numbers": (np.uint32, ()),
    "languages": (np.uint8, ()),
    "parts": (np.uint8, ()),
    "image_sizes": (np.int32, (2,)),
}
_DESCRIPTION = "index.json"


class Span(NamedTuple):
    """Where an item is in a file."""

    start: int  # byte
    length: int  # bytes; 0: the file is broken here; above the most that is read: not read
    number: int  # of its first line, or of the item in a list; from 1
    item: Any  # None: malformed


@dataclass(frozen=True)
class RecordIndex:
    """Where the records of a file are.

    Attributes:
        starts: int64 (N,), the first byte of each.
        lengths: uint32 (N,), its bytes.
        numbers: uint32 (N,), its first line, or its place in a list; from 1.
        languages: uint8 (N,), index into `LANGUAGES`.
        parts: uint8 (N,), which of the records of one item it is.
        image_sizes: int32 (N, 2), height and width of its image in pixels as far as they are known, else 0. What is
            written into it is kept with the index, and then known to later runs.
        malformed: How many can't be decoded, and the numbers of the first of them.
        kept: The kept indexes that this one is among, and its number there; `None`: it is in memory alone.
    """

    starts: np.ndarray
    lengths: np.ndarray
    numbers: np.ndarray
    languages: np.ndarray
    parts: np.ndarray
    image_sizes: np.ndarray
    malformed: tuple[int, Sequence[int]]
    kept: tuple[KeptIndexes, int] | None = field(default=None, compare=False)

    def __reduce__(self) -> Any:
        """Pickle the place of the kept indexes, so that workers map them instead of copying them."""
        if self.kept is not None:
            return operator.getitem, self.kept
        return RecordIndex, (*(getattr(self, name) for name in _ARRAYS), self.malformed)


def make_index(spans: Iterable[Span], records_in: Callable[[Any], Sequence[tuple[int, Language]]]) -> RecordIndex:
    """Go through the items of a file.

    Args:
        spans: The items.
        records_in: Returns part and language of each record of an item; may raise on what is no item.
    """
    starts, lengths, numbers, languages, parts = array("q"), array("I"), array("I"), bytearray(), bytearray()
    image_sizes = array("i")
    malformed: list[int] = []
    for span in spans:
        try:
            records = [(part, LANGUAGES.index(language)) for part, language in records_in(span.item)]
        except (ValueError, TypeError, AttributeError, LookupError):
            records = [(0, 0)]  # it can't be used, as reading it will say
        size = stated_image_size(span.item) or (0, 0)
        for part, language in records:
            starts.append(span.start)
            lengths.append(min(span.length, 2**32 - 1))
            numbers.append(span.number)
            languages.append(language)
            parts.append(part)
            image_sizes.extend(size)
        if span.item is None:
            malformed.append(span.number)
    values: tuple[Any, ...] = (starts, lengths, numbers, languages, parts, image_sizes)
    arrays: dict[str, Any] = {
        name: np.array(value, dtype).reshape(-1, *row)
        for value, (name, (dtype, row)) in zip(values, _ARRAYS.items(), strict=True)
    }
    return RecordIndex(**arrays, malformed=(len(malformed), tuple(malformed[:_NAMED])))


def join_indexes(indexes: Sequence[RecordIndex], shifts: Sequence[int]) -> RecordIndex:
    """Join the indexes of the pieces of a file.

    Args:
        indexes: The pieces, at least one, in the order of the file.
        shifts: What the numbers of each are to be raised by.
    """
    arrays: dict[str, Any] = _concatenate(indexes)
    arrays["numbers"] += np.repeat(shifts, [len(index.numbers) for index in indexes]).astype(np.uint32)
    first = [number + shift for index, shift in zip(indexes, shifts, strict=True) for number in index.malformed[1]]
    count = sum(index.malformed[0] for index in indexes)
    return RecordIndex(**arrays, malformed=(count, tuple(first[:_NAMED])))


def _concatenate(indexes: Sequence[RecordIndex]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([getattr(index, name) for index in indexes]) for name in _ARRAYS}


# ---------------------------------------------------------------------------------------------------------------------
# Keeping
# ---------------------------------------------------------------------------------------------------------------------


class FileState(NamedTuple):
    """State of a file, which tells whether it has changed."""

    path: str
    size: int  # bytes
    changed: int  # ns


class KeptIndexes:
    """The indexes of the files of a source, mapped into memory from a folder, which is gone when the source changes.

    Args:
        folder: The folder.

    Attributes:
        folder: The folder.
        states: Each file, as it was scanned.

    Raises:
        OSError, ValueError: They aren't there, or are damaged.
    """

    def __init__(self, folder: Path):
        said = read_json(folder / _DESCRIPTION)
        if not isinstance(said, dict) or "files" not in said:
            raise ValueError(f"{folder / _DESCRIPTION} lacks what an index says of itself")
        self.folder, files = folder, said["files"]
        with suppress(OSError):
            os.utime(folder)  # it is in use
        self.states = [FileState(*file["state"]) for file in files]
        self._malformed = [(file["malformed"][0], tuple(file["malformed"][1])) for file in files]
        self._ends = [0, *accumulate(file["records"] for file in files)]
        self._arrays = {name: _mapped(folder / f"{name}.npy", name == "image_sizes") for name in _ARRAYS}
        for name, values in self._arrays.items():
            dtype, row = _ARRAYS[name]
            if (values.dtype, values.shape) != (dtype, (self._ends[-1], *row)):
                raise ValueError(f"{folder / name}.npy has {values.dtype} {values.shape}")

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, number: int) -> RecordIndex:
        """Return the index of one file."""
        start, end = self._ends[number], self._ends[number + 1]
        arrays = {name: values[start:end] for name, values in self._arrays.items()}
        return RecordIndex(**arrays, malformed=self._malformed[number], kept=(self, number))

    def __iter__(self) -> Iterator[RecordIndex]:
        return (self[number] for number in range(len(self)))

    def __reduce__(self) -> Any:
        return KeptIndexes, (self.folder,)


def _mapped(file: Path, is_written: bool) -> np.ndarray:
    """Map an array into memory. What is written into it stays in memory if its file is of somebody else."""
    mode: Literal["r", "r+", "c"] = "r"
    if is_written:
        mode = "r+" if os.access(file, os.W_OK) else "c"
    return np.load(file, mmap_mode=mode, allow_pickle=False)


def record_indexes(
    files: Sequence[Path],
    scan: Callable[[Sequence[Path], int], list[RecordIndex]],
    source: Any,
    key: str,
    cache: Path | None = None,
) -> list[RecordIndex]:
    """Return the index of each file of a source, made by all cores and kept if the source is large and has none yet.

    Args:
        files: Text files or shards.
        scan: Makes the indexes of files, by at most so many processes.
        source: What names the source for as long as its files may change: a path or several.
        key: All that an index depends on beside the files.
        cache: Folder; `None`: `records` in [`user_cache`].

    Raises:
        RuntimeError: A process that another one starts reads the files while it imports the script of that one.
    """
    states = _states(files)
    if sum(state.size for state in states) < LARGE_SOURCE:
        return scan(files, 1)
    if getattr(current_process(), "_inheriting", False):
        raise RuntimeError(f"{files[0]} is read while a process starts: {GUARD}")
    cache = user_cache() / "records" if cache is None else cache
    name = _digest([FORMAT, source, key])
    folder = cache / f"{name}-{_digest(states)}"
    kept = _loaded(folder)
    if kept is not None:
        return [*kept]
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache / "lock").acquire()
    except OSError as error:
        logger.warning(_NOT_KEPT, error)
        return scan(files, max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))  # as others do
    with lock:  # what another process makes need not be made again
        kept = _loaded(folder)
        return [*kept] if kept is not None else _make(files, states, scan, folder, [*cache.glob(f"{name}-*")])


def _make(
    files: Sequence[Path],
    states: Sequence[FileState],
    scan: Callable[[Sequence[Path], int], list[RecordIndex]],
    folder: Path,
    earlier: Sequence[Path],
) -> list[RecordIndex]:
    """Scan the files that no earlier index of the source has as they are, and keep the index of all in a folder."""
    start = time.perf_counter()
    unused = [old for old in earlier if time.time() - old.stat().st_mtime > _UNUSED]  # else a run may still open it
    known: dict[FileState, RecordIndex] = {}
    for old in filter(None, map(_loaded, earlier)):
        known.update(zip(old.states, old, strict=True))
    missing = [file for file, state in zip(files, states, strict=True) if state not in known]
    found = dict(zip(missing, scan(missing, available_cores()), strict=True))
    indexes = [found.get(file) or known[state] for file, state in zip(files, states, strict=True)]
    logger.info(
        "found the records of %d files, %.1f GB, in %.0f s; the next run need not look for them",
        len(missing),
        sum(state.size for state in states if state not in known) / 1e9,
        time.perf_counter() - start,
    )
    if _states(files) != states:
        return indexes  # of files that changed in the meantime
    try:
        _keep(indexes, states, folder)
    except OSError as error:
        logger.warning(_NOT_KEPT, error)
        return indexes
    for old_folder in unused:
        shutil.rmtree(old_folder, ignore_errors=True)
    return [*KeptIndexes(folder)]


def _keep(indexes: Sequence[RecordIndex], states: Sequence[FileState], folder: Path) -> None:
    if folder.is_dir():  # damaged
        shutil.rmtree(folder)
    with new_folder(folder) as unfinished:
        for name, values in _concatenate(indexes).items():
            np.save(unfinished / f"{name}.npy", values, allow_pickle=False)
        described = [
            {"state": state, "records": len(index.starts), "malformed": index.malformed}
            for state, index in zip(states, indexes, strict=True)
        ]
        (unfinished / _DESCRIPTION).write_text(json.dumps({"format": FORMAT, "files": described}), encoding="utf-8")


def _states(files: Sequence[Path]) -> list[FileState]:
    found = [(file, file.stat()) for file in files]
    return [FileState(str(file.resolve()), status.st_size, status.st_mtime_ns) for file, status in found]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:32]


def _loaded(folder: Path) -> KeptIndexes | None:
    if not folder.is_dir():
        return None
    try:
        return KeptIndexes(folder)
    except (FileNotFoundError, PermissionError, ValueError, LookupError, TypeError) as error:
        logger.warning("the index in %s is damaged, and made anew: %s", folder, error)
        return None
