"""An index on disk: blocks of vectors that never change, and a manifest that says which of them count.

A block is a safetensors file with vectors and the files that they are of, named by the hash of its content. The
manifest names the blocks of one generation of the index, and is replaced as a whole by the next: whoever has read it
has a consistent index, whatever is written meanwhile. So readers never wait. Blocks that a new generation no longer
names stay for a while, for readers that have opened the old one. Writers take turns by a lock, which the system takes
back from a process that dies. An index may have dense maps too, in blocks of their own (`dense_maps.py`), which readers
keep open.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import re
import socket
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..checks import one_of
from ..errors import IncompatibleIndexError, LockedIndexError
from ..files import patiently, printable, replacing
from .dense_maps import BYTES_PER_BLOCK, KINDS, MapBlock, PackedMap, StoredMap
from .extras import Extra, Regions, count_regions, pack_extras, unpack_extras
from .metadata import Metadata
from .scan import OUTSIDE, ImageFile, UnusableFile

FORMAT = 2  # of folders; earlier releases take what they don't know of it for nothing, and keep the vectors
FORMAT_OF_OTHERS = 3  # of other sources, which earlier releases must not take for folders
READABLE_FORMATS = (1, FORMAT, FORMAT_OF_OTHERS)
MANIFEST = "manifest.json"
OWN_KEYS = ("vectors", "blocks", "model")
KINDS_OF_REGIONS = ("grid", "given")
KINDS_WITH_PATHS = ("folder", "zip", "tar")  # of sources, whose entries are named by paths
LOCK = "lock"
LOCK_OWNER = "lock_owner.json"
ROWS_PER_BLOCK = 4096  # 12 MB of vectors of 768 values: what a save rewrites at most of what is already there
MAX_EMBEDDING_SIZE = 1 << 20
SECONDS_TO_WAIT_FOR_LOCK = 5.0
SECONDS_FOR_READERS = 60.0  # that a block stays after the last generation that names it
_BLOCK = re.compile(r"block-[0-9a-f]{32}\.safetensors")
_MAP_BLOCK = re.compile(r"dense-[0-9a-f]{32}\.safetensors")
# What a run that was killed may leave behind. Format 1 had one file of vectors; unfinished manifests were .tmp once.
_OWN_FILES = re.compile(
    rf"{_BLOCK.pattern}|{_MAP_BLOCK.pattern}|vectors-[0-9a-f]{{16}}\.safetensors|manifest\.json\.[0-9a-f]{{8}}\.tmp"
    rf"|\.({_BLOCK.pattern}|{_MAP_BLOCK.pattern}|manifest\.json|lock_owner\.json)\.[0-9a-f]{{8}}\.partial"
)
# What Python raises where the content of a file is not what it should be; RuntimeError: deep nesting, links in circles.
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError, SafetensorError)


@dataclass(frozen=True)
class Block:
    """The files of a block in the order of its vectors.

    Args:
        name: The name of its file.
        files: Of its rows.
        dropped: Its rows that no longer count.
        extras: What its files have beside their vectors.
    """

    name: str
    files: list[ImageFile]
    dropped: frozenset[int] = frozenset()
    extras: dict[ImageFile, Extra] = field(default_factory=dict)

    def live_files(self) -> list[ImageFile]:
        """Return the files that still count."""
        return [file for row, file in enumerate(self.files) if row not in self.dropped]

    @property
    def is_full(self) -> bool:
        """Whether it has as many vectors, those of regions included, as a block is meant to have."""
        return len(self.files) + sum(map(count_regions, self.extras.values())) >= ROWS_PER_BLOCK


@dataclass
class StoredIndex:
    """One generation of an index.

    Args:
        model: `name`, `revision`, `fingerprint` and `embedding_size` of the model that made the vectors.
        settings: `max_num_patches` that the images were encoded with, and what [`Embedder.describe_vectors`] says.
        versions: Of the packages that made it.
        max_pixels: Images of more pixels were not decoded.
        rows: The files in the index with their vectors, float32 (D,).
        extras: Metadata and regions of those that have any.
        unreadable: Files that can't be decoded, with reasons.
        refused: What can't be looked at, and links that are not followed.
        left_out: How many files have no suffix of an image, by suffix.
        blocks: The blocks that the rows lie in.
        retired: Blocks of former generations, with the time since when they are former ones, in seconds.
        dense: Which dense maps it has, "fp16" or "int8"; `None`: none.
        maps: The files with dense maps, and where these lie.
        map_blocks: The blocks that the maps lie in.
        regions: Which regions it has, "grid" or "given"; `None`: none.
        source: What it is of, see [`Source.describe`].
        new_maps: Maps that are not written yet, of `new_bytes` bytes.
        digest: Of the manifest; empty before format 2.
        lost: How many rows have been in blocks that are damaged now.
        damaged: Name of a block of vectors or dense maps that can't be used -> reason.
        format: Of the manifest.
    """

    model: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    max_pixels: int = 0
    rows: dict[ImageFile, np.ndarray] = field(default_factory=dict)
    extras: dict[ImageFile, Extra] = field(default_factory=dict)
    unreadable: dict[ImageFile, str] = field(default_factory=dict)
    refused: list[UnusableFile] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    retired: dict[str, float] = field(default_factory=dict)
    dense: str | None = None
    maps: dict[ImageFile, StoredMap] = field(default_factory=dict)
    map_blocks: list[MapBlock] = field(default_factory=list)
    regions: str | None = None
    source: dict[str, Any] = field(default_factory=lambda: {"kind": "folder"})
    new_maps: dict[ImageFile, PackedMap] = field(default_factory=dict)
    new_bytes: int = 0
    digest: str = ""
    lost: int = 0
    damaged: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def unusable(self) -> list[UnusableFile]:
        """The files that are not in the index, sorted by path."""
        return sorted([*self.refused, *(UnusableFile(file.path, why) for file, why in self.unreadable.items())])

    @property
    def rows_digest(self) -> str:
        """The hash of what tells which rows there are, in which order: equal rows have equal caches."""
        return rows_digest((block.name, sorted(block.dropped)) for block in self.blocks)

    def set_extra(
        self, file: ImageFile, metadata: Metadata | None, regions: Regions | None, former: Extra | None = None
    ) -> None:
        """Say what a file has beside its vector; where that is what it had, `former` stays, and so does its block."""
        extra = Extra(metadata or None, regions)
        if former is not None and former.metadata == extra.metadata and former.regions is extra.regions:
            extra = former
        if extra.metadata is not None or extra.regions is not None:
            self.extras[file] = extra

    def count_complete(self) -> int:
        """Return the number of files of which all is there that the index is to have."""
        if self.dense:
            return len(self.maps)
        if self.regions:
            return sum(extra.regions is not None for extra in self.extras.values())
        return len(self.rows)

    def arrays(self) -> tuple[list[ImageFile], np.ndarray]:
        """Return the files, sorted by path, and their vectors (files, D)."""
        files = sorted(self.rows)
        vectors = np.empty((len(files), self.model["embedding_size"]), np.float32)
        for row, file in enumerate(files):
            vectors[row] = self.rows[file]
        return files, vectors


# Writing ----------------------------------------------------------------------------------------------------------


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs from writing the index in `folder`, which is made if it is missing.

    Raises:
        LockedIndexError: Another run writes it, and goes on doing so; the message names it.
        OSError: The folder can't be written; the message says what to do.
    """
    lock = FileLock(folder / LOCK, timeout=SECONDS_TO_WAIT_FOR_LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        lock.acquire()
    except Timeout as error:
        raise LockedIndexError(
            f"the index {printable(folder)} is locked by {_describe_lock_owner(folder)}: wait until that has ended, or "
            "search the index as it is (`--no-update`, ImageIndex.load)"
        ) from error
    except OSError as error:
        raise type(error)(
            f"the index can't be written to {printable(folder)} ({error.strerror or error}): keep it elsewhere "
            "(`--index FOLDER`, index_folder=), or search one that exists as it is (`--no-update`, ImageIndex.load)"
        ) from error
    try:
        owner = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        _write_json(folder / LOCK_OWNER, owner)
        yield
    finally:
        lock.release()


def _describe_lock_owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / LOCK_OWNER).read_text(encoding="utf-8"))
        return printable(f"process {owner['process']} on {owner['host']}, running since {owner['since']}")
    except (OSError, *DAMAGE):  # between its start and its saying so
        return "another run"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in UTF-8; file names that are not Unicode become escapes, which JSON has for halves of surrogates."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace"))


