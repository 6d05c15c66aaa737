"""Vectors of more images and texts than one process embeds in a day, each written exactly once."""

from .runs import BulkReport, embed_in_bulk
from .settings import BulkSettings

__all__ = ["BulkReport", "BulkSettings", "embed_in_bulk"]
