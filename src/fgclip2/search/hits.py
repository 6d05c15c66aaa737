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
