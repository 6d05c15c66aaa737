"""Bringing an index of videos up to date: a video is saved in pieces, and goes on after the last one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..embedding import Embedder, EncodedImage
from ..files import printable
from ..streams import chunks
from .build import SECONDS_BETWEEN_SAVES, IndexReport, check_there
from .extras import NOTHING
from .frames import FrameSpan
from .metadata import Metadata, Records, kinds_of_columns
from .regions import grid_boxes, regions_of
from .scan import ImageFile, Scan, UnusableFile, scan_folder, suffix_of
from .store import StoredIndex, write_index
from .video import VIDEO_SUFFIXES, Frame, Video, sample_frames

FRAMES_PER_PIECE = 64  # that wait in memory, of 1280 x 720 pixels 177 MB, and that are lost if a run is killed


@dataclass
class VideoBuild:
    """One run over the videos of a folder, which reads what is new or changed and saves as it goes.

    While a video is not done, the last of its frames in the index has no end (see [`FrameSpan`]); from that frame on
    the next run samples it as this one would have. Call it under [`locked`].

    Args:
        folder: The folder of videos.
        index_folder: Where their index is kept.
        embedder: Embeds the frames.
        index: The next generation, of which model, settings and kind of regions are known.
        old: The stored index, unless it is made anew.
        batch_size: As in [`Embedder`].
        follow_links: As in [`scan_folder`].
        records: Metadata of the videos; `None`: those that the index has.
    """

    folder: Path
    index_folder: Path
    embedder: Embedder
    index: StoredIndex
    old: StoredIndex | None
    batch_size: int
    follow_links: bool = False
    records: Records | None = None
    _metadata: dict[str, Metadata] = field(default_factory=dict)
    _next_save: float = 0.0

    def run(self, show_progress_bar: bool | None) -> IndexReport:
        """Read, embed, save, and report in numbers of videos.

        Raises:
            KeyboardInterrupt: It was interrupted; what was done is saved, and the message says how much.
        """
        index, old = self.index, self.old
        scan = scan_folder(self.folder, self.follow_links, VIDEO_SUFFIXES)
        index.refused = scan.unusable
        self._metadata = self._metadata_of(scan)
        kinds_of_columns({file.path: its for file in scan.images if (its := self._metadata.get(file.path))})
        known = self._known_frames(frozenset(scan.images))
        new = [video for video in scan.images if not self._keep(video, known.get(video, []))]
        old_paths = {FrameSpan.parse(frame.path).path for frame in old.rows} if old else set()
        old_paths -= {video.path for video in new if video in known}  # which have been begun, but were never done
        done: list[ImageFile] = []
        self._next_save = time.monotonic() + SECONDS_BETWEEN_SAVES
        try:
            for (video,) in chunks(new, 1, len(new), show_progress_bar, "video"):
                pieces = self._read(video, known.get(video, []))
                while True:
                    try:
                        next(pieces)
                    except StopIteration:
                        done.append(video)
                        break
                    except ValueError as error:
                        self._forget(video)
                        index.unreadable[video] = str(error).removeprefix(f"{printable(self.folder / video.path)}: ")
                        break
                    except OSError as error:  # it may be there later, and then goes on where it was
                        index.refused.append(UnusableFile(video.path, error.strerror or str(error)))
                        break
                    self._save_now_and_then()  # whose own errors are not the video's
        except KeyboardInterrupt as error:
            pending = {video.path for video in new} - {video.path for video in done}
            begun = sum(FrameSpan.parse(frame.path).path in pending for frame in index.rows)
            frames = f" and {begun} frames of others" if begun else ""
            saved = f"{len(done)} of {len(new)} new videos{frames} are saved in the index"
            raise KeyboardInterrupt(f"{saved}; the next run goes on from there") from error
        finally:
            write_index(self.index_folder, index)
        updated = sum(video.path in old_paths for video in done)
        return IndexReport(
            added=len(done) - updated,
            updated=updated,
            removed=len(old_paths - {video.path for video in scan.images}),
            unchanged=len(scan.images) - len(new) - len(index.unreadable.keys() - set(new)),
            unusable=len(index.unusable),
        )

    def _metadata_of(self, scan: Scan) -> dict[str, Metadata]:
        """Return the metadata of videos by their paths: those that are given, else those that the index has."""
        if self.records is not None:
            of_videos = [path for path in self.records.metadata if suffix_of(path) in VIDEO_SUFFIXES]
            check_there(of_videos, scan, self.folder, "videos")
            return self.records.metadata
        extras = self.old.extras.items() if self.old else ()
        return {FrameSpan.parse(frame.path).path: its.metadata for frame, its in extras if its.metadata is not None}

    def _known_frames(self, videos: frozenset[ImageFile]) -> dict[ImageFile, list[ImageFile]]:
        """Return the frames that the index has of each of the videos, as they are to be, in their order."""
        index, old = self.index, self.old
        if old is None or old.settings.get("video") != index.settings["video"]:
            return {}
        # What was refused under other settings may fit these: fewer frames of it, or more pixels allowed.
        if old.versions == index.versions and old.max_pixels == index.max_pixels:
            index.unreadable = {video: reason for video, reason in old.unreadable.items() if video in videos}
        if index.regions and old.regions != index.regions:
            return {}
        known: dict[ImageFile, list[ImageFile]] = {}
        for frame in sorted(old.rows, key=lambda frame: FrameSpan.parse(frame.path)):
            known.setdefault(frame._replace(path=FrameSpan.parse(frame.path).path), []).append(frame)
        return known

    def _keep(self, video: ImageFile, frames: list[ImageFile]) -> bool:
        """Keep what is known of a video; return whether nothing is left to do."""
        for frame in frames:
            assert self.old is not None
            extra = self.old.extras.get(frame, NOTHING)
            self.index.rows[frame] = self.old.rows[frame]
            regions = extra.regions if self.index.regions else None
            self.index.set_extra(frame, self._metadata.get(video.path), regions, extra)
        return video in self.index.unreadable or (bool(frames) and FrameSpan.parse(frames[-1].path).has_end)

    def _read(self, video: ImageFile, known: list[ImageFile]) -> Iterator[None]:
        """Take the frames of a video that are not known yet into the index, and yield after each piece of them."""
        last = FrameSpan.parse(known[-1].path) if known else None  # it has no end yet
        with Video(self.folder / video.path, self.embedder.max_pixels) as opened:
            after = last.start if last else None
            frames = sample_frames(opened, self.index.settings["video"], after, len(known))
            for piece in chunks(frames, max(FRAMES_PER_PIECE, self.batch_size)):
                last = self._put(video, last, piece[0].time, piece, self._encode(piece))
                yield
            self._put(video, last, opened.seconds, [], [])

    def _encode(self, piece: list[Frame]) -> list[EncodedImage]:
        """Embed frames, and regions of them where the index has these."""
        images = [frame.image for frame in piece]
        options = (self.index.settings["max_num_patches"], self.batch_size, False)
        found: dict[int, Any]
        if self.index.regions:
            found = dict(self.embedder.stream_encoded(images, [grid_boxes] * len(images), *options))
        else:
            vectors: Any = self.embedder.stream_images(images, *options)
            found = {number: EncodedImage(vector) for number, vector in vectors}
        return [found[number] for number in range(len(images))]

    def _put(
        self,
        video: ImageFile,
        last: FrameSpan | None,
        end: float,
        piece: Sequence[Frame],
        encoded: Sequence[EncodedImage],
    ) -> FrameSpan | None:
        """Put frames of a video behind its last one, which stands for the video up to `end` from now on.

        All at once: an interruption leaves the frames of before or these, and never a video that seems to be done.

        Returns:
            The last frame now, which has no end yet.
        """
        rows, extras = dict(self.index.rows), self.index.extras
        former = None if last is None else video._replace(path=str(last))
        if last is not None and former is not None:
            ended = video._replace(path=str(last._replace(end=end)))
            rows[ended] = rows.pop(former)
            if former in extras:
                extras[ended] = extras[former]
        ends = [*(frame.time for frame in piece[1:]), math.inf][: len(piece)]
        for frame, its_end, its in zip(piece, ends, encoded, strict=True):
            last = FrameSpan(video.path, frame.time, its_end)
            file = video._replace(path=str(last))
            rows[file] = its.vector
            self.index.set_extra(file, self._metadata.get(video.path), regions_of(its))
        self.index.rows = rows
        if former is not None:
            extras.pop(former, None)
        return last

    def _forget(self, video: ImageFile) -> None:
        """Drop the frames of a video that turns out not to be usable."""
        for frame in [frame for frame in self.index.rows if FrameSpan.parse(frame.path).path == video.path]:
            del self.index.rows[frame]
            self.index.extras.pop(frame, None)

    def _save_now_and_then(self) -> None:
        if time.monotonic() >= self._next_save:
            write_index(self.index_folder, self.index)
            self._next_save = time.monotonic() + SECONDS_BETWEEN_SAVES
