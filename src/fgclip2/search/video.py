"""Frames of video files: local files only, sampled at an interval or where the picture changes.

FFmpeg, by PyAV, opens many things that are no videos, among them lists of addresses and of other files. So a video is
handed to it as an open file, of which it may neither open another one nor guess a format that is not in `CONTAINERS`.
"""

from __future__ import annotations

import math
import stat
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .._imports import require
from ..checks import is_number
from ..files import printable

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".flv", ".ogv")
)
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf,flv,ogg"  # FFmpeg's names
MAX_SECONDS = 6 * 3600  # of a video
TOO_LONG = f"it takes more than {MAX_SECONDS // 3600} hours"
MAX_FRAMES = 20_000  # that are taken of a video
LONGEST_SIDE = 1280  # of a frame that is taken: more than models see by default, and what bounds memory

SCENES = "scenes"
SECONDS_BETWEEN_LOOKS = 0.5  # at frames that may begin a scene
LONGEST_SCENE = 10.0  # seconds until another frame is taken, even if little has changed
SCENE_CHANGE = 0.1  # mean difference of the colours of two small pictures, of 0 to 1, that begins a scene
SMALL_SIDE = 32
MILLISECOND = 1e-3


def check_sampling(sampling: Any) -> None:
    """Raise a `ValueError` unless `sampling` is `"scenes"` or a number of seconds, 0.01 at least."""
    if sampling != SCENES and not (is_number(sampling) and 0.01 <= sampling <= MAX_SECONDS):
        raise ValueError(
            f"video sampling must be 'scenes' or a number of seconds from 0.01 to {MAX_SECONDS:,}, got {sampling!r}"
        )


@dataclass(frozen=True)
class Frame:
    """A frame of a video: seconds from the start, and the picture, upright and RGB."""

    time: float
    image: Image.Image


class Video:
    """A video file that is open; a context manager.

    Args:
        path: A regular file.
        max_pixels: The most pixels of a frame.

    Attributes:
        seconds: The end of the last frame that was decoded.
        damaged: How many packets could not be decoded.

    Raises:
        ValueError: It is no video, damaged, too long, of too many pixels, or not a regular file.
        OSError: It can't be opened.
        ImportError: PyAV is not installed.
    """

    def __init__(self, path: Path, max_pixels: int):
        self._av = require("av", "video")
        self.path, self.max_pixels = path, max_pixels
        self.seconds, self.damaged = 0.0, 0
        self._counts_times = False  # for its frames have none
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise ValueError(f"{printable(path)}: not a regular file")
        self._open()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()
        self._file.close()

    def _open(self) -> None:
        self._file = self.path.open("rb")
        try:
            options = {"format_whitelist": CONTAINERS, "protocol_whitelist": "none"}
            self._container = self._av.open(self._file, container_options=options)
            self._stream = self._start()
        except Exception as error:
            self._file.close()
            raise self._unusable(error) from error

    def _start(self) -> Any:
        streams = self._container.streams.video
        if not streams:
            raise ValueError("it has no pictures")
        (stream, *_) = streams
        context = stream.codec_context
        if context.width * context.height > self.max_pixels:
            raise ValueError(
                f"its frames have {context.width} x {context.height} pixels, more than max_pixels={self.max_pixels}"
            )
        context.options = {"max_pixels": str(self.max_pixels)}  # the size of frames may change on the way
        stream.thread_type = "AUTO"
        length = self._container.duration
        if length is not None and length / self._av.time_base > MAX_SECONDS:
            raise ValueError(TOO_LONG)
        return stream

    def decode(self) -> Iterator[tuple[float, Any]]:
        """Yield all frames from here on as (seconds from the start, frame of PyAV); damaged packets are left out.

        Raises:
            ValueError: It is too long, or so damaged that nothing can be decoded.
        """
        start = float((self._stream.start_time or 0) * (self._stream.time_base or 0))
        rate = float(self._stream.average_rate or 25)
        count = 0
        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                except self._av.error.FFmpegError:
                    self.damaged += 1
                    continue
                for frame in frames:
                    self._counts_times |= frame.time is None
                    time = count / rate if frame.time is None else max(0.0, frame.time - start)
                    if time > MAX_SECONDS:
                        raise ValueError(TOO_LONG)
                    self.seconds = max(self.seconds, time + 1 / rate)
                    count += 1
                    yield time, frame
        except self._av.error.FFmpegError as error:  # the end is missing
            self.damaged += 1
            if not count:
                raise self._unusable(error) from error
        except ValueError as error:
            raise self._unusable(error) from error
        if not count:
            raise self._unusable(ValueError("no frame of it can be decoded"))

    def decode_from(self, time: float) -> Iterator[tuple[float, Any]]:
        """Yield the frames from one on, as [`decode`] does.

        Args:
            time: Of that frame, to a millisecond. Where it can't be sought, the video is decoded from its start.

        Raises:
            ValueError: There is no such frame; or see [`decode`].
        """
        self.seek(time)
        frames = self.decode()
        first = _frame_at(frames, time)
        if first is None or self._counts_times:
            self.__exit__()
            self._open()
            frames = self.decode()
            first = _frame_at(frames, time)
        if first is None:
            raise self._unusable(ValueError(f"it has no frame at {time:.3f} seconds any more"))
        yield first
        yield from frames

    def seek(self, time: float) -> None:
        """Go to the last key frame before a time."""
        offset = time + float((self._stream.start_time or 0) * self._stream.time_base)
        with suppress(self._av.error.FFmpegError):  # what can't be sought in is decoded from its start
            self._container.seek(math.floor(offset / self._stream.time_base), stream=self._stream)

    def _unusable(self, error: Exception) -> Exception:
        if isinstance(error, (ImportError, MemoryError)):
            return error
        reason = str(error) if type(error) is ValueError else getattr(error, "strerror", None) or str(error)
        return ValueError(f"{printable(self.path)}: {reason}")


