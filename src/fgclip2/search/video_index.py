"""VideoIndex: frames of the videos of a folder with their vectors, found as stretches of time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from .._imports import require
from ..checks import check_choice, check_positive_integer
from ..embedding import Embedder, split_phrases
from ..embedding.phrases import Splitter
from ..embedding.reranker import CANDIDATES, RERANKERS
from ..errors import IncompatibleIndexError
from ..files import printable
from .build import OTHERWISE, IndexReport, made_by, vector_kind
from .extras import NOTHING, Extra
from .filters import allowed_rows, check_allowed
from .frames import FrameSpan
from .hits import RerankedVideoHit, VideoHit
from .index import index_folder_of
from .metadata import ID, Metadata, kinds_of_columns, read_records
from .queries import Query, check_region_search, encode_queries, is_query
from .regions import RegionTable
from .reranking import check_rerank, rerank_candidates
from .scan import ImageFile, UnusableFile
from .store import MANIFEST, StoredIndex, kinds_in, locked, read_index, refuse_foreign_manifest
from .video import SCENES, check_sampling, read_frame
from .video_build import VideoBuild

FOLDER = "videos"  # in the folder of the index of the images
REGIONS = ("grid", "none")


@dataclass
class VideoIndex:
    """The videos of a folder by frames that stand for them, with the vectors of these.

    On disk it is an index like that of the images, in `videos` in the folder of that one, with the same checks, the
    same safety against interruption and a lock of its own. Videos are read locally and never written.

    Args:
        folder: The folder of videos.
        files: The frames: entries named by video and time, with size and time of the video, sorted by these.
        vectors: Float32 (frames, D), L2-normalised.
        model: See [`ImageIndex`].
        settings: See [`ImageIndex`]; `video` says how frames were sampled.
        unusable: Videos that can't be read or that lie outside the folder, with reasons.
        report: What [`build`] did, counted in videos; `None` after [`load`].
        extras: Metadata of the videos and regions of the frames that have any.
        regions: Which regions there are, `"grid"`; `None`: none.

    Example:
        >>> videos = VideoIndex.build("clips", embedder)  # needs the extra `video`
        >>> for hit in videos.search("一只猫跳上桌子", embedder, top_k=3):
        ...     print(hit.path, hit.start, hit.end, hit.score)
    """

    folder: Path
    files: list[ImageFile]
    vectors: np.ndarray
    model: dict[str, Any]
    settings: dict[str, Any]
    unusable: list[UnusableFile] = field(default_factory=list)
    report: IndexReport | None = None
    extras: Mapping[ImageFile, Extra] = field(default_factory=dict, repr=False)
    regions: str | None = None

    def __post_init__(self) -> None:
        spans = [FrameSpan.parse(file.path) for file in self.files]
        order = sorted(range(len(spans)), key=spans.__getitem__)
        self.files, self.spans = [self.files[row] for row in order], [spans[row] for row in order]
        self.vectors = self.vectors[order]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def video_count(self) -> int:
        """Number of videos in the index."""
        return len({span.path for span in self.spans})

    @property
    def sampling(self) -> str | float:
        """How frames were sampled: `"scenes"`, or the seconds between them."""
        return self.settings["video"]

    @classmethod
    def build(
        cls,
        folder: str | os.PathLike,
        embedder: Embedder,
        sampling: str | float | None = None,
        index_folder: str | os.PathLike | None = None,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        rebuild: bool = False,
        show_progress_bar: bool | None = None,
        follow_links: bool = False,
        *,
        regions: str | None = None,
        metadata: str | os.PathLike | None = None,
    ) -> VideoIndex:
        """Index the videos of a folder and its subfolders, or bring their index up to date.

        Only new and changed videos (by size and modification time) are read, removed ones are dropped, and those that
        can't be decoded are not tried again. Every 10 seconds, as the next frames are done, and at the end the work is
        saved, so that an interrupted run goes on where it was, also in the middle of a video.

        Args:
            folder: See [`ImageIndex.build`].
            embedder: Embeds the frames.
            sampling: Which frames are taken: `"scenes"`, where the picture changes, or the seconds between them, see
                [`sample_frames`]; `None`: as the index has them, and scenes in a new one. All videos are read again
                where it changes.
            index_folder, max_num_patches, batch_size, rebuild, show_progress_bar, follow_links: See
                [`ImageIndex.build`].
            regions: `"grid"`: keep vectors of 25 overlapping windows of each frame, too; or `"none"`; `None`: what the
                index has, and none in a new one. Videos are read again for it. Boxes can't be given, for those of one
                frame say nothing of the next.
            metadata: See [`ImageIndex.build`]; records of videos, by their paths, count for all their frames.

        Raises:
            ValueError: It is no folder, `sampling` or `regions` have another value, the model has no regions, or a
                record of metadata can't be used.
            IncompatibleIndexError, LockedIndexError, OSError, KeyboardInterrupt: See [`ImageIndex.build`].
            ImportError: PyAV is not installed.
        """
        if sampling is not None:
            check_sampling(sampling)
        if regions == "given":
            raise ValueError("regions='given' is of images: boxes of one frame of a video say nothing of the next")
        check_choice("regions", regions, (None, *REGIONS))
        records = None if metadata is None else read_records(Path(metadata))
        av = require("av", "video")
        folder = Path(folder).resolve()
        if not folder.is_dir():
            raise ValueError(f"{printable(folder)} is no folder: only videos in a folder are indexed")
        where = index_folder_of(folder, index_folder, follow_links) / FOLDER
        if max_num_patches is None and embedder.processor.patch_budgets is not None:
            max_num_patches = embedder.processor.image_processor.max_num_patches
        refuse_foreign_manifest(where)
        with locked(where):
            try:
                old = read_index(where, follow_links)
            except IncompatibleIndexError:
                if not rebuild:
                    raise
                old = None
            if sampling is None:
                sampling = old.settings["video"] if old else SCENES
            if regions is None:
                regions = old.regions if old else kinds_in(where, follow_links).regions
            old = None if rebuild else old
            index = StoredIndex(
                {
                    "name": embedder.name,
                    "revision": embedder.revision,
                    "fingerprint": embedder.fingerprint,
                    "embedding_size": embedder.embedding_size,
                },
                {"max_num_patches": max_num_patches, **embedder.describe_vectors(), "video": sampling},
                {"av": av.__version__},
                embedder.max_pixels,
                regions=None if regions == "none" else regions,
            )
            if index.regions:
                embedder.require_regions()
            if old is not None:
                _check_same_kind(where, old, index, embedder)
                index.blocks, index.retired = old.blocks, old.retired
            build = VideoBuild(folder, where, embedder, index, old, batch_size, follow_links, records)
            report = build.run(show_progress_bar)
        return cls._of(folder, index, report)

    @staticmethod
    def exists(
        folder: str | os.PathLike, index_folder: str | os.PathLike | None = None, follow_links: bool = False
    ) -> bool:
        """Return whether a folder has an index of videos, which may be damaged."""
        folder = Path(folder).resolve()
        return folder.is_dir() and (index_folder_of(folder, index_folder, follow_links) / FOLDER / MANIFEST).exists()

    @classmethod
    def load(
        cls, folder: str | os.PathLike, index_folder: str | os.PathLike | None = None, follow_links: bool = False
    ) -> VideoIndex | None:
        """Read the index of the videos of a folder as it is; `None` where there is none.

        Raises:
            IncompatibleIndexError: The index is damaged.
        """
        if not cls.exists(folder, index_folder, follow_links):
            return None
        folder = Path(folder).resolve()
        stored = read_index(index_folder_of(folder, index_folder, follow_links) / FOLDER, follow_links)
        return None if stored is None else cls._of(folder, stored)

    @staticmethod
    def remove(
        folder: str | os.PathLike, index_folder: str | os.PathLike | None = None, follow_links: bool = False
    ) -> None:
        """Delete the index of the videos of a folder, if there is one; the videos stay.

        Raises:
            IncompatibleIndexError: In the place of the index is something else.
            LockedIndexError: Another run writes it.
        """
        if not VideoIndex.exists(folder, index_folder, follow_links):
            return
        where = index_folder_of(Path(folder).resolve(), index_folder, follow_links) / FOLDER
        refuse_foreign_manifest(where)
        if where.is_symlink():  # what it leads to may be someone else's
            raise IncompatibleIndexError(f"{printable(where)} is a link: delete it, and the folder that it leads to")
        with locked(where):
            shutil.rmtree(where)

    @classmethod
    def _of(cls, folder: Path, stored: StoredIndex, report: IndexReport | None = None) -> VideoIndex:
        arrays = stored.arrays()
        return cls(
            folder,
            *arrays,
            stored.model,
            stored.settings,
            stored.unusable,
            report,
            stored.extras,
            stored.regions,
        )

    @cached_property
    def columns(self) -> dict[str, type]:
        """The columns for filters: `id` and `path` of the video, and the metadata; see [`ImageIndex.columns`]."""
        metadata = {file.path: extra.metadata for file, extra in self.extras.items() if extra.metadata is not None}
        return {ID: str, "path": str, **kinds_of_columns(metadata)}

    def matches(self, where: str, others: Mapping[str, type] | None = None) -> np.ndarray:
        """Return of which frames an SQL expression on the [`columns`] of their videos is true, boolean (frames,).

        Args, raises: See [`ImageIndex.matches`].
        """

        def column(name: str) -> list[Any]:
            if name in (ID, "path"):
                return [span.path.encode("utf-8", "replace").decode() for span in self.spans]
            return [self._metadata(row).get(name) for row in range(len(self))]

        return allowed_rows(where, {**(others or {}), **self.columns}, column, len(self))

    def search(
        self,
        query: Query | Sequence[Query],
        embedder: Embedder | None = None,
        top_k: int = 10,
        *,
        rerank: str | None = None,
        candidates: int = CANDIDATES,
        batch_size: int = 32,
        split: Splitter = split_phrases,
        allowed: np.ndarray | None = None,
        where: str | None = None,
        regions: str | None = None,
    ) -> list[Any]:
        """Find the stretches of videos nearest to a query.

        The best frame is joined by those beside it whose scores are nearer to its than to the median of all frames, and
        so is the best of the remaining ones, and so on.

        Args:
            query, embedder, top_k: See [`ImageIndex.search`].
            rerank: `"phrases"` or `"model"`: the nearest stretches of a text are put in a new order by their best
                frames, which are decoded again; those of videos that can't be read any more are left out, with a
                warning.
            candidates: How many of the nearest stretches are re-ranked, `top_k` at least.
            batch_size, split: See [`ImageIndex.search`].
            allowed: Bool (frames,) in the order of `files`: which frames may be found; `None`: all.
            where: An SQL expression on [`columns`] that videos must fulfil.
            regions: `"best"`: the score of a frame is that of its best region. Texts are taken for region phrases.

        Returns:
            For one query its list of [`VideoHit`], best first; for a list of queries a list of such lists. With
            `rerank` the hits are [`RerankedVideoHit`].

        Raises:
            ValueError: See [`ImageIndex.search`]; or `regions` is `"all"`, for the regions of a stretch, each in
                frame after frame, are no list that anyone could read.
            ImportError, IncompatibleIndexError: See [`ImageIndex.search`].
        """
        check_positive_integer("top_k", top_k)
        check_positive_integer("candidates", candidates)
        check_choice("rerank", rerank, (None, *RERANKERS))
        if regions == "all":
            raise ValueError(
                "regions='all' is of images: a stretch of a video has each window once in every frame; use 'best'"
            )
        check_choice("regions", regions, (None, "best"))
        check_allowed(allowed, len(self), "frames")
        single = is_query(query)
        queries: list[Any] = [query] if single else list(query)  # type: ignore[arg-type]
        if regions is not None:
            check_region_search(rerank, queries)
            if self.regions is None:
                raise ValueError(
                    f"the videos of {printable(self.folder)} have no regions: make them by `fgclip2 index --video "
                    "scenes --regions grid`, or VideoIndex.build(regions='grid')"
                )
        if where is not None:
            allowed = self.matches(where) if allowed is None else self.matches(where) & allowed
        role: Any = "auto" if regions is None else "region_phrase"
        vectors = encode_queries(queries, embedder, self.model, self.settings, role)
        hits: list[Any]
        if rerank is not None:
            embedder = check_rerank(rerank, queries, embedder, split)
            found = [self._stretches(self.vectors @ vector, max(top_k, candidates), allowed) for vector in vectors]
            options = {"max_num_patches": self.settings["max_num_patches"], "batch_size": batch_size}
            hits = [its[:top_k] for its in self._reranked(rerank, queries, found, embedder, split, options)]
        elif regions is not None:
            hits = [self._region_hits(vector, top_k, allowed) for vector in vectors]
        else:
            hits = [[hit for _, hit in self._stretches(self.vectors @ vector, top_k, allowed)] for vector in vectors]
        return hits[0] if single else hits

    @cached_property
    def _region_table(self) -> RegionTable:
        return RegionTable.of(self.files, self.extras, self.model["embedding_size"])

    def _metadata(self, row: int) -> Metadata:
        return self.extras.get(self.files[row], NOTHING).metadata or {}

    def _region_hits(self, vector: np.ndarray, top_k: int, allowed: np.ndarray | None) -> list[VideoHit]:
        """Return the best stretches by the best region of each frame, with that of their best frame."""
        rows, boxes, vectors = self._region_table
        cosines = vectors @ vector  # (R,)
        scores = np.full(len(self), -np.inf, np.float32)
        np.maximum.at(scores, rows, cosines)
        has_regions = np.isfinite(scores)
        found = self._stretches(scores, top_k, has_regions if allowed is None else has_regions & allowed)
        best = {row: np.flatnonzero((rows == row) & (cosines == scores[row]))[0] for row, _ in found}
        return [hit._replace(box=tuple(boxes[best[row]].tolist())) for row, hit in found]

    def _reranked(
        self,
        rerank: str,
        texts: list[str],
        found: list[list[tuple[int, VideoHit]]],
        embedder: Embedder,
        split: Splitter,
        options: dict[str, Any],
    ) -> list[list[RerankedVideoHit]]:
        """Return the nearest stretches of each text in their new order, by their best frames, decoded again."""
        by_row = {row: hit for its in found for row, hit in its}
        images = {row: partial(read_frame, hit.path, hit.time, embedder.max_pixels) for row, hit in by_row.items()}
        candidates = [(np.array([hit.score for _, hit in its], np.float32), [row for row, _ in its]) for its in found]
        reranked = rerank_candidates(rerank, texts, candidates, images, embedder, split, **options)
        stretches = [dict(its) for its in found]
        return [
            [RerankedVideoHit(*its[hit.index][:5], hit.reranked, hit.phrases, its[hit.index].metadata) for hit in hits]
            for hits, its in zip(reranked, stretches, strict=True)
        ]

    def _stretches(
        self, scores: np.ndarray, top_k: int, allowed: np.ndarray | None = None
    ) -> list[tuple[int, VideoHit]]:
        """Return the best stretches with the rows of their best frames.

        Args:
            scores: Of all frames, float32 (frames,).
            top_k: How many stretches at most.
            allowed: Which frames may be in one, bool (frames,); `None`: all.
        """
        hits: list[tuple[int, VideoHit]] = []
        taken = np.zeros(len(scores), bool) if allowed is None else ~allowed
        median = 0.0 if taken.all() else float(np.median(scores[~taken]))
        for row in np.argsort(-scores, kind="stable").tolist():
            if len(hits) == top_k:
                break
            if taken[row]:
                continue
            lowest = (scores[row] + median) / 2
            first = last = row
            while self._follow(first - 1, taken) and scores[first - 1] >= lowest:
                first -= 1
            while self._follow(last, taken, ahead=True) and scores[last + 1] >= lowest:
                last += 1
            taken[first : last + 1] = True
            path, time_of_best, _ = self.spans[row]
            start, end = self.spans[first].start, self.spans[last].end
            if not self.spans[last].has_end:  # nobody knows yet how far it goes
                end = self.spans[last].start
            score = float(scores[row])
            hits.append((row, VideoHit(self.folder / path, score, time_of_best, start, end, self._metadata(row))))
        return hits

    def _follow(self, row: int, taken: np.ndarray, ahead: bool = False) -> bool:
        """Return whether a frame and the next one are of one video, and the one that may join is not taken yet."""
        if row < 0 or row + 1 >= len(self.spans) or taken[row + ahead]:
            return False
        return self.spans[row].path == self.spans[row + 1].path


def _check_same_kind(where: Path, old: StoredIndex, index: StoredIndex, embedder: Embedder) -> None:
    """Raise [`IncompatibleIndexError`] unless the vectors of an index are like those that an embedder makes now."""
    if not made_by(old.model, embedder) or vector_kind(old.settings) != vector_kind(index.settings):
        raise IncompatibleIndexError(
            f"the index of videos {printable(where)} was made by the model {old.model['name']!r} with {old.settings}, "
            f"not by {embedder.name!r} with {index.settings}: {OTHERWISE}"
        )
