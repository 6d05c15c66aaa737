"""Where the records of text files, or of shards that are read in any order, are, kept between runs.

Scanning a file of gigabytes takes minutes, and every process of every run would do it. The index of a large file is
made once, by one process of a machine while the others wait, and mapped into memory from then on, so that processes
share it. It is in the user's cache, and of use only while path, size and time of change of the file are as they were.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from array import array
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import current_process, get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from ...files import new_folder, read_json, user_cache
from ...languages import LANGUAGES, Language

logger = logging.getLogger(__name__)

FORMAT = 1  # of the index, and of what languages are guessed by
LARGE_FILE = 64 * 2**20  # bytes; smaller files are scanned each time, in a second or so
_NAMED = 5  # malformed records, in a warning
_DTYPES: dict[str, np.dtype[Any]] = {
    "starts": np.dtype(np.int64),
    "lengths": np.dtype(np.uint32),
    "numbers": np.dtype(np.uint32),
    "languages": np.dtype(np.uint8),
    "parts": np.dtype(np.uint8),
}
_DESCRIPTION = "index.json"
_GUARD = 'put what your script does under `if __name__ == "__main__":`, which the processes that it starts leave out'


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
        malformed: How many can't be decoded, and the numbers of the first of them.
        folder: Where it is kept; `None`: in memory alone.
    """

    starts: np.ndarray
    lengths: np.ndarray
    numbers: np.ndarray
    languages: np.ndarray
    parts: np.ndarray
    malformed: tuple[int, Sequence[int]]
    folder: Path | None = field(default=None, compare=False)

    def __reduce__(self) -> Any:
        """Pickle the place of the files, so that workers map them instead of copying them."""
        arrays = tuple(getattr(self, name) for name in _DTYPES)
        return (RecordIndex, (*arrays, self.malformed)) if self.folder is None else (load_index, (self.folder,))


def make_index(spans: Iterable[Span], records_in: Callable[[Any], Sequence[tuple[int, Language]]]) -> RecordIndex:
    """Go through the items of a file.

    Args:
        spans: The items.
        records_in: Returns part and language of each record of an item; may raise on what is no item.
    """
    starts, lengths, numbers, languages, parts = array("q"), array("I"), array("I"), bytearray(), bytearray()
    malformed: list[int] = []
    for span in spans:
        try:
            records = [(part, LANGUAGES.index(language)) for part, language in records_in(span.item)]
        except (ValueError, TypeError, AttributeError, LookupError):
            records = [(0, 0)]  # it can't be used, as reading it will say
        for part, language in records:
            starts.append(span.start)
            lengths.append(min(span.length, 2**32 - 1))
            numbers.append(span.number)
            languages.append(language)
            parts.append(part)
        if span.item is None:
            malformed.append(span.number)
    values: tuple[Any, ...] = (starts, lengths, numbers, languages, parts)
    arrays: dict[str, Any] = {
        name: np.array(value, dtype) for value, (name, dtype) in zip(values, _DTYPES.items(), strict=True)
    }
    return RecordIndex(**arrays, malformed=(len(malformed), tuple(malformed[:_NAMED])))


def load_index(folder: Path) -> RecordIndex:
    """Map an index into memory.

    Raises:
        OSError, ValueError: It isn't there, or is damaged.
    """
    said = read_json(folder / _DESCRIPTION)
    if not isinstance(said, dict) or not {"records", "malformed"} <= said.keys():
        raise ValueError(f"{folder / _DESCRIPTION} lacks what an index says of itself")
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _DTYPES}
    for name, values in arrays.items():
        if (values.dtype, values.shape) != (_DTYPES[name], (said["records"],)):
            raise ValueError(f"{folder / name}.npy has {values.dtype} {values.shape}")
    count, first = said["malformed"]
    return RecordIndex(**arrays, malformed=(count, tuple(first)), folder=folder)


def record_indexes(
    files: Sequence[Path], scan: Callable[[Path], RecordIndex], key: str, cache: Path | None = None
) -> list[RecordIndex]:
    """Return the index of each file, made by all cores where large files have none yet, and kept.

    Args:
        files: Text files.
        scan: Makes the index of one; must be pickled.
        key: All that an index depends on beside the file.
        cache: Folder; `None`: `records` in [`user_cache`].

    Raises:
        RuntimeError: A process that another one starts reads the files while it imports the script of that one.
    """
    large = [path for path in files if path.stat().st_size >= LARGE_FILE]
    if not large:
        return [scan(path) for path in files]
    if getattr(current_process(), "_inheriting", False):
        raise RuntimeError(f"{large[0]} is read while a process starts: {_GUARD}")
    cache = user_cache() / "records" if cache is None else cache
    found = {path: _folder_of(path, key, cache) for path in large}
    if any(_loaded(folder) is None for folder in found.values()):
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / "lock"):  # what another process makes need not be made again
                _make_missing({path: folder for path, folder in found.items() if _loaded(folder) is None}, scan)
        except OSError as error:
            logger.warning("the records of large files are found anew in each run: no index can be kept (%s)", error)
        except BrokenProcessPool:
            logger.warning(
                "the records of large files are found by one process, for others could not start: %s", _GUARD
            )
    indexes = {path: _loaded(folder) for path, folder in found.items()}
    return [indexes.get(path) or scan(path) for path in files]


def _make_missing(missing: dict[Path, Path], scan: Callable[[Path], RecordIndex]) -> None:
    start = time.perf_counter()
    sizes = {path: path.stat().st_size for path in missing}
    processes = min(len(missing), os.cpu_count() or 1)
    largest_first = sorted(missing, key=lambda path: -sizes[path])
    if processes > 1 and not current_process().daemon:  # which may have no children
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            list(pool.map(_make, largest_first, (missing[path] for path in largest_first), [scan] * len(missing)))
    else:
        for path in largest_first:
            _make(path, missing[path], scan)
    if missing:
        logger.info(
            "found the records of %d files, %.1f GB, in %.0f s; the next run need not look for them",
            len(missing),
            sum(sizes.values()) / 1e9,
            time.perf_counter() - start,
        )


def _make(path: Path, folder: Path, scan: Callable[[Path], RecordIndex]) -> None:
    index = scan(path)
    if _state(path) != folder.name.partition("-")[2]:
        return  # it has changed in the meantime
    for old in folder.parent.glob(f"{folder.name.partition('-')[0]}-*"):
        shutil.rmtree(old, ignore_errors=True)
    with new_folder(folder) as unfinished:
        for name in _DTYPES:
            np.save(unfinished / f"{name}.npy", getattr(index, name), allow_pickle=False)
        said = {"format": FORMAT, "file": str(path), "records": len(index.starts), "malformed": index.malformed}
        (unfinished / _DESCRIPTION).write_text(json.dumps(said), encoding="utf-8")


def _folder_of(path: Path, key: str, cache: Path) -> Path:
    name = hashlib.sha256(json.dumps([FORMAT, str(path.resolve()), key]).encode()).hexdigest()[:32]
    return cache / f"{name}-{_state(path)}"


def _state(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def _loaded(folder: Path) -> RecordIndex | None:
    if not folder.is_dir():
        return None
    try:
        return load_index(folder)
    except (OSError, ValueError) as error:
        logger.warning("the index in %s is damaged, and made anew: %s", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None
