"""Readers: from files in the formats of the field to records."""

from .ccmb import read_ccmb, read_flickr30k_cna
from .finehard import read_finehard, read_fineregion_cn
from .folders import read_image_folder
from .pairs import Columns, from_dataset, read_pairs
from .zero import read_zero

__all__ = [
    "Columns",
    "from_dataset",
    "read_ccmb",
    "read_finehard",
    "read_fineregion_cn",
    "read_flickr30k_cna",
    "read_image_folder",
    "read_pairs",
    "read_zero",
]
