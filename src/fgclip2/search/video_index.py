"""VideoIndex: frames of the videos of a folder with their vectors, found as stretches of time."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._imports import require
from ..checks import check_positive_integer
from ..embedding import Embedder
from ..errors import IncompatibleIndexError
from ..files import printable
from ..streams import chunks
from .build import OTHERWISE, SECONDS_BETWEEN_SAVES, IndexReport, made_by, vector_kind
from .index import index_folder_of
from .queries import Query, encode_queries, is_query
from .scan import ImageFile, UnusableFile, scan_folder
from .store import MANIFEST, StoredIndex, locked, read_index, refuse_foreign_manifest, write_index
from .video import SCENES, VIDEO_SUFFIXES, Video, check_sampling, sample_frames

FOLDER = "videos"  # in the folder of the index of the images
# A frame is an entry of the index as a media fragment (https://www.w3.org/TR/media-frags/): up to the next frame taken.
_FRAME = re.compile(r"(.+)#t=(\d+\.\d{3}),(\d+\.\d{3})", re.DOTALL)


class VideoHit(NamedTuple):
    """A stretch of a video that was found.

    Attributes:
        path: The video.
        score: The cosine of its best frame with the query.
        time: Of that frame, in seconds from the start of the video.
        start, end: Of the stretch, in seconds.
    """

    path: Path
    score: float
    time: float
    start: float
    end: float


class FrameSpan(NamedTuple):
    """The stretch that a frame stands for: the video's path below the folder, and seconds from its start."""

    path: str
    start: float
    end: float

    @classmethod
    def parse(cls, entry: str) -> FrameSpan:
        """Return the span of an entry of the index, such as `clips/a.mp4#t=2.000,4.500`."""
        found = _FRAME.fullmatch(entry)
        if found is None:
            raise ValueError(f"{printable(entry)!r} is no frame of a video")
        return cls(found[1], float(found[2]), float(found[3]))

    def __str__(self) -> str:
        return f"{self.path}#t={self.start:.3f},{self.end:.3f}"


def clock(seconds: float) -> str:
    """Return a time as players show it, e.g. `1:02:03.5`."""
    tenths = round(seconds * 10)
    hours, minutes = divmod(tenths // 600, 60)
    rest = f"{tenths % 600 / 10:04.1f}"
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"


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
    ) -> VideoIndex:
        """Index the videos of a folder and its subfolders, or bring their index up to date.

        Only new and changed videos (by size and modification time) are read, removed ones are dropped, and those that
        can't be decoded are not tried again. Videos that are done are saved every 10 seconds and at the end, so that an
        interrupted run begins with the video in which it was.

        Args:
            folder: See [`ImageIndex.build`].
            embedder: Embeds the frames.
            sampling: Which frames are taken: `"scenes"`, where the picture changes, or the seconds between them, see
                [`sample_frames`]; `None`: as the index has them, and scenes in a new one. All videos are read again
                where it changes.
            index_folder, max_num_patches, batch_size, rebuild, show_progress_bar, follow_links: See
                [`ImageIndex.build`].

        Raises:
            ValueError: It is no folder, or `sampling` has another value.
            IncompatibleIndexError, LockedIndexError, OSError, KeyboardInterrupt: See [`ImageIndex.build`].
            ImportError: PyAV is not installed.
        """
        if sampling is not None:
            check_sampling(sampling)
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
            )
            if old is not None:
                _check_same_kind(where, old, index, embedder)
                index.blocks, index.retired = old.blocks, old.retired
            report = _update(folder, where, index, old, embedder, batch_size, show_progress_bar, follow_links)
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
        return cls(folder, *stored.arrays(), stored.model, stored.settings, stored.unusable, report)

    def search(self, query: Query | Sequence[Query], embedder: Embedder | None = None, top_k: int = 10) -> list[Any]:
        """Find the stretches of videos nearest to a query.

        The best frame is joined by those beside it whose scores are nearer to its than to the median of all frames, and
        so is the best of the remaining ones, and so on.

        Args:
            query, embedder, top_k: See [`ImageIndex.search`].

        Returns:
            For one query its list of [`VideoHit`], best first; for a list of queries a list of such lists.

        Raises:
            ValueError, IncompatibleIndexError: See [`ImageIndex.search`].
        """
        check_positive_integer("top_k", top_k)
        single = is_query(query)
        queries: list[Any] = [query] if single else list(query)  # type: ignore[arg-type]
        vectors = encode_queries(queries, embedder, self.model, self.settings)
        hits = [self._stretches(self.vectors @ vector, top_k) for vector in vectors]
        return hits[0] if single else hits

    def _stretches(self, scores: np.ndarray, top_k: int) -> list[VideoHit]:
        """Return the best stretches by the scores of all frames, float32 (frames,)."""
        hits: list[VideoHit] = []
        taken = np.zeros(len(scores), bool)
        median = float(np.median(scores)) if len(scores) else 0.0
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
            hits.append(VideoHit(self.folder / path, float(scores[row]), time_of_best, start, end))
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