def write_index(folder: Path, index: StoredIndex) -> None:
    """Write the next generation of an index. Whatever happens in between, the old or the new one can be read.

    Only new rows are written, with those of the last block, which is not full yet, and of blocks that have more dropped
    rows than others. Where none of these has changed, nothing but the manifest is written. Call it under [`locked`].

    Args:
        folder: Of the index.
        index: Its `blocks` are those of the generation before; they, `retired` and `digest` are brought up to date.

    Raises:
        IncompatibleIndexError: The folder has a manifest of something else.
    """
    refuse_foreign_manifest(folder)
    blocks: list[Block] = []
    others: list[Block] = []
    moving = dict(index.rows)
    for block in index.blocks:
        dropped = frozenset(
            row
            for row, file in enumerate(block.files)
            if file not in index.rows or index.extras.get(file) is not block.extras.get(file)
        )
        counted = replace(block, dropped=dropped)
        if block.is_full and 2 * len(dropped) <= len(block.files):
            blocks.append(counted)
            for file in counted.live_files():
                moving.pop(file, None)
        else:
            others.append(counted)
    if len(others) == 1 and moving.keys() == set(others[0].live_files()) == set(others[0].files):
        blocks.append(others[0])
    else:
        remaining = list(moving)
        start = vectors = 0
        for end, file in enumerate(remaining, 1):
            vectors += 1 + count_regions(index.extras.get(file))
            if vectors >= ROWS_PER_BLOCK or end == len(remaining):
                blocks.append(_write_block(folder, remaining[start:end], index))
                start, vectors = end, 0
    _gather_maps(folder, index)

    now, names = time.time(), {block.name for block in blocks} | {block.name for block in index.map_blocks}
    former = {block.name: now for block in index.blocks}
    index.retired = {
        name: since
        for name, since in {**index.retired, **former}.items()
        if name not in names and now - since < SECONDS_FOR_READERS
    }
    index.blocks = blocks
    manifest = _manifest_of(index)
    index.digest = manifest["digest"]
    _write_json(folder / MANIFEST, manifest)  # only now does the new generation count
    for path in folder.iterdir():
        if _OWN_FILES.fullmatch(path.name) and path.name not in names and path.name not in index.retired:
            with suppress(PermissionError):  # on Windows, a reader has it open; the next run tries again
                path.unlink(missing_ok=True)


