"""Bringing the index of a folder up to date."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from ..embedding import DenseMap, Embedder, Skipped
from ..errors import IncompatibleIndexError
from ..files import printable
from .dense_maps import StoredMap, pack
from .scan import FolderScan, ImageFile, UnusableFile, scan_folder, with_digests
from .store import (
    DAMAGE,
    FORMAT,
    StoredIndex,
    add_map,
    is_newest,
    kind_of_maps,
    locked,
    read_index,
    refuse_foreign_manifest,
    write_index,
)

SECONDS_BETWEEN_SAVES = 10.0
SAVING_TAKES_AT_MOST = 0.1  # of the time, on whatever disk
PACKAGES = ("fgclip2", "transformers", "torch", "pillow", "pi-heif")
OTHERWISE = "use that, keep a second index elsewhere (index_folder), or start anew (rebuild=True, --rebuild)"
RECHECKED_FILES = 8
SAME_IMAGE = 0.99  # cosine: of bfloat16 and float32 it is above 0.999
DECODERS = ("fgclip2", "pillow", "pi-heif")  # where one changes, it may decode what the last one could not


@dataclass(frozen=True)
class IndexReport:
    """Numbers of files that [`ImageIndex.build`] dealt with; `unusable` ones are not in the index."""

    added: int
    updated: int
    removed: int
    unchanged: int
    unusable: int


@dataclass(frozen=True)
class Plan:
    """The work that an update has to do.

    Args:
        old: The stored index, unless it is made anew.
        scan: The folder.
        index: The next generation, with what is known of the files that have not changed.
        new: The files to embed.
        unmapped: Files whose vectors are known, but not their dense maps, which the index is to have.
    """

    old: StoredIndex | None
    scan: FolderScan
    index: StoredIndex
    new: list[ImageFile]
    unmapped: list[ImageFile]


@dataclass
class IndexBuild:
    """One run over a folder: embeds what is new or changed and saves as it goes.

    Args:
        folder: Folder of images, resolved.
        index_folder: Where the index is kept.
        embedder: Embeds the images.
        max_num_patches: Patch budget of the images; `None` where the family has none.
        batch_size: As in [`Embedder`].
        follow_links: As in [`scan_folder`], and as in [`read_index`].
        compare_contents: Tell changed files by their contents rather than by size and time.
        dense: Dense maps that the index is to have: "fp16", "int8" or "none"; `None`: those that it has.
        rebuild: Make the index anew; of a former one only the kind of its dense maps is used.
    """

    folder: Path
    index_folder: Path
    embedder: Embedder
    max_num_patches: int | str | None
    batch_size: int
    follow_links: bool = False
    compare_contents: bool = False
    dense: str | None = None
    rebuild: bool = False

    def run(self, show_progress_bar: bool | None) -> tuple[StoredIndex, IndexReport]:
        """Embed, save, and report. Where nothing is to be done, nothing is written and no other run is waited for.

        Raises:
            KeyboardInterrupt: It was interrupted; what was done is saved, and the message says how much.
        """
        refuse_foreign_manifest(self.index_folder)
        plan = self._plan()
        if plan.new or plan.unmapped or plan.old is None or not _says_the_same(plan.old, plan.index):
            with locked(self.index_folder):
                if self.rebuild or not is_newest(self.index_folder, plan.old):
                    plan = self._plan()  # another run has written, and may have seen files that we have not
                if plan.old is not None and plan.old.format == 1:
                    self._recheck(plan.index)
                self._embed(plan.index, [*plan.new, *plan.unmapped], show_progress_bar)
        index = plan.index
        old_paths = {file.path for file in plan.old.rows} if plan.old else set()
        embedded = [file.path in old_paths for file in plan.new if file in index.rows]
        return index, IndexReport(
            added=embedded.count(False),
            updated=embedded.count(True),
            removed=len(old_paths - {file.path for file in plan.scan.images}),
            unchanged=len(index.rows) - len(embedded),
            unusable=len(index.unusable),
        )

    def _read(self) -> StoredIndex | None:
        stored = read_index(self.index_folder, self.follow_links)
        if stored is None:
            return None
        # Vectors of another model, or of the same at another resolution, can't be mixed with new ones.
        if not made_by(stored.model, self.embedder):
            revision = stored.model["revision"]
            name = stored.model["name"] + (f" at revision {revision}" if revision else "")
            raise IncompatibleIndexError(
                f"the index {printable(self.index_folder)} was made by the model {name!r}, which is not the model "
                f"{self.embedder.name!r} as it is now: {OTHERWISE}"
            )
        if vector_kind(stored.settings) != vector_kind(self._settings):
            raise IncompatibleIndexError(
                f"the index {printable(self.index_folder)} was made with {stored.settings}, not {self._settings}: "
                f"{OTHERWISE}"
            )
        return stored

    @property
    def _settings(self) -> dict[str, Any]:
        return {"max_num_patches": self.max_num_patches, **self.embedder.describe_vectors()}

    def _plan(self) -> Plan:
        """Look at the index and the folder as they are."""
        old = None if self.rebuild else self._read()
        scan = scan_folder(self.folder, self.follow_links)
        if self.compare_contents:
            scan = scan._replace(images=with_digests(self.folder, scan.images))
        model = {
            "name": self.embedder.name,
            "revision": self.embedder.revision,
            "fingerprint": self.embedder.fingerprint,
            "embedding_size": self.embedder.embedding_size,
        }
        index = StoredIndex(
            model, self._settings, _versions(), self.embedder.max_pixels, refused=scan.unusable, left_out=scan.left_out
        )
        index.dense = self._kind_of_maps(old)
        if old is None:
            return Plan(old, scan, index, scan.images, [])
        index.blocks, index.retired, index.map_blocks = old.blocks, old.retired, [*old.map_blocks]
        decoders_are_the_same = all(old.versions.get(name) == index.versions.get(name) for name in DECODERS)
        unreadable = old.unreadable if decoders_are_the_same and old.max_pixels == index.max_pixels else {}
        # By content, or by path, size and time; the stored file may have a digest, even if it is not compared now.
        key = itemgetter(0, 3) if self.compare_contents else itemgetter(0, 1, 2)
        known = {key(file): file for file in chain(old.rows, unreadable)}
        new = []
        for file in scan.images:
            former = known.get(key(file))
            if former is None or (self.compare_contents and not file.digest):
                new.append(file)
                continue
            kept = file if self.compare_contents else former
            if former in old.rows:
                index.rows[kept] = old.rows[former]
                its_map = old.maps.get(former) if old.dense == index.dense else None
                if its_map is not None and (not self.compare_contents or _is_whole(its_map)):
                    index.maps[kept] = its_map
            else:
                index.unreadable[kept] = unreadable[former]
        unmapped = [file for file in index.rows if file not in index.maps] if index.dense else []
        return Plan(old, scan, index, new, unmapped)

    def _kind_of_maps(self, old: StoredIndex | None) -> str | None:
        """Return which dense maps the index is to have; one that is made anew has those of the index in its place."""
        kind = self.dense or (old.dense if old else kind_of_maps(self.index_folder, self.follow_links))
        if kind in (None, "none"):
            return None
        try:
            self.embedder.require_dense_features()
        except ValueError as error:
            if self.dense:
                raise
            raise ValueError(
                f"the index {printable(self.index_folder)} has dense maps as {kind}, which this model can't make: "
                f"{error}; to make it anew without them, give `fgclip2 index --rebuild --dense none` (dense='none')"
            ) from error
        return kind

    def _recheck(self, index: StoredIndex) -> None:
        """Embed a few files of an index of format 1 again: it does not say how its images were prepared."""
        files = sorted(index.rows)
        files = files[:: max(1, len(files) // RECHECKED_FILES)][:RECHECKED_FILES]
        paths = [self.folder / file.path for file in files]
        options = (self.max_num_patches, self.batch_size, False)
        for number, result in self.embedder.stream_images(paths, *options, on_error="skip"):
            if not isinstance(result, Skipped) and result @ index.rows[files[number]] < SAME_IMAGE:
                raise IncompatibleIndexError(
                    f"the index {printable(self.index_folder)} has another vector of {printable(files[number].path)} "
                    f"than {self.embedder.name!r} gives now, so it was made with other preprocessing: {OTHERWISE}"
                )

    def _embed(self, index: StoredIndex, files: list[ImageFile], show_progress_bar: bool | None) -> None:
        """Embed files into the index, and save it now and then and at the end, whatever ends it."""
        paths = [self.folder / file.path for file in files]
        options = (self.max_num_patches, self.batch_size, show_progress_bar)
        stream = self.embedder.stream_dense_maps if index.dense else self.embedder.stream_images
        next_save = time.monotonic() + SECONDS_BETWEEN_SAVES
        total = len(index.rows.keys() | set(files))
        kept = index.maps if index.dense else index.rows
        saved = len(kept)
        result: np.ndarray | tuple[np.ndarray, DenseMap] | Skipped
        try:
            try:
                for number, result in stream(paths, *options, on_error="skip"):
                    file = files[number]
                    if isinstance(result, Skipped):
                        reason = result.reason.removeprefix(f"images[{number}]: ").removeprefix(f"{paths[number]}: ")
                        if file not in index.rows:
                            self._note_unusable(index, file, reason)
                    elif isinstance(result, np.ndarray):
                        index.rows[file] = result
                    else:
                        vector, dense_map = result
                        index.rows.setdefault(file, vector)
                        add_map(self.index_folder, index, file, pack(dense_map, str(index.dense)))
                    began = time.monotonic()
                    if began >= next_save:
                        write_index(self.index_folder, index)
                        saved, done = len(kept), time.monotonic()
                        next_save = done + max(SECONDS_BETWEEN_SAVES, (done - began) / SAVING_TAKES_AT_MOST)
            finally:
                write_index(self.index_folder, index)
                saved = len(kept)
        except KeyboardInterrupt as error:  # a second one may have interrupted the last save
            next_run = "the next run without rebuild (`--rebuild`)" if self.rebuild and saved else "the next run"
            message = f"{saved} of {total} images are saved in the index; {next_run} goes on from there"
            raise KeyboardInterrupt(message) from error

    def _note_unusable(self, index: StoredIndex, file: ImageFile, reason: str) -> None:
        """Remember a file that can't be decoded until it changes; one that can't be opened may be opened later."""
        try:
            (self.folder / file.path).open("rb").close()
        except OSError as error:
            index.refused.append(UnusableFile(file.path, error.strerror or str(error)))
        else:
            index.unreadable[file] = reason


def made_by(model: dict[str, Any], embedder: Embedder) -> bool:
    """Return whether an index, of which `model` is the model, was made by that of `embedder`.

    Indexes of format 1 have the fingerprint of the weights alone; the next update gives them the whole one.
    """
    return model["fingerprint"] in (embedder.fingerprint, embedder.weights_fingerprint)


def vector_kind(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what tells the vectors of one index from those of another, made by the same checkpoint.

    Graphs in fp32 give the vectors of torch within 1e-6, so an index may have both; torch's dtypes were never told
    apart. Graphs of other precisions are, and squares from NaFlex.

    Args:
        settings: Those in the manifest of an index. Older ones have a patch budget only.
    """
    budget, precision = settings["max_num_patches"], settings.get("precision")
    backend = settings.get("backend", "torch")
    is_exact = backend == "torch" or precision == "fp32"
    return {
        "max_num_patches": budget,
        "images": settings.get("images", "square" if budget is None else "naflex"),
        "image_size": settings.get("image_size"),
        "precision": None if is_exact else precision,
        "backend": None if is_exact else backend,  # run times round differently where there is less than float32
    }


def _is_whole(its_map: StoredMap) -> bool:
    try:
        its_map.block.read(its_map.row)
    except DAMAGE:
        return False
    return True


def _says_the_same(old: StoredIndex, index: StoredIndex) -> bool:
    """Return whether nothing has to be written; the numbers of files left out are not worth it."""
    return (
        old.format == FORMAT
        and not old.lost
        and old.rows.keys() == index.rows.keys()
        and (old.dense, old.maps.keys()) == (index.dense, index.maps.keys())
        and (old.unreadable, old.refused) == (index.unreadable, index.refused)
    )


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