def _update(
    folder: Path,
    where: Path,
    index: StoredIndex,
    old: StoredIndex | None,
    embedder: Embedder,
    batch_size: int,
    show_progress_bar: bool | None,
    follow_links: bool,
) -> IndexReport:
    """Read what is new or changed into the next generation of an index, and save as it goes; see [`locked`]."""
    scan = scan_folder(folder, follow_links, VIDEO_SUFFIXES)
    index.refused = scan.unusable
    known: dict[ImageFile, dict[ImageFile, np.ndarray]] = {}  # video -> its frames
    same_sampling = old is not None and old.settings.get("video") == index.settings["video"]
    for frame, vector in old.rows.items() if old and same_sampling else ():
        video = frame._replace(path=FrameSpan.parse(frame.path).path)
        known.setdefault(video, {})[frame] = vector
    # What was refused under other settings may fit these: fewer frames of it, or more pixels allowed.
    if old and same_sampling and old.versions == index.versions and old.max_pixels == index.max_pixels:
        index.unreadable = {video: reason for video, reason in old.unreadable.items() if video in scan.images}
    new = []
    for video in scan.images:
        if video in known:
            index.rows.update(known[video])
        elif video not in index.unreadable:
            new.append(video)
    old_paths = {FrameSpan.parse(frame.path).path for frame in old.rows} if old else set()
    done: list[ImageFile] = []
    next_save = time.monotonic() + SECONDS_BETWEEN_SAVES
    try:
        for (video,) in chunks(new, 1, len(new), show_progress_bar, "video"):
            try:
                index.rows.update(_read_video(folder, video, index.settings, embedder, batch_size))
            except ValueError as error:
                index.unreadable[video] = str(error).removeprefix(f"{printable(folder / video.path)}: ")
            except OSError as error:  # it may be there later
                index.refused.append(UnusableFile(video.path, error.strerror or str(error)))
            else:
                done.append(video)
            if time.monotonic() >= next_save:
                write_index(where, index)
                next_save = time.monotonic() + SECONDS_BETWEEN_SAVES
    except KeyboardInterrupt as error:
        message = f"{len(done)} of {len(new)} new videos are saved in the index; the next run goes on from there"
        raise KeyboardInterrupt(message) from error
    finally:
        write_index(where, index)
    updated = sum(video.path in old_paths for video in done)
    return IndexReport(
        added=len(done) - updated,
        updated=updated,
        removed=len(old_paths - {video.path for video in scan.images}),
        unchanged=len(scan.images) - len(new) - len(index.unreadable.keys() - set(new)),
        unusable=len(index.unusable),
    )


def _read_video(
    folder: Path, video: ImageFile, settings: dict[str, Any], embedder: Embedder, batch_size: int
) -> dict[ImageFile, np.ndarray]:
    """Return the frames of a video that are taken, with their vectors."""
    times: list[float] = []
    with Video(folder / video.path, embedder.max_pixels) as opened:

        def pictures() -> Any:
            for frame in sample_frames(opened, settings["video"]):
                times.append(frame.time)
                yield frame.image

        vectors = dict(embedder.stream_images(pictures(), settings["max_num_patches"], batch_size, False))
    spans = zip(times, [*times[1:], opened.seconds], strict=True)
    return {
        video._replace(path=str(FrameSpan(video.path, *span))): vectors[number]  # type: ignore[misc]
        for number, span in enumerate(spans)
    }
