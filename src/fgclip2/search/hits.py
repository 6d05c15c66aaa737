"""What searches find."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..embedding import PhraseMatch
from .extras import Regions
from .metadata import Metadata


class SearchHit(NamedTuple):
    """A found image or region, and the cosine of its vector with the query's.

    Attributes:
        path: Of the image file; of an entry that is no file, where it is: `photos.zip/a/dog.jpg`.
        score: The cosine.
        probability: That of a match, by the embedder's calibration; `None`: it has none for this query.
        id: Of the entry: in a folder or an archive its path there.
        metadata: Of the entry.
        box: Of a region, (x1, y1, x2, y2) in pixels of the upright image; `None` of a whole image.
    """

    path: Path
    score: float
    probability: float | None = None
    id: str = ""
    metadata: Metadata = {}
    box: tuple[float, float, float, float] | None = None


class RerankedSearchHit(NamedTuple):
    """A found image after re-ranking: what [`fgclip2.embedding.RerankedHit`] has, and path, id and metadata.

    `probability` is that of a [`SearchHit`], of the cosine too.
    """

    path: Path
    score: float
    reranked: float
    phrases: list[PhraseMatch]
    probability: float | None = None
    id: str = ""
    metadata: Metadata = {}


class VideoHit(NamedTuple):
    """A stretch of a video that was found.

    Attributes:
        path: The video.
        score: The cosine of its best frame with the query; where regions were searched, of the best region of that.
        time: Of that frame, in seconds from the start of the video.
        start, end: Of the stretch, in seconds.
        metadata: Of the video.
        box: Of the region, (x1, y1, x2, y2) in pixels of the frame as [`read_frame`] gives it; `None` of a whole frame.
    """

    path: Path
    score: float
    time: float
    start: float
    end: float
    metadata: Metadata = {}
    box: tuple[float, float, float, float] | None = None


class RerankedVideoHit(NamedTuple):
    """A found stretch after re-ranking: what a [`VideoHit`] has, and of its best frame what a [`RerankedHit`] has."""

    path: Path
    score: float
    time: float
    start: float
    end: float
    reranked: float
    phrases: list[PhraseMatch]
    metadata: Metadata = {}


class IndexEntry(NamedTuple):
    """An entry of an index.

    Attributes:
        id: The path in a folder or an archive, the id of a row, or one of the user's own.
        vector: Of the whole image, float32 (D,), L2-normalised.
        metadata: Its metadata, empty if there are none.
        regions: Its regions; `None`: it has none.
    """

    id: str
    vector: np.ndarray
    metadata: Metadata
    regions: Regions | None
