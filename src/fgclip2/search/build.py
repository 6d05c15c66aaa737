"""Bringing an index up to date with its source."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..embedding import Embedder, EncodedImage, Skipped
from ..errors import IncompatibleIndexError
from ..files import printable
from .dense_maps import StoredMap, pack
from .extras import NOTHING, Regions
from .metadata import Records, kinds_of_columns
from .regions import grid_boxes, regions_of
from .scan import ImageFile, Scan, Source, UnusableFile, suffix_of
from .store import (
    DAMAGE,
    StoredIndex,
    add_map,
    is_newest,
    kinds_in,
    locked,
    read_index,
    refuse_foreign_manifest,
    write_index,
)
from .video import VIDEO_SUFFIXES

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
        scan: The entries of the source.
        index: The next generation, with what is known of the files that have not changed.
        new: The files to embed.
        incomplete: Files whose vectors are known, but not the dense maps or regions that the index is to have.
        records: Id of an entry -> its metadata, and the boxes of its regions where they are given.
    """

    old: StoredIndex | None
    scan: Scan
    index: StoredIndex
    new: list[ImageFile]
    incomplete: list[ImageFile]
    records: Records


@dataclass
class IndexBuild:
    """One run over a source: embeds what is new or changed and saves as it goes.

    Args:
        source: Where the entries come from.
        index_folder: Where the index is kept.
        embedder: Embeds the images; `None` where none is added to an index that exists.
        max_num_patches: Patch budget of the images; `None` where the family has none.
        batch_size: As in [`Embedder`].
        follow_links: As in [`read_index`].
        compare_contents: Tell changed files by their contents rather than by size and time.
        dense: Dense maps that the index is to have: "fp16", "int8" or "none"; `None`: those that it has.
        rebuild: Make the index anew; of a former one only the kinds of its dense maps and regions are used.
        records: Metadata and boxes; `None`: those of the source, or else those that the index has.
        regions: Regions that the index is to have: "grid", "given" or "none"; `None`: those that it has.
        vectors: Id -> the vector of an entry that has no image.
    """

    source: Source
    index_folder: Path
    embedder: Embedder | None
    max_num_patches: int | str | None
    batch_size: int
    follow_links: bool = False
    compare_contents: bool = False
    dense: str | None = None
    rebuild: bool = False
    records: Records | None = None
    regions: str | None = None
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict)

    def run(self, show_progress_bar: bool | None) -> tuple[StoredIndex, IndexReport]:
        """Embed, save, and report. Where nothing is to be done, nothing is written and no other run is waited for.

        Raises:
            KeyboardInterrupt: It was interrupted; what was done is saved, and the message says how much.
        """
        refuse_foreign_manifest(self.index_folder)
        plan = self._plan()
        if plan.new or plan.incomplete or plan.old is None or not _says_the_same(plan.old, plan.index):
            with locked(self.index_folder):
                if self.rebuild or not is_newest(self.index_folder, plan.old):
                    plan = self._plan()  # another run has written, and may have seen files that we have not
                if plan.old is not None and plan.old.format == 1:
                    self._recheck(plan.index)
                self._embed(plan, show_progress_bar)
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
        check_source(self.index_folder, stored, self.source)
        if self.embedder is None:
            return stored
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
        assert self.embedder is not None
        return {"max_num_patches": self.max_num_patches, **self.embedder.describe_vectors()}

    def _next(self, old: StoredIndex | None) -> StoredIndex:
        """Return the next generation, of which only the model and the settings are known yet."""
        if self.embedder is None:
            assert old is not None
            return StoredIndex(old.model, old.settings, old.versions, old.max_pixels)
        model = {
            "name": self.embedder.name,
            "revision": self.embedder.revision,
            "fingerprint": self.embedder.fingerprint,
            "embedding_size": self.embedder.embedding_size,
        }
        return StoredIndex(model, self._settings, _versions(), self.embedder.max_pixels)

    def _plan(self) -> Plan:
        """Look at the index and the source as they are."""
        old = None if self.rebuild else self._read()
        scan = self.source.scan(old.rows if old else (), self.compare_contents)
        index = self._next(old)
        index.refused, index.left_out = scan.unusable, scan.left_out
        index.source = self.source.describe()
        index.dense = self._kind_of_maps(old)
        index.regions = self._kind_of_regions(old)
        records = self._records(old, scan)
        if self.regions == "given" and records.boxes is None and not self.source.adds_entries:
            raise ValueError(
                "regions='given' (`--regions given`) needs boxes: the field `boxes` in a .jsonl file of metadata, the "
                "column `boxes` of a table, or `boxes` of ImageIndex.add"
            )
        kinds_of_columns({file.path: its for file in scan.images if (its := records.metadata.get(file.path))})
        if old is None:
            return Plan(old, scan, index, scan.images, [], records)
        index.blocks, index.retired, index.map_blocks = old.blocks, old.retired, [*old.map_blocks]
        decoders_are_the_same = all(old.versions.get(name) == index.versions.get(name) for name in DECODERS)
        unreadable = old.unreadable if decoders_are_the_same and old.max_pixels == index.max_pixels else {}
        if index.regions == "given" and (self.records or scan.records):
            unreadable = {}  # it may have been the boxes
        by_contents = self.compare_contents or self.source.tells_contents
        is_same = ImageFile.has_content_of if by_contents else ImageFile.has_stamp_of
        known = {file.path: file for file in chain(old.rows, unreadable)}
        new = []
        for file in scan.images:
            former = known.get(file.path)
            if former is None or not is_same(file, former):
                new.append(file)
                continue
            kept = file if by_contents else former
            if former in old.rows:
                index.rows[kept] = old.rows[former]
                its_map = old.maps.get(former) if old.dense == index.dense else None
                if its_map is not None and (not self.compare_contents or _is_whole(its_map)):
                    index.maps[kept] = its_map
                if old.extras or records.metadata:
                    regions = _known_regions(old, former, index.regions, records)
                    index.set_extra(kept, records.metadata.get(kept.path), regions, old.extras.get(former))
            else:
                index.unreadable[kept] = unreadable[former]
        incomplete = [
            file
            for file in (() if self.source.adds_entries else index.rows)
            if (index.dense and file not in index.maps)
            or (index.regions and index.extras.get(file, NOTHING).regions is None)
        ]
        return Plan(old, scan, index, new, incomplete, records)

    def _records(self, old: StoredIndex | None, scan: Scan) -> Records:
        """Return metadata and boxes of the entries: those that are given, else those that the index has."""
        extras = {file.path: extra for file, extra in old.extras.items()} if old else {}
        known = {path: extra.metadata for path, extra in extras.items() if extra.metadata is not None}
        boxes = {path: extra.regions.boxes.tolist() for path, extra in extras.items() if extra.regions is not None}
        given = self.records or scan.records
        if given is None:
            return Records(known, boxes or None)
        if self.source.adds_entries:
            return Records(known | given.metadata, boxes | (given.boxes or {}) or None)
        if given is self.records:
            self._check_records(given, scan)
        return Records(given.metadata, boxes or None if given.boxes is None else given.boxes)

    def _check_records(self, records: Records, scan: Scan) -> None:
        """Raise or warn if records of a file are of images that are not there; those of videos are for their index."""
        if scan.records is not None:
            raise ValueError(f"{printable(self.source.path)} has metadata itself, in its columns: leave out `metadata`")
        of_images = [path for path in records.metadata if suffix_of(path) not in VIDEO_SUFFIXES]
        check_there(of_images, scan, self.source.path, "images")

    def _kind_of_regions(self, old: StoredIndex | None) -> str | None:
        """Return which regions the index is to have; one that is made anew has those of the index in its place."""
        kind = self.regions or (old.regions if old else kinds_in(self.index_folder, self.follow_links).regions)
        if kind in (None, "none"):
            return None
        if self.embedder is not None:
            self.embedder.require_regions()
        return kind

    def _kind_of_maps(self, old: StoredIndex | None) -> str | None:
        """Return which dense maps the index is to have; one that is made anew has those of the index in its place."""
        kind = self.dense or (old.dense if old else kinds_in(self.index_folder, self.follow_links).dense)
        if kind in (None, "none"):
            return None
        if self.embedder is None:
            return kind
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
        assert self.embedder is not None  # such an index is of a folder
        files = sorted(index.rows)
        files = files[:: max(1, len(files) // RECHECKED_FILES)][:RECHECKED_FILES]
        images = self.source.images(files)
        options = (self.max_num_patches, self.batch_size, False)
        for number, result in self.embedder.stream_images(images, *options, on_error="skip"):
            if not isinstance(result, Skipped) and result @ index.rows[files[number]] < SAME_IMAGE:
                raise IncompatibleIndexError(
                    f"the index {printable(self.index_folder)} has another vector of {printable(files[number].path)} "
                    f"than {self.embedder.name!r} gives now, so it was made with other preprocessing: {OTHERWISE}"
                )

    def _embed(self, plan: Plan, show_progress_bar: bool | None) -> None:
        """Embed files into the index, and save it now and then and at the end, whatever ends it."""
        index, metadata = plan.index, plan.records.metadata
        place = {file.path: number for number, file in enumerate(plan.scan.images)}
        files = []  # in the order that suits the source
        for file in sorted([*plan.new, *plan.incomplete], key=lambda file: place[file.path]):
            if file.path in self.vectors:
                index.rows[file] = self.vectors[file.path]
                index.set_extra(file, metadata.get(file.path), None)
            else:
                files.append(file)
        next_save = time.monotonic() + SECONDS_BETWEEN_SAVES
        total = len(index.rows.keys() | set(files))
        saved = index.count_complete()
        try:
            try:
                for number, result in self._stream(plan, files, show_progress_bar) if files else ():
                    file = files[number]
                    if isinstance(result, Skipped):
                        if file not in index.rows:
                            self._note_unusable(index, file, result.reason.removeprefix(f"images[{number}]: "))
                    else:
                        index.rows.setdefault(file, result.vector)
                        index.set_extra(file, metadata.get(file.path), regions_of(result))
                        if result.dense_map is not None:
                            add_map(self.index_folder, index, file, pack(result.dense_map, str(index.dense)))
                    began = time.monotonic()
                    if began >= next_save:
                        write_index(self.index_folder, index)
                        saved, done = index.count_complete(), time.monotonic()
                        next_save = done + max(SECONDS_BETWEEN_SAVES, (done - began) / SAVING_TAKES_AT_MOST)
            finally:
                write_index(self.index_folder, index)
                saved = index.count_complete()
        except KeyboardInterrupt as error:  # a second one may have interrupted the last save
            next_run = "the next run without rebuild (`--rebuild`)" if self.rebuild and saved else "the next run"
            message = f"{saved} of {total} images are saved in the index; {next_run} goes on from there"
            raise KeyboardInterrupt(message) from error

    def _stream(
        self, plan: Plan, files: list[ImageFile], show_progress_bar: bool | None
    ) -> Iterator[tuple[int, EncodedImage | Skipped]]:
        """Yield (number of a file, all that the index is to have of its image) as they are done."""
        assert self.embedder is not None
        index, images = plan.index, self.source.images(files)
        options = (self.max_num_patches, self.batch_size, show_progress_bar)
        result: Any
        if index.regions:
            boxes: list[Any] = [grid_boxes] * len(files)
            if index.regions == "given":
                boxes = [(plan.records.boxes or {}).get(file.path, ()) for file in files]
            yield from self.embedder.stream_encoded(images, boxes, *options, on_error="skip", dense=bool(index.dense))
        elif index.dense:
            for number, result in self.embedder.stream_dense_maps(images, *options, on_error="skip"):
                yield number, result if isinstance(result, Skipped) else EncodedImage(result[0], dense_map=result[1])
        else:
            for number, result in self.embedder.stream_images(images, *options, on_error="skip"):
                yield number, result if isinstance(result, Skipped) else EncodedImage(result)

    def _note_unusable(self, index: StoredIndex, file: ImageFile, reason: str) -> None:
        """Remember a file that can't be decoded until it changes; one that can't be opened may be opened later."""
        image = self.source.image(file.path)
        try:
            if isinstance(image, Path):
                reason = reason.removeprefix(f"{image}: ")
                image.open("rb").close()
        except OSError as error:
            index.refused.append(UnusableFile(file.path, error.strerror or str(error)))
        else:
            index.unreadable[file] = reason


def check_there(paths: Sequence[str], scan: Scan, folder: Path, what: str) -> None:
    """Warn if some of the paths that records of metadata are of are not there.

    Raises:
        ValueError: None of them is there.
    """
    there = {file.path for file in scan.images} | {file.path for file in scan.unusable}
    missing = [path for path in paths if path not in there]
    if not missing:
        return
    some = f"{len(missing)} of {len(paths)} records of metadata are of {what} that are not there"
    example = f"e.g. {printable(missing[0])!r}"
    if len(missing) == len(paths):
        raise ValueError(f"{some}, {example}: give paths below {printable(folder)}, with forward slashes")
    warnings.warn(f"{some} and are left out, {example}", stacklevel=7)


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


def check_source(index_folder: Path, stored: StoredIndex, source: Source) -> None:
    """Raise [`IncompatibleIndexError`] unless an index is of a source of this kind, and of its columns."""
    if stored.source != source.describe():
        others = ", ".join(f"{name} {value!r}" for name, value in stored.source.items())
        ours = ", ".join(f"{name} {value!r}" for name, value in source.describe().items())
        raise IncompatibleIndexError(
            f"the index {printable(index_folder)} is of a source of {others}, not of {ours}, as "
            f"{printable(source.path)} is: {OTHERWISE}"
        )


def _known_regions(old: StoredIndex, file: ImageFile, kind: str | None, records: Records) -> Regions | None:
    """Return the regions of a file that are still those that an index is to have."""
    regions = old.extras.get(file, NOTHING).regions if old.regions == kind else None
    if regions is None or kind != "given":
        return regions
    wanted = np.array((records.boxes or {}).get(file.path, []), np.float32).reshape(-1, 4)
    return regions if np.array_equal(wanted, regions.boxes) else None


def _is_whole(its_map: StoredMap) -> bool:
    try:
        its_map.block.read(its_map.row)
    except DAMAGE:
        return False
    return True


def _says_the_same(old: StoredIndex, index: StoredIndex) -> bool:
    """Return whether nothing has to be written; the numbers of files left out are not worth it."""
    return (
        old.format > 1
        and not old.lost
        and old.rows.keys() == index.rows.keys()
        and (old.dense, old.maps.keys()) == (index.dense, index.maps.keys())
        and (old.unreadable, old.refused) == (index.unreadable, index.refused)
        and old.regions == index.regions
        and old.extras.keys() == index.extras.keys()
        and all(index.extras[file] is extra for file, extra in old.extras.items())
    )


def _versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
