"""Caches of an index for fast search: its vectors in float16 as FAISS keeps them, and its files as a table.

A cache is a folder in `caches` beside the blocks, named by the hash of the rows that it was made from. The blocks stay
the truth: a cache that is of other rows, damaged or not there is passed over, and all caches can be deleted at any
time. It takes its name when it is complete, so that a run that is killed leaves nothing that would be used. What FAISS
reads is its own format, not a pickle; it is mapped into memory, not read, when it is opened.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from .._imports import require
from ..errors import IncompatibleIndexError, LockedIndexError
from ..files import leads_outside, new_folder, printable, sha256_of_file
from ..streams import batches_of_a_kind
from .exact import best_first
from .scan import ImageFile
from .store import DAMAGE, SECONDS_TO_WAIT_FOR_LOCK, check_files

KINDS = ("exact", "hnsw", "ivf")
APPROXIMATE = ("hnsw", "ivf")
FOLDER = "caches"
FORMAT = 1
LOCK = "lock"
DESCRIPTION, VECTORS, ENTRIES, ENDS = "cache.json", "vectors.faiss", "files.npy", "ends.npy"
_CLASSES = {"exact": "IndexScalarQuantizer", "hnsw": "IndexHNSWSQ", "ivf": "IndexIVFScalarQuantizer"}
_OWN_FOLDERS = re.compile(
    rf"({'|'.join(KINDS)})-[0-9a-f]{{32}}|\.({'|'.join(KINDS)})-[0-9a-f]{{32}}\.[0-9a-f]{{8}}\.partial"
)

FOLDER_OF_IMAGES = {"kind": "folder"}  # the source whose entries are paths that must not lead outside

ROWS_PER_STEP = 8192
LINKS_PER_VECTOR = 32  # of HNSW: 64 on its lowest layer, 256 bytes a vector
BUILDING_CANDIDATES = 80  # of HNSW (efConstruction)
SEARCH_CANDIDATES = 448  # of HNSW (efSearch): recall@10 of 0.989 among a million vectors, where 128 have 0.965
LISTS_SEARCHED = 64  # of IVF (nprobe)
SAMPLES_PER_LIST = 40  # of IVF: FAISS warns below 39
COMPARED_EXACTLY = 20_000  # where a filter allows fewer, an approximate search would look at as many, and miss some


class StoredFiles(Sequence[ImageFile]):
    """The files of a cache in the order of their rows, read one by one from a table that is mapped into memory.

    Each is checked as it is read, for a cache may come from someone else, and name files outside the folder.

    Args:
        place: The folder of the cache.
        source: See [`StoredIndex`].

    Raises:
        OSError: There is no table.
        ValueError: It is damaged.
        IncompatibleIndexError: An entry that is asked for is damaged, or names a file outside the folder.
    """

    def __init__(self, place: Path, source: Mapping[str, Any]):
        self.place, self.source = place, source
        # Uint8, the JSON of each file, one after the other, and int64 (files,), where each ends.
        self.entries, self.ends = (np.load(place / name, mmap_mode="r", allow_pickle=False) for name in (ENTRIES, ENDS))
        if (self.entries.dtype, self.ends.dtype, self.ends.ndim) != (np.uint8, np.int64, 1):
            raise ValueError(f"{ENTRIES} and {ENDS} are not as this release writes them")

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        row = range(len(self))[row]  # an IndexError, or a row counted from the start
        start = self.ends[row - 1] if row else 0
        try:
            file = ImageFile(*json.loads(self.entries[start : self.ends[row]].tobytes()))
            check_files([file], self.source)
        except DAMAGE as error:
            raise IncompatibleIndexError(
                f"row {row} of {printable(self.place / ENTRIES)} can't be used ({error}): delete the caches "
                "(`fgclip2 index --cache none`, index.delete_caches)"
            ) from error
        return file


@dataclass(frozen=True)
class VectorCache:
    """A cache that is open; later generations of the index don't change it.

    Args:
        kind: One of `KINDS`.
        files: The files in the order of their rows.
        vectors: The FAISS index.
    """

    kind: str
    files: Sequence[ImageFile]
    vectors: Any

    @classmethod
    def open(
        cls, index_folder: Path, kind: str, key: str, source: Mapping[str, Any] = FOLDER_OF_IMAGES
    ) -> VectorCache | None:
        """Open the cache of some rows; `None` where there is none, or one that is damaged, or FAISS is missing.

        Sizes, types and numbers are checked, not every byte: see [`check_caches`]. Files are checked as they are read.

        Args:
            index_folder: Of the index.
            kind: One of `KINDS`.
            key: [`StoredIndex.rows_digest`] of the rows.
            source: See [`StoredIndex`].
        """
        place = index_folder / FOLDER / f"{kind}-{key}"
        try:
            if leads_outside(place, index_folder):
                return None
            said = _read_description(place)
            faiss = require("faiss", "search")  # only now: most indexes have no cache, and it takes a while to import
            vectors = faiss.read_index(str(place / VECTORS), faiss.IO_FLAG_MMAP_IFC)
            files = StoredFiles(place, source)
        except (ImportError, OSError, MemoryError, *DAMAGE):
            return None
        fits = (
            type(vectors).__name__ == _CLASSES[kind]
            and vectors.metric_type == faiss.METRIC_INNER_PRODUCT
            and (vectors.ntotal, vectors.d) == (said["rows"], said["width"])
            and len(files) == said["rows"]
        )
        return cls(kind, files, vectors) if fits else None

    def nearest(
        self, queries: np.ndarray, top_k: int, allowed: np.ndarray | None = None, exactly: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Find the largest inner products, with the vectors in float16; see [`nearest`][fgclip2.search.nearest].

        Args:
            queries: Float32 (Q, D).
            top_k: How many to return; all where there are fewer.
            allowed: Bool (N,): which vectors may be found; `None`: all.
            exactly: Compare all vectors, also by an approximate cache.

        Returns:
            Scores, float32 (Q, K), falling, and row numbers, int64 (Q, K).
        """
        faiss = require("faiss", "search")
        count = self.vectors.ntotal if allowed is None else int(np.count_nonzero(allowed))
        top_k = min(top_k, count)
        if not top_k or not len(queries):
            return np.zeros((len(queries), top_k), np.float32), np.zeros((len(queries), top_k), np.int64)
        bits = None if allowed is None else np.packbits(allowed, bitorder="little")  # which FAISS does not copy
        options = {} if bits is None else {"sel": faiss.IDSelectorBitmap(bits)}
        share = count / self.vectors.ntotal
        if exactly or self.kind == "exact" or (bits is not None and count <= COMPARED_EXACTLY):
            found = self._exact(faiss, queries, top_k, options)
        elif self.kind == "hnsw":
            # What is not allowed takes places among the candidates, too.
            candidates = int(max(SEARCH_CANDIDATES, 2 * top_k) / share)
            found = self.vectors.search(
                queries, top_k, params=faiss.SearchParametersHNSW(efSearch=candidates, **options)
            )
        else:
            lists = min(self.vectors.nlist, int(LISTS_SEARCHED / share))
            found = self.vectors.search(queries, top_k, params=faiss.SearchParametersIVF(nprobe=lists, **options))
        scores, rows = found  # (Q, K) each; a row that was not found is -1
        missing = (rows < 0).any(1)
        if missing.any():
            scores[missing], rows[missing] = self._exact(faiss, queries[missing], top_k, options)
        return best_first(scores, rows)

    def _exact(
        self, faiss: Any, queries: np.ndarray, top_k: int, options: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.kind == "ivf":
            parameters = faiss.SearchParametersIVF(nprobe=self.vectors.nlist, **options)
            return self.vectors.search(queries, top_k, params=parameters)
        vectors = faiss.downcast_index(self.vectors.storage) if self.kind == "hnsw" else self.vectors
        return vectors.search(queries, top_k, params=faiss.SearchParameters(**options))


def build_cache(
    index_folder: Path,
    kind: str,
    key: str,
    files: Sequence[ImageFile],
    vectors: np.ndarray,
    show_progress_bar: bool | None = False,
) -> None:
    """Make the cache of some rows, unless it is there, and delete those of its kind of other rows.

    Args:
        index_folder: Of the index.
        kind: One of `KINDS`.
        key: [`StoredIndex.rows_digest`] of the rows.
        files: The file of each row.
        vectors: Float32 (files, D), L2-normalised; one at least.
        show_progress_bar: As in [`Embedder`].

    Raises:
        ImportError: FAISS is not installed.
        LockedIndexError: Another run makes a cache of this index.
        ValueError: A link leads out of the folder of the index.
    """
    faiss = require("faiss", "search")
    folder = index_folder / FOLDER
    with _locked(index_folder):
        place = folder / f"{kind}-{key}"
        _delete(folder, lambda name: name != place.name and name.lstrip(".").startswith(f"{kind}-"))
        if VectorCache.open(index_folder, kind, key):
            return
        shutil.rmtree(place, ignore_errors=True)  # it is damaged
        with new_folder(place) as unfinished:
            index = _empty_index(faiss, kind, *vectors.shape)
            index.train(_sample(vectors, SAMPLES_PER_LIST * getattr(index, "nlist", 1)))
            rows, step = range(len(vectors)), lambda _: ROWS_PER_STEP
            for its in batches_of_a_kind(rows, lambda _: 0, step, len(rows), show_progress_bar, "vector"):
                index.add(vectors[its[0] : its[-1] + 1])
            faiss.write_index(index, str(unfinished / VECTORS))
            entries = [json.dumps(file).encode() for file in files]
            np.save(unfinished / ENTRIES, np.frombuffer(b"".join(entries), np.uint8))
            np.save(unfinished / ENDS, np.cumsum([len(entry) for entry in entries], dtype=np.int64))
            names = (VECTORS, ENTRIES, ENDS)
            description = {
                "format": FORMAT,
                "rows": len(files),
                "width": vectors.shape[1],
                "faiss": faiss.__version__,
                "files": {
                    name: [(unfinished / name).stat().st_size, sha256_of_file(unfinished / name)] for name in names
                },
            }
            (unfinished / DESCRIPTION).write_text(json.dumps(description, indent=1), encoding="utf-8")


def delete_caches(index_folder: Path) -> None:
    """Delete all caches of an index.

    Raises:
        LockedIndexError: Another run makes one.
        ValueError: A link leads out of the folder of the index.
    """
    if (index_folder / FOLDER).is_dir():
        with _locked(index_folder):
            _delete(index_folder / FOLDER, _OWN_FOLDERS.fullmatch)


def cached_kinds(index_folder: Path) -> list[str]:
    """Return the kinds of the caches that are there, of whatever rows; none without FAISS."""
    kinds = [kind for kind in KINDS if any((index_folder / FOLDER).glob(f"{kind}-*"))]
    try:
        if kinds:
            require("faiss", "search")
    except ImportError:
        return []
    return kinds


def check_caches(index_folder: Path, source: Mapping[str, Any] = FOLDER_OF_IMAGES) -> dict[str, str]:
    """Read all caches of an index; return the folders of those that are damaged, with reasons.

    Args:
        index_folder: Of the index.
        source: See [`StoredIndex`].
    """
    damaged = {}
    for place in sorted((index_folder / FOLDER).glob("*-*")):
        if _OWN_FOLDERS.fullmatch(place.name) and not leads_outside(place, index_folder):
            try:
                said = _read_description(place)
                changed = [
                    name for name, (_, digest) in said["files"].items() if sha256_of_file(place / name) != digest
                ]
                if not changed:
                    list(StoredFiles(place, source))  # hashes that someone else has made say nothing of their paths
            except (OSError, *DAMAGE) as error:
                damaged[f"{FOLDER}/{place.name}"] = str(error)
            else:
                if changed:
                    damaged[f"{FOLDER}/{place.name}"] = f"the content of {', '.join(changed)} has changed"
    return damaged


@contextmanager
def _locked(index_folder: Path) -> Iterator[None]:
    """Keep other runs from making or deleting caches; those that write the index are not kept from it."""
    folder = index_folder / FOLDER
    if leads_outside(folder, index_folder):
        raise ValueError(f"{printable(folder)} is a link that leads outside: delete it, caches are made anew")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=SECONDS_TO_WAIT_FOR_LOCK):
            yield
    except Timeout as error:
        raise LockedIndexError(
            f"another run makes a cache in {printable(folder)}: wait until that has ended; until then a search "
            "compares all vectors"
        ) from error