def _frame_at(frames: Iterator[tuple[float, Any]], time: float) -> tuple[float, Any] | None:
    """Return the frame at a time, which is known to a millisecond, if it is among these; the next ones stay in them."""
    with suppress(ValueError):  # none of them can be decoded
        for its_time, frame in frames:
            if its_time > time - MILLISECOND:
                return (its_time, frame) if its_time < time + MILLISECOND else None
    return None


def picture_of(frame: Any) -> Image.Image:
    """Return a frame of PyAV as an upright RGB picture of at most `LONGEST_SIDE` pixels a side."""
    shrinking = max(1.0, max(frame.width, frame.height) / LONGEST_SIDE)
    size = (max(1, round(frame.width / shrinking)), max(1, round(frame.height / shrinking)))
    image = frame.reformat(*size, format="rgb24").to_image()
    turns = round(frame.rotation / 90) % 4  # as phones note it, against the clock
    return image.rotate(90 * turns, expand=True) if turns else image


def sample_frames(video: Video, sampling: str | float, after: float | None = None, already: int = 0) -> Iterator[Frame]:
    """Yield the frames of a video that stand for it.

    With a number, a frame every so many seconds. With `"scenes"`, frames are looked at every half second, and one is
    taken where its colours, in 32 x 32 pixels, differ from those of the last one taken by more than a tenth of the
    range from black to white on average: at cuts, and in the course of pans and fades. Where little changes, one is
    taken every 10 seconds.

    Args:
        video: The video.
        sampling: See [`check_sampling`].
        after: The time, to a millisecond, of the last frame that was taken before: sampling goes on behind it.
        already: How many frames were taken before.

    Raises:
        ValueError: See [`Video`]; or more than `MAX_FRAMES` would be taken.
    """
    step = SECONDS_BETWEEN_LOOKS if sampling == SCENES else float(sampling)
    next_look, last_time, taken = 0.0, -math.inf, already - (after is not None)
    last = np.zeros((SMALL_SIDE, SMALL_SIDE, 3))
    for time, frame in video.decode() if after is None else video.decode_from(after):
        if time < next_look - 1e-6:  # seconds of frames are rounded
            continue
        next_look = (math.floor(time / step + 1e-6) + 1) * step
        if sampling == SCENES:
            small = frame.reformat(SMALL_SIDE, SMALL_SIDE, format="rgb24").to_ndarray() / 255  # (32, 32, 3)
            if time - last_time < LONGEST_SCENE - 1e-6 and np.abs(small - last).mean() <= SCENE_CHANGE:
                continue
            last, last_time = small, time
        taken += 1
        if taken > MAX_FRAMES:
            raise ValueError(f"{printable(video.path)}: more than {MAX_FRAMES:,} frames of it would be taken")
        if after is None or taken > already:  # else it is the one that was taken last
            yield Frame(time, picture_of(frame))
    if video.damaged:
        warnings.warn(
            f"{printable(video.path)}: {video.damaged} of its packets are damaged; the frames of the others are used",
            stacklevel=2,
        )


def read_frame(path: Path, time: float, max_pixels: int) -> Image.Image:
    """Return the picture of a video at a time, in seconds, upright and RGB.

    Raises:
        ValueError, OSError: It can't be read; see [`Video`].
    """
    with Video(path, max_pixels) as video:
        video.seek(time)
        frame = None
        for its_time, frame in video.decode():  # noqa: B007  # the last one, where the end has gone
            if its_time >= time - MILLISECOND:
                break
        return picture_of(frame)