def add_map(folder: Path, index: StoredIndex, file: ImageFile, packed: PackedMap) -> None:
    """Take the dense map of a file, and write those that wait when they fill a block. Call it under [`locked`].

    The block counts when the next generation of the index names it.
    """
    index.new_maps[file] = packed
    index.new_bytes += packed.nbytes
    if index.new_bytes >= BYTES_PER_BLOCK:
        _write_maps(folder, index)


def _write_maps(folder: Path, index: StoredIndex) -> None:
    if index.new_maps:
        block = MapBlock.write(folder, list(index.new_maps), list(index.new_maps.values()))
        index.map_blocks.append(block)
        index.maps |= _maps_of(block)
        index.new_maps, index.new_bytes = {}, 0


def _maps_of(block: MapBlock) -> dict[ImageFile, StoredMap]:
    return {file: StoredMap(block, row) for row, file in enumerate(block.files)}


def _gather_maps(folder: Path, index: StoredIndex) -> None:
    """Write the maps that wait, and with them those of blocks that are less than half full or have mostly dropped maps.

    At most one block is less than half full, the last one; where it would only be written again, it stays. A file whose
    time has changed, but not its content, has its map written anew under its new time.
    """
    kept: list[MapBlock] = []
    others: list[MapBlock] = []
    for block in index.map_blocks:
        live = sum(index.maps.get(file) == (block, row) for row, file in enumerate(block.files))
        is_full = 2 * block.nbytes >= BYTES_PER_BLOCK and 2 * live >= len(block.files)
        (kept if is_full else others).append(block)
    names = {block.name for block in kept}
    moving = {
        file: place
        for file, place in index.maps.items()
        if place.block.name not in names or place.block.files[place.row] != file
    }
    if not index.new_maps and len(others) == 1 and moving == _maps_of(others[0]):
        return
    index.map_blocks = kept
    index.retired |= {block.name: time.time() for block in others}
    for file, (block, row) in moving.items():
        del index.maps[file]
        with suppress(*DAMAGE):  # the next update makes it anew
            add_map(folder, index, file, block.read(row))
    _write_maps(folder, index)