def _delete(folder: Path, condition: Callable[[str], Any]) -> None:
    """Delete the caches in `folder` whose names meet a condition, and what runs that were killed have left of them."""
    for path in folder.iterdir():
        if _OWN_FOLDERS.fullmatch(path.name) and condition(path.name):
            shutil.rmtree(path, ignore_errors=True)  # on Windows a reader may have it open; the next run tries again


def _empty_index(faiss: Any, kind: str, count: int, width: int) -> Any:
    """Return the FAISS index that vectors of a width go into; `count` of them are to come."""
    numbers = faiss.ScalarQuantizer.QT_fp16
    if kind == "exact":
        return faiss.IndexScalarQuantizer(width, numbers, faiss.METRIC_INNER_PRODUCT)
    if kind == "hnsw":
        index = faiss.IndexHNSWSQ(width, numbers, LINKS_PER_VECTOR, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = BUILDING_CANDIDATES
        return index
    lists = max(1, min(int(4 * count**0.5), count // SAMPLES_PER_LIST))
    centres = faiss.IndexFlatIP(width)
    index = faiss.IndexIVFScalarQuantizer(centres, width, lists, numbers, faiss.METRIC_INNER_PRODUCT, False)
    return index


def _sample(vectors: np.ndarray, count: int) -> np.ndarray:
    """Return `count` of the vectors, the same ones each time, or all where there are fewer."""
    if count >= len(vectors):
        return np.asarray(vectors)
    return vectors[np.sort(np.random.default_rng(0).choice(len(vectors), count, replace=False))]


def _read_description(place: Path) -> dict[str, Any]:
    """Return what a cache says of itself, after a check of the sizes of its files."""
    said = json.loads((place / DESCRIPTION).read_text(encoding="utf-8"))
    if said["format"] != FORMAT or said["files"].keys() != {VECTORS, ENTRIES, ENDS}:
        raise ValueError(f"{DESCRIPTION} is not as this release writes it")
    for name, (size, _) in said["files"].items():
        if (place / name).stat().st_size != size:
            raise ValueError(f"the size of {name} has changed")
    return said
