"""Search folders of images by text (Chinese or English), by image or by vector."""

from .build import IndexReport
from .index import ImageIndex, RerankedSearchHit, SearchHit, nearest
from .scan import UnusableFile

__all__ = ["ImageIndex", "IndexReport", "RerankedSearchHit", "SearchHit", "UnusableFile", "nearest"]