def _write_block(folder: Path, files: list[ImageFile], index: StoredIndex) -> Block:
    table = json.dumps(list(zip(*files, strict=True)), ensure_ascii=False).encode("utf-8", "backslashreplace")
    vectors = np.stack([index.rows[file] for file in files])  # (files, D)
    tensors = {"vectors": vectors, "files": np.frombuffer(table, np.uint8), **pack_extras(files, index.extras)}
    content = save(tensors)
    name = _block_name(content)
    with replacing(folder / name) as unfinished:
        unfinished.write_bytes(content)
    return Block(name, files, extras={file: index.extras[file] for file in files if file in index.extras})


def _block_name(content: bytes) -> str:
    return f"block-{hashlib.sha256(content).hexdigest()[:32]}.safetensors"


def _manifest_of(index: StoredIndex) -> dict[str, Any]:
    is_of_folder = index.source == {"kind": "folder"}
    manifest = {
        "format": FORMAT if is_of_folder else FORMAT_OF_OTHERS,
        "model": index.model,
        "settings": index.settings,
        "versions": index.versions,
        "max_pixels": index.max_pixels,
        "blocks": [
            {"name": block.name, "rows": len(block.files), "dropped": sorted(block.dropped)} for block in index.blocks
        ],
        "retired": index.retired,
        "unreadable": [[*file, reason] for file, reason in sorted(index.unreadable.items())],
        "refused": index.refused,
        "left_out": index.left_out,
    }
    if not is_of_folder:
        manifest["source"] = index.source
    if index.regions:
        manifest["regions"] = index.regions
    if index.extras:
        manifest["extras"] = True
    if index.dense:
        blocks = []
        for block in index.map_blocks:
            dropped = [row for row, file in enumerate(block.files) if index.maps.get(file) != (block, row)]
            blocks.append({"name": block.name, "rows": len(block.files), "dropped": dropped})
        manifest["dense"] = {"kind": index.dense, "blocks": blocks}
    return {**manifest, "digest": digest_of(manifest)}


