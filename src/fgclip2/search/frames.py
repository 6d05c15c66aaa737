"""How frames of videos are named in an index, and how times are shown."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from ..files import printable

# A frame is an entry of the index as a media fragment (https://www.w3.org/TR/media-frags/): up to the next frame taken,
# or without an end where that is not known yet.
_FRAME = re.compile(r"(.+)#t=(\d+\.\d{3})(?:,(\d+\.\d{3}))?", re.DOTALL)


class FrameSpan(NamedTuple):
    """The stretch that a frame stands for: the video's path below the folder, and seconds from its start.

    The last frame of a video that is not indexed to its end has an `end` of infinity.
    """

    path: str
    start: float
    end: float = math.inf

    @classmethod
    def parse(cls, entry: str) -> FrameSpan:
        """Return the span of an entry of the index, such as `clips/a.mp4#t=2.000,4.500`, or `clips/a.mp4#t=2.000`."""
        found = _FRAME.fullmatch(entry)
        if found is None:
            raise ValueError(f"{printable(entry)!r} is no frame of a video")
        return cls(found[1], float(found[2]), math.inf if found[3] is None else float(found[3]))

    def __str__(self) -> str:
        return f"{self.path}#t={self.start:.3f}" + (f",{self.end:.3f}" if self.has_end else "")

    @property
    def has_end(self) -> bool:
        """Whether it is known how far the frame stands for its video."""
        return self.end < math.inf


def clock(seconds: float) -> str:
    """Return a time as players show it, e.g. `1:02:03.5`."""
    tenths = round(seconds * 10)
    hours, minutes = divmod(tenths // 600, 60)
    rest = f"{tenths % 600 / 10:04.1f}"
    return f"{hours}:{minutes:02}:{rest}" if hours else f"{minutes}:{rest}"
