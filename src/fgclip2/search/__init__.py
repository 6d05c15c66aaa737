"""Search folders of images by text (Chinese or English), by image or by vector."""

from .build import IndexReport
from .index import ImageIndex, RerankedSearchHit, SearchHit, nearest
from .queries import NEGATIVE_WEIGHT, CombinedQuery, Region
from .scan import UnusableFile

__all__ = [
    "NEGATIVE_WEIGHT",
    "CombinedQuery",
    "ImageIndex",
    "IndexReport",
    "Region",
    "RerankedSearchHit",
    "SearchHit",
    "UnusableFile",
    "nearest",
]