def digest_of(manifest: dict[str, Any]) -> str:
    """Return the hash that a manifest must have as its `digest`, of everything else in it."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def rows_digest(blocks: Iterable[tuple[str, list[int]]]) -> str:
    """Return the hash of the rows of some blocks, by the names of the blocks and their dropped rows."""
    return hashlib.sha256(json.dumps(list(blocks)).encode()).hexdigest()[:32]


# Reading ----------------------------------------------------------------------------------------------------------


class OpenedIndex(NamedTuple):
    """One generation of an index whose blocks are mapped into memory, but not read.

    They stay readable whatever later generations do.

    Args:
        generation: What the manifest says, without the rows.
        manifest: It itself.
        blocks: Name -> content.
    """

    generation: StoredIndex
    manifest: dict[str, Any]
    blocks: dict[str, mmap.mmap]

    @property
    def rows_digest(self) -> str:
        """As [`StoredIndex.rows_digest`], if no block turns out to be damaged."""
        return _rows_digest_of(self.manifest)


def newest_rows_digest(folder: Path) -> str:
    """Return the [`OpenedIndex.rows_digest`] of the newest generation; empty where there is none."""
    manifest = _read_manifest(folder, follow_links=True)  # of which nothing is used but names
    return _rows_digest_of(manifest) if manifest is not None and manifest["format"] != 1 else ""


def _rows_digest_of(manifest: dict[str, Any]) -> str:
    return rows_digest((block["name"], sorted(block["dropped"])) for block in manifest["blocks"])


def open_index(folder: Path, follow_links: bool = False) -> OpenedIndex | None:
    """Open the newest generation of an index, whose blocks are not checked before [`read_index`] reads them.

    Returns:
        `None` where there is none, and for indexes that are read at once: of format 1, with dense maps, metadata or
        regions, and those of which a block can't be opened.

    Raises:
        IncompatibleIndexError: As [`read_index`].
    """
    while (manifest := _read_manifest(folder, follow_links)) is not None and manifest["format"] != 1:
        index = _index_of_manifest(folder, manifest)
        if index.dense or manifest.get("extras"):
            return None
        try:
            return OpenedIndex(
                index,
                manifest,
                {block["name"]: _map(_inside(folder, block["name"], follow_links)) for block in manifest["blocks"]},
            )
        except (OSError, *DAMAGE):
            if _read_manifest(folder, follow_links) == manifest:
                return None
    return None


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def read_index(folder: Path, follow_links: bool = False, opened: OpenedIndex | None = None) -> StoredIndex | None:
    """Read the newest generation of an index; `None` where there is none. Warn of damaged blocks, and leave them out.

    Args:
        folder: Of the index.
        follow_links: Read files of the index through links that lead out of `folder`.
        opened: Read this generation instead.

    Raises:
        IncompatibleIndexError: The manifest is damaged, or of another format, or not of an index at all.
    """
    while (manifest := opened.manifest if opened else _read_manifest(folder, follow_links)) is not None:
        if manifest["format"] == 1:
            try:
                return _read_format_1(folder, manifest, follow_links)
            except (OSError, *DAMAGE) as error:
                raise _damaged(folder, error) from error
        index = _index_of_manifest(folder, manifest)
        # The last block is the one that the next generation replaces.
        for entry in reversed(manifest["blocks"]):
            try:
                name = entry["name"]
                content = opened.blocks[name][:] if opened else _read(folder, name, follow_links)
                block, vectors = _read_block(content, entry, index)
            except (OSError, *DAMAGE) as error:
                index.damaged[entry["name"]] = str(error)
                index.lost += entry["rows"] - len(entry["dropped"])
            else:
                index.blocks.insert(0, block)
                rows = zip(block.files, vectors, strict=True)
                index.rows.update(pair for row, pair in enumerate(rows) if row not in block.dropped)
                if block.extras:
                    live = block.live_files()
                    index.extras.update((file, block.extras[file]) for file in live if file in block.extras)
        damaged_vectors, damaged_maps = dict(index.damaged), _open_maps(folder, index, manifest, follow_links)
        index.damaged |= damaged_maps
        if index.damaged and not opened and _read_manifest(folder, follow_links) != manifest:
            continue  # the blocks have gone because a later generation has come
        if damaged_maps:
            warnings.warn(
                f"the index {printable(folder)} has damaged blocks of dense maps, {_listed(damaged_maps)}: their "
                "images are read instead, and their maps made anew by the next update (`fgclip2 index`, "
                "ImageIndex.build)",
                stacklevel=3,
            )
        if damaged_vectors:
            warnings.warn(
                f"the index {printable(folder)} has damaged blocks, {_listed(damaged_vectors)}: their "
                f"{index.lost} images are left out, and embedded anew by the next update (`fgclip2 index`, "
                "ImageIndex.build)",
                stacklevel=3,
            )
        return index
    return None


def _listed(damaged: dict[str, str]) -> str:
    return ", ".join(f"{name} ({reason})" for name, reason in damaged.items())


def _open_maps(folder: Path, index: StoredIndex, manifest: dict[str, Any], follow_links: bool) -> dict[str, str]:
    """Open the blocks of dense maps that a manifest names; return the damaged ones with reasons."""
    damaged = {}
    for entry in manifest["dense"]["blocks"] if index.dense else ():
        try:
            block = MapBlock.open(_inside(folder, entry["name"], follow_links))
            check_files(block.files, index.source)
            _check(len(block.files) == entry["rows"], "its number of files")
        except (OSError, *DAMAGE) as error:
            damaged[entry["name"]] = str(error)
            continue
        index.map_blocks.append(block)
        dropped = set(entry["dropped"])
        index.maps |= {file: place for file, place in _maps_of(block).items() if place.row not in dropped}
    return damaged


def is_newest(folder: Path, index: StoredIndex | None) -> bool:
    """Return whether `folder` still has the generation that was read, or still none."""
    manifest = _read_manifest(folder, follow_links=True)  # of which nothing is used but the digest
    return (manifest and manifest.get("digest", "")) == (index and index.digest)


class Kinds(NamedTuple):
    """What an index is made of: its dense maps, its regions and its source; see [`StoredIndex`]."""

    dense: str | None = None
    regions: str | None = None
    source: dict[str, Any] | None = None


def kinds_in(folder: Path, follow_links: bool = False) -> Kinds:
    """Return what an index has by its manifest, which need not fit; `None` where it has none or nobody can tell."""
    try:
        manifest = _decode(_read(folder, MANIFEST, follow_links))
        _check_ours(folder, manifest)
        dense, regions, source = (manifest.get(key) for key in ("dense", "regions", "source"))
        dense = dense["kind"] if dense else None
    except (OSError, *DAMAGE):
        return Kinds()
    return Kinds(
        dense if dense in KINDS else None,
        regions if regions in KINDS_OF_REGIONS else None,
        source if _is_source(source) else None,
    )


def _is_source(source: Any) -> bool:
    """Return whether what a manifest says of the source is some words, as [`Source.describe`] gives them."""
    return (
        isinstance(source, dict)
        and isinstance(source.get("kind"), str)
        and all(isinstance(value, (str, type(None))) for value in source.values())
    )


def refuse_foreign_manifest(folder: Path) -> None:
    """Raise [`IncompatibleIndexError`] if `folder` has a manifest that is not of an index; a damaged one may be."""
    try:
        manifest = _decode(patiently((folder / MANIFEST).read_bytes))
    except (FileNotFoundError, NotADirectoryError, *DAMAGE):
        return
    _check_ours(folder, manifest)


def _read_manifest(folder: Path, follow_links: bool) -> dict[str, Any] | None:
    try:
        manifest = _decode(_read(folder, MANIFEST, follow_links))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DAMAGE as error:
        raise _damaged(folder, error) from error
    _check_ours(folder, manifest)
    if manifest["format"] not in READABLE_FORMATS:
        raise IncompatibleIndexError(
            f"{printable(folder / MANIFEST)} has format {manifest['format']}, this release reads "
            f"{one_of(READABLE_FORMATS)}: update fgclip2, or rebuild it"
        )
    if manifest["format"] != 1 and manifest.get("digest") != digest_of(manifest):
        raise _damaged(folder, ValueError("its content is not that of its digest"))
    return manifest


def _decode(content: bytes) -> Any:
    return json.loads(content.decode("utf-8", "surrogateescape"))  # format 1 has file names as they are


def _check_ours(folder: Path, manifest: Any) -> None:
    if not (isinstance(manifest, dict) and "format" in manifest and not manifest.keys().isdisjoint(OWN_KEYS)):
        raise IncompatibleIndexError(
            f"{printable(folder / MANIFEST)} is not of an index of fgclip2: choose another folder for the index"
        )


def _damaged(folder: Path, error: Exception) -> IncompatibleIndexError:
    reason = f"{type(error).__name__}: {error}" if isinstance(error, (LookupError, TypeError)) else str(error)
    return IncompatibleIndexError(
        f"{printable(folder / MANIFEST)} is damaged ({reason}): rebuild the index (`--rebuild`, rebuild=True)"
    )


def _read(folder: Path, name: str, follow_links: bool) -> bytes:
    return patiently(_inside(folder, name, follow_links).read_bytes)


def _inside(folder: Path, name: str, follow_links: bool) -> Path:
    """Return the path of a file of the index, which may come from someone else."""
    path = folder / name
    if not follow_links and path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{name} is a link that leads outside")
    return path


def _index_of_manifest(folder: Path, manifest: dict[str, Any]) -> StoredIndex:
    try:
        return _index_of(manifest)
    except DAMAGE as error:
        raise _damaged(folder, error) from error


def _index_of(manifest: dict[str, Any]) -> StoredIndex:
    """Return what a manifest says, without the rows, after a check of all of it."""
    model = manifest["model"]
    _check(
        all(isinstance(model[key], str) for key in ("name", "fingerprint"))
        and isinstance(model["revision"], (str, type(None)))
        and isinstance(model["embedding_size"], int)
        and 0 < model["embedding_size"] <= MAX_EMBEDDING_SIZE,
        "its model",
    )
    for block in manifest["blocks"]:
        rows = range(block["rows"])
        _check(_BLOCK.fullmatch(block["name"]) and all(row in rows for row in block["dropped"]), "a block")
    dense = manifest.get("dense")
    if dense is not None:
        _check(dense["kind"] in KINDS, "its kind of dense maps")
        for block in dense["blocks"]:
            rows = range(block["rows"])
            _check(_MAP_BLOCK.fullmatch(block["name"]) and all(row in rows for row in block["dropped"]), "a block")
    source = manifest.get("source", {"kind": "folder"})
    _check(_is_source(source), "its source")
    _check((manifest["format"] == FORMAT) == (source == {"kind": "folder"}), "its format")
    regions = manifest.get("regions")
    _check(regions in (None, *KINDS_OF_REGIONS), "its kind of regions")
    unreadable = {ImageFile(*file): reason for *file, reason in manifest["unreadable"]}
    refused = [UnusableFile(*file) for file in manifest["refused"]]
    check_files(list(unreadable), source)
    _check(all(isinstance(text, str) for text in chain(unreadable.values(), *refused)), "its unusable files")
    left_out = {str(suffix): int(count) for suffix, count in manifest["left_out"].items()}
    retired = {str(name): float(since) for name, since in manifest["retired"].items()}
    return StoredIndex(
        model,
        dict(manifest["settings"]),
        dict(manifest["versions"]),
        int(manifest["max_pixels"]),
        unreadable=unreadable,
        refused=refused,
        left_out=left_out,
        retired=retired,
        dense=dense["kind"] if dense else None,
        regions=regions,
        source=source,
        digest=manifest["digest"],
    )


def _read_block(content: bytes, entry: dict[str, Any], index: StoredIndex) -> tuple[Block, np.ndarray]:
    if _block_name(content) != entry["name"]:
        raise ValueError("its content is not that of its name")
    tensors = load(content)
    files = list(map(ImageFile, *json.loads(tensors["files"].tobytes())))
    check_files(files, index.source)
    embedding_size = index.model["embedding_size"]
    vectors = tensors["vectors"]
    _check(vectors.dtype == np.float32 and vectors.shape == (entry["rows"], embedding_size), "its shape")
    _check(len(files) == entry["rows"], "its number of files")
    extras = unpack_extras(files, tensors, embedding_size)
    return Block(entry["name"], files, frozenset(entry["dropped"]), extras), vectors


def _read_format_1(folder: Path, manifest: dict[str, Any], follow_links: bool) -> StoredIndex:
    """Read the format of releases before 0.3: all vectors in one file, and the hash of the weights alone."""
    files = [ImageFile(*file) for file in manifest["files"]]
    check_files(files, {"kind": "folder"})
    name = str(manifest["vectors"])
    _check_inside(name)
    vectors = load(_read(folder, name, follow_links))["vectors"]
    model = manifest["model"]
    if vectors.shape != (len(files), model["embedding_size"]):
        raise ValueError(f"{len(files)} files, but vectors of shape {vectors.shape}")
    return StoredIndex(
        {key: model[key] for key in ("name", "revision", "fingerprint", "embedding_size")},
        manifest["settings"],
        rows=dict(zip(files, vectors.astype(np.float32, copy=False), strict=True)),
        refused=[UnusableFile(*file) for file in manifest["unusable"]],
        retired={name: time.time()},
        format=1,
    )


def check_files(files: list[ImageFile], source: Mapping[str, Any]) -> None:
    """Check entries; the ids of tables and the user's own may be any text, for no path is made of them."""
    if not files:
        return
    paths, sizes, times, digests = zip(*files, strict=True)
    _check({*map(type, paths), *map(type, digests)} == {str}, "the path of a file")
    _check({*map(type, sizes), *map(type, times)} == {int}, "the size or time of a file")
    if source["kind"] in KINDS_WITH_PATHS and any(map(OUTSIDE.search, paths)):
        for path in paths:
            _check_inside(path)


def _check(condition: Any, what: str) -> None:
    if not condition:
        raise ValueError(f"{what} is not as this release writes it")


def _check_inside(path: str) -> None:
    """Refuse paths that lead out of the folder: an index may come from someone else."""
    if OUTSIDE.search(path):
        raise ValueError(f"it names {path!r}, which is outside its folder")
