"""Search images of folders, archives and tables by text (Chinese or English), image or vector, and near-duplicates."""

from .build import IndexReport
from .duplicates import Duplicate, DuplicateGroup, find_duplicates
from .exact import nearest
from .hits import IndexEntry, RerankedSearchHit, RerankedVideoHit, SearchHit, VideoHit
from .index import ImageIndex
from .queries import NEGATIVE_WEIGHT, CombinedQuery, Region
from .scan import UnusableFile
from .verification import DamagedFile
from .video_index import VideoIndex

__all__ = [
    "NEGATIVE_WEIGHT",
    "CombinedQuery",
    "DamagedFile",
    "Duplicate",
    "DuplicateGroup",
    "ImageIndex",
    "IndexEntry",
    "IndexReport",
    "Region",
    "RerankedSearchHit",
    "RerankedVideoHit",
    "SearchHit",
    "UnusableFile",
    "VideoHit",
    "VideoIndex",
    "find_duplicates",
    "nearest",
]
