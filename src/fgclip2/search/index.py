"""ImageIndex: the vectors of a folder of images, kept up to date on disk and searched exactly."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any, Literal, overload

import numpy as np

from .._imports import require
from ..checks import check_choice, check_positive_integer
from ..embedding import DenseMap, Embedder, ImageInput, split_phrases
from ..embedding.inputs import Boxes
from ..embedding.labels import normalised
from ..embedding.phrases import Splitter
from ..embedding.reranker import CANDIDATES, RERANKERS
from ..errors import IncompatibleIndexError
from ..files import printable
from . import exact
from .build import IndexBuild, IndexReport, check_source
from .caches import APPROXIMATE, VectorCache, build_cache, cached_kinds, delete_caches
from .caches import KINDS as CACHES
from .dense_maps import KINDS, StoredMap
from .export import WRITERS
from .extras import NOTHING, Extra, count_regions
from .filters import allowed_rows, check_allowed
from .hits import IndexEntry, RerankedSearchHit, SearchHit
from .metadata import ID, Metadata, Records, check_boxes, check_metadata, kinds_of_columns, read_records
from .own_ids import KIND as OWN_IDS
from .own_ids import OwnIdsSource, check_ids
from .queries import ImageQuery, Query, check_region_search, encode_queries, images_of, is_copy, is_query
from .regions import RegionTable
from .reranking import check_rerank, rerank_candidates
from .scan import ImageFile, Source, UnusableFile
from .sources import open_source
from .store import (
    DAMAGE,
    KINDS_OF_REGIONS,
    OpenedIndex,
    StoredIndex,
    kinds_in,
    newest_rows_digest,
    open_index,
    read_index,
)
from .verification import DamagedFile, damaged_files

DEFAULT_INDEX_FOLDER = ".fgclip2_index"
BESIDE = ".fgclip2_index"  # behind the name of an archive or a Parquet file
REGIONS = ("best", "all")
_READING = Lock()  # of the vectors of one index after another, each by one thread


@dataclass
class ImageIndex:
    """The images of a folder, or of another source, with their vectors.

    A source may also be an archive, a Parquet file or a dataset (see [`build`]), or ids of the user's own (see
    [`create`]).

    On disk an index is a folder with `manifest.json` (model, settings, versions, what can't be used) and the vectors
    as safetensors, in blocks with path, size and modification time of each file. All of it is checked by hashes when
    it is read; a damaged block costs its rows only, with a warning. One run at a time may write an index; reading it
    needs no turn. Search is exact unless another way is asked for: every vector is compared.

    A large index is opened and searched faster by caches, see [`build_cache`]. One that has a cache of its vectors is
    opened by that alone; its blocks are read and checked when `vectors` is first used.

    With dense maps, which are off by default, re-ranking opens no picture. They are large: 256 patches of 768 values
    are 393 kB an image as `"fp16"`, or 197 kB as `"int8"` (with a scale for each patch). They lie in blocks of their
    own, of which a search reads the maps of its candidates only.

    Args:
        source: From which images are read again.
        files: The images in it, sorted by path; a list, or a sequence that reads them from a cache.
        vectors: Float32 (files, D), L2-normalised.
        model: `name`, `revision`, `fingerprint` and `embedding_size` of the model that made the vectors.
        settings: `max_num_patches` that the images were encoded with, and what [`Embedder.describe_vectors`] says.
        unusable: Files that can't be read or that lie outside the folder, with reasons.
        report: What [`build`] did; `None` after [`load`].
        left_out: How many files are none of [`IMAGE_SUFFIXES`], by suffix in lower case. After [`load`] as it was when
            the index was last written.
        dense: Which dense maps there are, `"fp16"` or `"int8"`; `None`: none.
        maps: The place of the dense map of each file. A file is left out as long as its map is damaged or not made
            yet; without dense maps there are none.
        extras: Metadata and regions of the files that have any.
        regions: Which regions there are, `"grid"` or `"given"`; `None`: none.
        index_folder: Where the index is kept.
        rows_digest: The hash that the caches of these vectors are named by; empty where there can be none.

    Example:
        >>> from fgclip2 import FGClip2Embedder
        >>> from fgclip2.search import ImageIndex
        >>> embedder = FGClip2Embedder.from_pretrained()
        >>> index = ImageIndex.build("photos", embedder)  # later calls embed only what is new or changed
        >>> for hit in index.search("一只黑猫", embedder, top_k=3):
        ...     print(hit.path, hit.score)
        >>> results = index.search(["a red car", "红色的汽车"], embedder)  # a list of hits for each
    """

    source: Source
    files: Sequence[ImageFile]
    vectors: np.ndarray
    model: dict[str, Any]
    settings: dict[str, Any]
    unusable: list[UnusableFile] = field(default_factory=list)
    report: IndexReport | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    dense: str | None = None
    maps: Mapping[ImageFile, StoredMap] = field(default_factory=dict, repr=False)
    extras: Mapping[ImageFile, Extra] = field(default_factory=dict, repr=False)
    regions: str | None = None
    index_folder: Path | None = None
    rows_digest: str = ""
    _caches: dict[str, VectorCache] = field(default_factory=dict, repr=False)  # the open ones
    # As long as `vectors` has not been used: the rows that it is made of, or the blocks, which have not been read.
    _stored: StoredIndex | None = field(default=None, repr=False)
    _opened: OpenedIndex | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def folder(self) -> Path:
        """The folder of images, the archive or the Parquet file; of datasets and own ids the folder of the index."""
        return self.source.path

    def __getattr__(self, name: str) -> Any:
        """Gather the vectors when they are first used: an update without a search needs no copy of them."""
        if name != "vectors" or "_opened" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _READING:
            if self._stored is not None:
                self.files, self.vectors = self._stored.arrays()
                self._stored = None
            elif self._opened is not None:
                assert self.index_folder is not None
                stored = read_index(self.index_folder, opened=self._opened)
                assert stored is not None
                self.files, self.vectors = stored.arrays()
                if stored.rows_digest != self.rows_digest:  # without rows of damaged blocks, which the caches have
                    self.rows_digest, self._caches = stored.rows_digest, {}
                self._opened = None
        return self.__dict__["vectors"]  # maybe gathered by another thread meanwhile

    @property
    def dense_bytes(self) -> int:
        """Bytes of the files that the dense maps lie in."""
        return sum({its_map.block.name: its_map.block.nbytes for its_map in self.maps.values()}.values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} images in {str(self.folder)!r}, model {self.model['name']!r})"

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike | Any,
        embedder: Embedder,
        index_folder: str | os.PathLike | None = None,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        rebuild: bool = False,
        show_progress_bar: bool | None = None,
        follow_links: bool = False,
        compare_contents: bool = False,
        dense: str | None = None,
        *,
        regions: str | None = None,
        metadata: str | os.PathLike | None = None,
        id_column: str | None = None,
        image_column: str | None = None,
    ) -> ImageIndex:
        """Index a folder and its subfolders, an archive or a table, or bring its index up to date.

        Only new and changed files are embedded, removed ones are dropped, and files that could not be decoded are not
        tried again. Changes are seen by size and modification time, in zip archives by checksums, in tables by the
        images themselves, all of which are read for it. Every 10 seconds, as the next images are done, and at the end
        the work is saved, so that an interrupted run goes on where it was.

        Args:
            folder: Folder of images; hidden files and links that leave it are not used. Or a `.zip` or `.tar` archive,
                which is read in place, a `.parquet` file, or a `datasets.Dataset`.
            embedder: Embeds the images.
            index_folder: Where the index is kept; `None`: `.fgclip2_index` inside `folder`, and for
                `photos.zip` beside it, in `photos.zip.fgclip2_index`. A dataset needs it.
            max_num_patches: Patch budget of the images; `None`: the processor's setting.
            batch_size: As in [`Embedder`].
            rebuild: Start anew instead of refusing an index that does not fit.
            show_progress_bar: As in [`Embedder`].
            follow_links: Use what links lead to outside `folder`, and links to folders. By default these are not used,
                and an index folder or a file in it that is a link out of its place is refused.
            compare_contents: Read each file and compare hashes, to see changes that leave size and time as they were.
                Files whose hash the index does not have yet are embedded again. Dense maps are read and checked, too.
            dense: Keep dense maps for re-ranking: `"fp16"`, `"int8"` (half the space, cosines within about 0.01) or
                `"none"`; `None`: what the index has, also where it is rebuilt, and none in a new one. Of 256 patches
                and 768 values they take 393 or 197 kB an image. Images without one, or with the other kind, run
                through the model again.
            regions: Keep vectors of regions, too, for searches by `regions=`: `"grid"`, 25 overlapping windows of half
                and a third of each image's sides; `"given"`, the `boxes` of `metadata` or of a table; or `"none"`;
                `None`: what the index has, and none in a new one. A region takes as much space as an image.
            metadata: A `.csv` or `.jsonl` file of metadata, see [`read_records`], for filters; `None`: what the index
                has. Tables have it in their other columns.
            id_column, image_column: Of a table, see [`TableSource`]; `None`: what the index has.

        Raises:
            ValueError: There is no such folder, `dense` or `regions` have another value or a model without them, or a
                record of metadata or of a table can't be used.
            IncompatibleIndexError: The index was made by another model or with other settings, or is damaged.
            LockedIndexError: Another run writes the index.
            OSError: The index can't be written there.
            KeyboardInterrupt: The run was interrupted; the message says what is saved.
        """
        check_choice("dense", dense, (None, *KINDS, "none"))
        check_choice("regions", regions, (None, *KINDS_OF_REGIONS, "none"))
        source, where = _open(folder, index_folder, follow_links, id_column, image_column)
        if source.kind == OWN_IDS:
            raise ValueError(
                f"{printable(where)} is an index of own ids, which is not brought up to date: search it as it is "
                "(`--no-update`, ImageIndex.load), or change it by ImageIndex.add and remove"
            )
        records = None if metadata is None else read_records(Path(metadata))
        options = (_budget(embedder, max_num_patches), batch_size, follow_links, compare_contents, dense, rebuild)
        build = IndexBuild(source, where, embedder, *options, records, regions)
        return cls._of(source, where, *build.run(show_progress_bar))

    @classmethod
    def load(
        cls, folder: str | os.PathLike | Any, index_folder: str | os.PathLike | None = None, follow_links: bool = False
    ) -> ImageIndex:
        """Read an index as it is, without looking for changes, and without waiting for a run that writes.

        All of it is checked by hashes. But if there is a cache of its present vectors, and it has neither dense maps
        nor metadata or regions, then that is opened instead, by its sizes: the vectors are read and checked when they
        are first used. [`verify_index`] checks everything.

        Args:
            folder: What it was built from, see [`build`]; for own ids the folder of the index.
            index_folder, follow_links: See [`build`].

        Raises:
            ValueError: There is no such folder, or it has no index.
            IncompatibleIndexError: The index is damaged.
        """
        source, where = _open(folder, index_folder, follow_links)
        opened = open_index(where, follow_links)
        if opened is not None:
            check_source(where, opened.generation, source)
            found = (VectorCache.open(where, kind, opened.rows_digest, source.describe()) for kind in CACHES)
            cache = next(filter(None, found), None)
            if cache is not None:
                index = cls._of(source, where, opened.generation)
                index.files, index.rows_digest = cache.files, opened.rows_digest
                index._stored, index._opened, index._caches = None, opened, {cache.kind: cache}
                return index
        stored = read_index(where, follow_links)
        if stored is None:
            raise _no_index(source.path, index_folder)
        check_source(where, stored, source)
        return cls._of(source, where, stored)

    @classmethod
    def create(
        cls,
        index_folder: str | os.PathLike,
        embedder: Embedder,
        max_num_patches: int | str | None = None,
        dense: str | None = None,
        regions: str | None = None,
    ) -> ImageIndex:
        """Make an empty index for ids of your own, which [`add`] fills.

        It keeps vectors and metadata, not the images, so re-ranking by phrases needs `dense`.

        Args:
            index_folder: Folder of the index, which must not be one yet.
            embedder: The model that vectors are of.
            max_num_patches, dense, regions: See [`build`]; regions that are `"given"` are the `boxes` of [`add`].

        Raises:
            ValueError: There is an index, or `dense` or `regions` have another value or a model without them.
        """
        check_choice("dense", dense, (None, *KINDS))
        check_choice("regions", regions, (None, *KINDS_OF_REGIONS))
        where = Path(index_folder)
        if read_index(where) is not None:
            raise ValueError(f"{printable(where)} has an index: read it by ImageIndex.load, or choose another folder")
        source = OwnIdsSource(where.resolve())
        options = (_budget(embedder, max_num_patches), 32, False, False, dense)
        build = IndexBuild(source, where, embedder, *options, regions=regions)
        return cls._of(source, where, *build.run(False))

    @classmethod
    def verify(
        cls, folder: str | os.PathLike | Any, index_folder: str | os.PathLike | None = None, follow_links: bool = False
    ) -> list[DamagedFile]:
        """Read all of an index, dense maps and caches included, and compare it with its hashes; change nothing.

        Vectors are compared whenever they are read: by [`build`], by [`load`] where there is no cache, and before a
        cache is made of them. Dense maps are compared one by one as they are used, caches by this alone.

        Returns:
            The damaged files, each with the reason and what to do; none if all is as it was written.

        Raises:
            ValueError: There is no such folder, or it has no index.
            IncompatibleIndexError: The manifest is damaged, so that the index has to be rebuilt.
        """
        source, where = _open(folder, index_folder, follow_links)
        found = damaged_files(where, follow_links)
        if found is None:
            raise _no_index(source.path, index_folder)
        return found

    @classmethod
    def _of(cls, source: Source, where: Path, stored: StoredIndex, report: IndexReport | None = None) -> ImageIndex:
        index = cls(
            source,
            sorted(stored.rows),
            np.empty(0),  # until they are used
            stored.model,
            stored.settings,
            stored.unusable,
            report,
            stored.left_out,
            stored.dense,
            stored.maps,
            stored.extras,
            stored.regions,
            where,
            stored.rows_digest if stored.blocks else "",
            _stored=stored,
        )
        del index.vectors
        return index

    def add(
        self,
        ids: Sequence[str],
        images: Sequence[ImageInput] | None = None,
        *,
        vectors: np.ndarray | None = None,
        metadata: Sequence[Metadata] | None = None,
        boxes: Sequence[Boxes] | None = None,
        embedder: Embedder | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
    ) -> IndexReport:
        """Add entries to an index of own ids, on disk and here; they take the place of those that have their ids.

        What others have added meanwhile stays. Work is saved as by [`build`]; after an interruption, add what
        [`get`] does not have yet.

        Args:
            ids: One text for each entry.
            images: Their images, as [`Embedder.encode_images`] takes them; those that can't be used get no entry and
                stand in `unusable`.
            vectors: Instead of images: float (N, D), of the model of the index.
            metadata: For each entry names and values: text, numbers, true, false and `None`.
            boxes: For each image the boxes of its regions, (x1, y1, x2, y2) in pixels, in an index whose regions are
                `"given"`.
            embedder: The model of the index, which images need.
            batch_size, show_progress_bar: As in [`Embedder`].

        Returns:
            How many entries there are of which kind.

        Raises:
            ValueError: The index is of a folder or another source, or an id, vector, box or metadata can't be used.
            IncompatibleIndexError: The embedder is not the model of the index.
        """
        where = self._require_own_ids()
        if (images is None) == (vectors is None):
            raise ValueError("add takes one of `images` and `vectors`")
        if images is not None and embedder is None:
            raise ValueError("images need an embedder: index.add(ids, images, embedder=embedder)")
        if boxes is not None and (images is None or self.regions != "given"):
            raise ValueError("boxes are of images in an index whose regions are 'given': ImageIndex.create(regions=)")
        images = None if images is None else list(images)
        vectors_of_ids = None if vectors is None else list(vectors)
        ids = check_ids(ids, images=images, vectors=vectors_of_ids, metadata=metadata, boxes=boxes)
        known: dict[str, np.ndarray] = {}
        if vectors_of_ids is not None:
            width = self.model["embedding_size"]
            for entry, vector in zip(ids, vectors_of_ids, strict=True):
                if np.shape(vector) != (width,) or not np.isfinite(vector).all() or not np.any(vector):
                    raise ValueError(
                        f"the vector of {printable(entry)!r} must be {width} finite values, not all zero, got shape "
                        f"{np.shape(vector)}"
                    )
            known = dict(zip(ids, normalised(np.array(vectors_of_ids, np.float32)), strict=True))
        for entry, its in zip(ids, metadata or (), strict=metadata is not None):
            check_metadata(its, f"metadata of {printable(entry)!r}")
        records = Records(
            {entry: dict(its) for entry, its in zip(ids, metadata or [{}] * len(ids), strict=True)},
            dict(zip(ids, (check_boxes(its, "boxes") for its in boxes), strict=True)) if boxes is not None else None,
        )
        added: dict[str, Any] = dict.fromkeys(ids) if images is None else dict(zip(ids, images, strict=True))
        source = OwnIdsSource(where, added)
        model = None if vectors is not None else embedder
        budget = self.settings["max_num_patches"]
        build = IndexBuild(source, where, model, budget, batch_size, records=records, vectors=known)
        return self._become(*build.run(show_progress_bar))

    def remove(self, ids: Sequence[str]) -> IndexReport:
        """Remove entries of an index of own ids, on disk and here.

        Raises:
            KeyError: There is no such entry; none is removed.
            ValueError: The index is of a folder or another source, where entries go when their images have gone.
        """
        where = self._require_own_ids()
        ids = check_ids(ids)
        for entry in ids:
            self.get(entry)
        build = IndexBuild(OwnIdsSource(where, removed=frozenset(ids)), where, None, None, 1)
        return self._become(*build.run(False))

    def get(self, entry: str) -> IndexEntry:
        """Return an entry by its id.

        Raises:
            KeyError: There is none.
        """
        row = self._row_of.get(entry)
        if row is None:
            raise KeyError(f"{printable(entry)!r} is not in the index {printable(self.folder)}")
        extra = self.extras.get(self.files[row], NOTHING)
        return IndexEntry(entry, self.vectors[row], extra.metadata or {}, extra.regions)

    def image(self, entry: str) -> ImageInput:
        """Return the image of an entry for the embedder: a path, or a function that gives the encoded image."""
        return self.source.image(entry)

    @property
    def region_count(self) -> int:
        """Number of regions of all images."""
        return sum(map(count_regions, self.extras.values()))

    @cached_property
    def columns(self) -> dict[str, type]:
        """The columns for filters, `str`, `bool`, `int` or `float`: `id`, `path`, sizes if known, and the metadata."""
        metadata = {file.path: extra.metadata for file, extra in self.extras.items() if extra.metadata is not None}
        sizes: dict[str, type] = {"width": int, "height": int} if self._sizes else {}
        return {ID: str, "path": str, **sizes, **kinds_of_columns(metadata)}

    def matches(self, where: str, others: Mapping[str, type] | None = None) -> np.ndarray:
        """Return which entries an SQL expression on [`columns`] is true of; see [`allowed_rows`].

        Args:
            where: The expression.
            others: Columns that other indexes have which the same expression is for; here they are null.

        Returns:
            Boolean (files,).

        Raises:
            FilterError: The expression can't be used; the message names unknown columns and those that there are.
            ImportError: DuckDB is not installed.
        """
        own = {name for extra in self.extras.values() for name in extra.metadata or ()}

        def column(name: str) -> list[Any]:
            if name in own:
                return [(self.extras.get(file, NOTHING).metadata or {}).get(name) for file in self.files]
            if name in (ID, "path"):
                return [file.path.encode("utf-8", "replace").decode() for file in self.files]
            if name not in self.columns:
                return [None] * len(self)
            return [self._sizes.get(file, (None, None))[name == "height"] for file in self.files]

        return allowed_rows(where, {**(others or {}), **self.columns}, column, len(self))

    @cached_property
    def _sizes(self) -> dict[ImageFile, tuple[int, int]]:
        """(width, height) of the images of which that is known: those with regions or dense maps."""
        sizes = {}
        for file, its_map in self.maps.items():
            height, width, _ = its_map.block.details[its_map.row]
            sizes[file] = (width, height)
        return sizes | {file: extra.regions.image_size for file, extra in self.extras.items() if extra.regions}

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {file.path: row for row, file in enumerate(self.files)}

    @cached_property
    def _region_table(self) -> RegionTable:
        return RegionTable.of(self.files, self.extras, self.model["embedding_size"])

    def _require_own_ids(self) -> Path:
        """Return the folder of an index of own ids."""
        if self.source.kind != OWN_IDS:
            raise ValueError(
                f"this index follows {printable(self.folder)}: change that and bring the index up to date "
                "(ImageIndex.build), or make an index of your own ids (ImageIndex.create)"
            )
        return self.source.path

    def _become(self, stored: StoredIndex, report: IndexReport) -> IndexReport:
        """Take the place of what this index was with what is on disk now."""
        where = self.source.path
        self.__dict__ = self._of(OwnIdsSource(where), where, stored, report).__dict__
        return report

    def build_cache(self, kind: str = "hnsw", show_progress_bar: bool | None = None) -> None:
        """Make a cache beside the index, for fast opening and search; without it search is as ever.

        It is made from the vectors that the index has now, with FAISS and in float16, unless it is there already. When
        an update changes them, the cache is passed over until it is made anew; it may be deleted at any time, as the
        folder `caches` in that of the index. Use no cache that someone else has made: FAISS does
        not check all that it reads.

        Args:
            kind: `"hnsw"`, a graph: the fastest search, a slow build; `"ivf"`, lists around centres: in between;
                `"exact"`: every vector is compared, as without it, in half the memory.
            show_progress_bar: As in [`Embedder`].

        Raises:
            ImportError: FAISS is not installed.
            ValueError: `kind` has another value, or the index is empty.
            IncompatibleIndexError: An update has changed the index since it was loaded.
            LockedIndexError: Another run makes a cache of this index.
            OSError: The cache can't be written.
        """
        check_choice("kind", kind, CACHES)
        if not len(self) or self.index_folder is None:
            raise ValueError(
                f"{printable(self.folder)} has no images in its index, so there is nothing to make a cache of"
            )
        if newest_rows_digest(self.index_folder) != self.rows_digest:
            raise IncompatibleIndexError(
                f"the index {printable(self.index_folder)} is not as it was when it was loaded, or has damaged blocks: "
                "bring it up to date (`fgclip2 index`, ImageIndex.build), then make its cache"
            )
        build_cache(self.index_folder, kind, self.rows_digest, self.files, self.vectors, show_progress_bar)

    @property
    def caches(self) -> list[str]:
        """The kinds of the caches that can be used: there, whole, and of the vectors that the index has now."""
        return [kind for kind in CACHES if self._cache(kind)]

    @property
    def stale_caches(self) -> list[str]:
        """The kinds of the caches that are there, but of former vectors, or damaged; empty without FAISS."""
        return [kind for kind in cached_kinds(self.index_folder) if not self._cache(kind)] if self.index_folder else []

    def delete_caches(self) -> None:
        """Delete all caches of the index.

        Raises:
            LockedIndexError: Another run makes one.
        """
        self._caches = {}
        if self.index_folder is not None:
            delete_caches(self.index_folder)

    def export(self, kind: str, output: str | os.PathLike) -> None:
        """Write the vectors, ids and paths of the index into a new folder, for another library.

        Args:
            kind: `"usearch"`: a graph in float16, `images.usearch`, whose keys are the numbers of the lines of
                `images.jsonl`, from 0 on; or `"lancedb"`: a database with the table `images`.
            output: The folder, which must be new or empty. An id is the path of an image below the index's folder.

        Raises:
            ImportError: The library is not installed.
            ValueError: `kind` has another value, or there is something in the folder.
        """
        check_choice("kind", kind, WRITERS)
        vectors = self.vectors
        ids = [file.path for file in self.files]
        WRITERS[kind](Path(output), ids, [str(self.source.shown_path(entry)) for entry in ids], vectors)

    def _cache(self, kind: str) -> VectorCache | None:
        if kind not in self._caches and self.index_folder is not None:
            cache = VectorCache.open(self.index_folder, kind, self.rows_digest, self.source.describe())
            if cache is not None:
                self._caches[kind] = cache
        return self._caches.get(kind)

    def _nearest(
        self, queries: np.ndarray, top_k: int, approximate: bool, allowed: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores and rows, (queries, K) each; see [`fgclip2.search.nearest`]."""
        cache = None
        if approximate:
            require("faiss", "search")
            cache = next(filter(None, map(self._cache, APPROXIMATE)), None)
            if cache is None:
                warnings.warn(
                    "the index has no cache of its present images for approximate search, so all were compared: make "
                    "it by `fgclip2 index FOLDER --cache hnsw`, or index.build_cache('hnsw')",
                    stacklevel=4,
                )
        elif self._opened is not None:
            cache = next(iter(self._caches.values()), None)  # by which it was opened: the vectors are not in memory
        if cache is None:
            return exact.nearest(queries, self.vectors, top_k, allowed)
        return cache.nearest(queries, top_k, allowed, exactly=not approximate)

    @overload
    def search(  # type: ignore[overload-overlap]  # a string is a query here, not a sequence
        self,
        query: str,
        embedder: Embedder,
        top_k: int = 10,
        *,
        rerank: Literal["phrases", "model"],
        candidates: int = CANDIDATES,
        batch_size: int = 32,
        split: Splitter = split_phrases,
        approximate: bool = False,
        allowed: np.ndarray | None = None,
        where: str | None = None,
    ) -> list[RerankedSearchHit]: ...

    @overload
    def search(
        self,
        query: Sequence[str],
        embedder: Embedder,
        top_k: int = 10,
        *,
        rerank: Literal["phrases", "model"],
        candidates: int = CANDIDATES,
        batch_size: int = 32,
        split: Splitter = split_phrases,
        approximate: bool = False,
        allowed: np.ndarray | None = None,
        where: str | None = None,
    ) -> list[list[RerankedSearchHit]]: ...

    @overload
    def search(  # type: ignore[overload-overlap]
        self,
        query: Query,
        embedder: Embedder | None = None,
        top_k: int = 10,
        *,
        approximate: bool = False,
        allowed: np.ndarray | None = None,
        where: str | None = None,
        regions: str | None = None,
    ) -> list[SearchHit]: ...

    @overload
    def search(
        self,
        query: Sequence[Query],
        embedder: Embedder | None = None,
        top_k: int = 10,
        *,
        approximate: bool = False,
        allowed: np.ndarray | None = None,
        where: str | None = None,
        regions: str | None = None,
    ) -> list[list[SearchHit]]: ...

    @overload
    def search(  # type: ignore[overload-overlap]
        self,
        query: None = None,
        embedder: Embedder | None = None,
        top_k: int = 10,
        *,
        image: ImageQuery,
        approximate: bool = False,
        allowed: np.ndarray | None = None,
        where: str | None = None,
        regions: str | None = None,
    ) -> list[SearchHit]: ...

    @overload
    def search(
        self,
        query: None = None,
        embedder: Embedder | None = None,
        top_k: int = 10,
        *,
        image: Sequence[ImageQuery],
        approximate: bool = False,
        allowed: np.ndarray | None = None,
        where: str | None = None,
        regions: str | None = None,
    ) -> list[list[SearchHit]]: ...

    def search(
        self,
        query: Query | Sequence[Query] | None = None,
        embedder: Embedder | None = None,
        top_k: int = 10,
        *,
        image: ImageQuery | Sequence[ImageQuery] | None = None,
        rerank: str | None = None,
        candidates: int = CANDIDATES,
        batch_size: int = 32,
        split: Splitter = split_phrases,
        approximate: bool = False,
        allowed: np.ndarray | None = None,
        where: str | None = None,
        regions: str | None = None,
    ) -> list[Any]:
        """Find the images nearest to a query.

        An image that is searched by, alone, by a region or in a combined query, is left out of the answers, and so are
        links to it and files of the same content; a search by its vector finds them all.

        Hits of texts have a probability where the embedder has a calibration for their head, language and the index's
        patch budget. Unless `embedder.prevalence` says else, one image, or region, of the index is expected to match.

        Args:
            query: A text (a `str`, in Chinese or English), an image (a `Path`, a PIL image or `bytes`, an encoded
                image), a [`Region`] of one, a vector (D,), a [`CombinedQuery`] of such, or a list of one of these; an
                array (N, D) counts as a list of vectors.
            embedder: Embeds texts and images; must be the model that made the index. Vectors need none.
            top_k: How many hits to return at most.
            image: Instead of `query`: an image, or a list of images, in which a `str` is a path too.
            rerank: `"phrases"` or `"model"`: the nearest images of a text are put in a new order, see
                [`Embedder.rerank`]; by its phrases, from their dense maps where the index has them. Others are read
                again, as all are by the model; those that can't be read any more are left out, with a warning.
            candidates: How many of the nearest images are re-ranked, `top_k` at least.
            batch_size: Images of 256 patches that are re-ranked at once, and by the model so many pairs.
            split: Makes the phrases of a text for `rerank="phrases"`; any function that takes a text and returns a list
                of texts.
            approximate: Compare few of the vectors, by a cache of kind `"hnsw"` or `"ivf"`; see [`build_cache`]. Where
                none is there for the present vectors, all are compared, with a warning.
            allowed: Bool (images,) in the order of `files`: which images may be found; `None`: all.
            where: An SQL expression on [`columns`] that hits must fulfil, e.g. `"camera = 'X' and year > 2020"`; see
                [`matches`].
            regions: Search the regions of the index instead of whole images: `"best"` finds the best region of each
                image, `"all"` each region. Texts are taken for region phrases; a vector is one of
                [`Embedder.encode_regions`]. All regions are compared.

        Returns:
            For one query its list of [`SearchHit`], best first; for a list of queries a list of such lists. With
            `rerank` the hits are [`RerankedSearchHit`].

        Raises:
            ValueError: The query is empty or can't be used, `top_k` is below 1, `rerank` has another value, no text to
                work with, or a model without dense features or without scores of pairs, or `split` is no function or
                gives no phrases, or `allowed` has another shape or type, or `where` can't be used, or the
                index has no regions.
            ImportError: `approximate` without FAISS, or `where` without DuckDB.
            IncompatibleIndexError: The embedder is not the model that made the index.
        """
        check_positive_integer("top_k", top_k)
        check_positive_integer("candidates", candidates)
        check_choice("rerank", rerank, (None, *RERANKERS))
        check_allowed(allowed, len(self), "files")
        if where is not None:
            allowed = self.matches(where) if allowed is None else self.matches(where) & allowed
        find = partial(self._nearest, approximate=approximate, allowed=allowed)
        if (query is None) == (image is None):
            raise ValueError("search takes one of `query` and `image`: index.search('一只狗', embedder), for instance")
        if image is not None:
            several = isinstance(image, (list, tuple))
            paths = [Path(one) if isinstance(one, str) else one for one in (image if several else [image])]  # type: ignore[union-attr]
            query = paths if several else paths[0]  # type: ignore[assignment]
        single = is_query(query)
        queries: list[Any] = [query] if single else list(query)  # type: ignore[arg-type]
        if regions is not None:
            self._require_regions(regions, rerank, queries)
        vectors = encode_queries(
            queries, embedder, self.model, self.settings, "auto" if regions is None else "region_phrase"
        )
        if rerank is not None:
            embedder = check_rerank(rerank, queries, embedder, split)
            scores, rows = find(vectors, max(top_k, candidates))  # (texts, candidates) each
            reranked = self._reranked(rerank, queries, scores, rows, embedder, batch_size, split)
            reranked = [hits[:top_k] for hits in reranked]
            reranked = self._with_probabilities(queries, reranked, embedder, "auto", len(self))
            return reranked[0] if single else reranked
        if regions is not None:
            hits = [self._region_hits(vector, top_k, regions == "best", allowed) for vector in vectors]
            hits = self._with_probabilities(queries, hits, embedder, "region_phrase", self.region_count)
            return hits[0] if single else hits
        found = zip(*find(vectors, top_k + 1), strict=True)  # one more, for an image may find itself
        hits = [
            self._without_copies(one, partial(find, vector[None]), self._hits(*rows), top_k)
            for one, vector, rows in zip(queries, vectors, found, strict=True)
        ]
        hits = self._with_probabilities(queries, hits, embedder, "auto", len(self))
        return hits[0] if single else hits

    def _with_probabilities(
        self, queries: list[Any], results: list[list[Any]], embedder: Embedder | None, role: str, compared: int
    ) -> list[list[Any]]:
        """Return the hits, those of a text with the probability that they match it, where there is a curve for it.

        Args:
            queries: Of the search.
            results: The hits of each.
            embedder: Has the calibration, if there is one.
            role: Of the texts.
            compared: With how many images or regions each text was compared.
        """
        if embedder is None or embedder.calibration is None:
            return results
        options: Any = {"role": role, "max_num_patches": self.settings["max_num_patches"], "candidates": compared}
        with_probabilities = []
        for query, hits in zip(queries, results, strict=True):
            if isinstance(query, str) and hits:
                cosines = np.array([[hit.score] for hit in hits])  # (hits, 1)
                found = embedder.match_probabilities(cosines, [query], **options)[:, 0]
                if not np.isnan(found).any():
                    hits = [hit._replace(probability=float(its)) for hit, its in zip(hits, found, strict=True)]
            with_probabilities.append(hits)
        return with_probabilities

    def _require_regions(self, regions: str, rerank: str | None, queries: list[Any]) -> None:
        """Raise a `ValueError` unless the regions of the index can be searched by these queries."""
        check_choice("regions", regions, (None, *REGIONS))
        if self.regions is None:
            raise ValueError(
                f"the index of {printable(self.folder)} has no regions: make them by `fgclip2 index --regions grid`, "
                "or ImageIndex.build(regions='grid')"
            )
        check_region_search(rerank, queries)

    def _region_hits(
        self, vector: np.ndarray, top_k: int, best_only: bool, allowed: np.ndarray | None
    ) -> list[SearchHit]:
        """Return the regions nearest to a vector, of each image the best one only or all."""
        images, boxes, vectors = self._region_table
        allowed_regions = None if allowed is None else allowed[images]  # (R,)
        count = top_k
        while True:
            (scores,), (rows,) = exact.nearest(vector[None], vectors, count, allowed_regions)
            first = np.sort(np.unique(images[rows], return_index=True)[1]) if best_only else np.arange(len(rows))
            if len(first) >= top_k or len(rows) < count:
                break
            count *= 4  # the best regions are of few images
        return [
            hit._replace(box=tuple(boxes[region].tolist()))
            for hit, region in zip(
                self._hits(scores[first[:top_k]], images[rows[first[:top_k]]]), rows[first[:top_k]], strict=True
            )
        ]

    def _reranked(
        self,
        rerank: str,
        texts: list[str],
        scores: np.ndarray,
        rows: np.ndarray,
        embedder: Embedder,
        batch_size: int,
        split: Splitter,
    ) -> list[list[RerankedSearchHit]]:
        """Return the nearest images of each text, (texts, candidates), in their new order; each is read once."""
        images = {row: self.source.image(self.files[row].path) for row in np.unique(rows).tolist()}
        candidates = list(zip(scores, rows.tolist(), strict=True))
        options = {"max_num_patches": self.settings["max_num_patches"], "batch_size": batch_size}
        damaged: dict[str, str] = {}  # name of a block -> reason

        def stored_map(row: int) -> DenseMap | None:
            stored = self.maps.get(self.files[row])
            if stored is None:
                return None
            try:
                return stored.block.read(stored.row).unpack()
            except DAMAGE as error:
                damaged[stored.block.name] = str(error)
                return None

        reranked = rerank_candidates(rerank, texts, candidates, images, embedder, split, stored_map, **options)
        if damaged:
            warnings.warn(
                f"dense maps are damaged, so their images were read, e.g. {next(iter(damaged.values()))}: delete "
                f"{', '.join(sorted(damaged))} in the folder of the index, and bring it up to date (`fgclip2 index`, "
                "ImageIndex.build), which makes the maps of the images in it anew",
                stacklevel=3,
            )
        results = []
        for hits in reranked:
            wholes = self._hits([hit.score for hit in hits], [hit.index for hit in hits])
            results.append(
                [
                    RerankedSearchHit(whole.path, *hit[1:], None, whole.id, whole.metadata)
                    for hit, whole in zip(hits, wholes, strict=True)
                ]
            )
        return results

    def _hits(self, scores: Iterable[float], rows: Iterable[int]) -> list[SearchHit]:
        hits = []
        for score, row in zip(scores, rows, strict=True):
            file = self.files[row]
            metadata = self.extras.get(file, NOTHING).metadata or {}
            hits.append(SearchHit(self.source.shown_path(file.path), float(score), None, file.path, metadata))
        return hits

    def _without_copies(
        self, query: Query, find: Callable[[int], Any], hits: list[SearchHit], top_k: int
    ) -> list[SearchHit]:
        """Leave the query image, links to it and its copies out of its hits, and look for others in their place."""
        images = images_of(query)
        if not images:
            return hits[:top_k]
        found = [(hit, self.source.image(hit.id)) for hit in hits]
        others = [hit for hit, its in found if not any(is_copy(its, image) for image in images)]
        if len(others) >= top_k:
            return others[:top_k]
        scores, rows = find(2 * len(hits))  # (1, K) each
        if len(rows[0]) == len(hits):  # there are no more
            return others
        return self._without_copies(query, find, self._hits(scores[0], rows[0]), top_k)


def _budget(embedder: Embedder, max_num_patches: int | str | None) -> int | str | None:
    """Return the patch budget of images, that of the processor where none is given and the family has them."""
    if max_num_patches is None and embedder.processor.patch_budgets is not None:
        return embedder.processor.image_processor.max_num_patches
    return max_num_patches


def _open(
    place: str | os.PathLike | Any,
    index_folder: str | os.PathLike | None,
    follow_links: bool,
    id_column: str | None = None,
    image_column: str | None = None,
) -> tuple[Source, Path]:
    """Return the source of an index and the folder that it is kept in; columns are those of the index by default."""
    if isinstance(place, (str, os.PathLike)):
        path = Path(place)
        if index_folder is None and (kinds_in(path).source or {}).get("kind") == OWN_IDS:
            return OwnIdsSource(path.resolve()), path
        if not path.exists():
            raise ValueError(f"{printable(path)}: no such folder or file")
        where = index_folder_of(path.resolve(), index_folder, follow_links)
    elif index_folder is not None:
        where = index_folder_of(Path(index_folder), index_folder, follow_links)
    else:
        where = Path()  # open_source says what is missing
    stored = kinds_in(where, follow_links).source or {}
    columns = (id_column or stored.get("id_column"), image_column or stored.get("image_column"))
    return open_source(place, index_folder, follow_links, *columns), where


def _no_index(folder: Path, index_folder: str | os.PathLike | None) -> ValueError:
    place = ["--index", os.fspath(index_folder)] if index_folder else []
    command = printable(shlex.join(["fgclip2", "index", str(folder), *place]))
    return ValueError(f"{printable(folder)} has no index: make it by ImageIndex.build, or by `{command}`")


def index_folder_of(place: Path, index_folder: str | os.PathLike | None, follow_links: bool) -> Path:
    """Return the folder that an index is kept in; refuse a file, and a link that brings it unasked."""
    inside = place / DEFAULT_INDEX_FOLDER if place.is_dir() else place.with_name(place.name + BESIDE)
    where = inside if index_folder is None else Path(index_folder)
    if where.is_file():
        raise ValueError(f"{printable(where)} is a file: the index needs a folder of its own")
    if index_folder is None and not follow_links and where.is_symlink():
        raise ValueError(
            f"{printable(where)} is a link to {printable(where.resolve())}: if you trust it, name that folder "
            "(`--index`, index_folder=) or follow links (`--follow-links`, follow_links=True)"
        )
    return where
