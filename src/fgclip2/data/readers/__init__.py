"""Readers: from files in the formats of the field to records."""

from .finehard import read_finehard, read_fineregion_cn
from .folders import read_image_folder
from .pairs import Columns, from_dataset, read_pairs

__all__ = ["Columns", "from_dataset", "read_finehard", "read_fineregion_cn", "read_image_folder", "read_pairs"]
