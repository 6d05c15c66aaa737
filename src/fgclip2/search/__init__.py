"""Search folders of images by text (Chinese or English), by image or by vector, and for near-duplicates."""

from .build import IndexReport
from .duplicates import Duplicate, DuplicateGroup, find_duplicates
from .exact import nearest
from .index import ImageIndex, RerankedSearchHit, SearchHit
from .queries import NEGATIVE_WEIGHT, CombinedQuery, Region
from .scan import UnusableFile
from .verification import DamagedFile

__all__ = [
    "NEGATIVE_WEIGHT",
    "CombinedQuery",
    "DamagedFile",
    "Duplicate",
    "DuplicateGroup",
    "ImageIndex",
    "IndexReport",
    "Region",
    "RerankedSearchHit",
    "SearchHit",
    "UnusableFile",
    "find_duplicates",
    "nearest",
]
