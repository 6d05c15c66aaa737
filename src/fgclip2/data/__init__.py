"""Records and their readers, tar shards, validation, and the bilingual demo data."""

from .readers import (
    Columns,
    from_dataset,
    read_ccmb,
    read_finehard,
    read_fineregion_cn,
    read_flickr30k_cna,
    read_image_folder,
    read_pairs,
    read_zero,
)
from .records import InvalidRecordError, Record, RecordDataset, Region, concatenate, open_record_image
from .shard_files import BrokenShardError
from .shard_records import read_shards
from .shard_writing import write_shards
from .shards import ShardedRecords
from .validation import Report, validate

__all__ = [
    "BrokenShardError",
    "Columns",
    "InvalidRecordError",
    "Record",
    "RecordDataset",
    "Region",
    "Report",
    "ShardedRecords",
    "concatenate",
    "from_dataset",
    "open_record_image",
    "read_ccmb",
    "read_finehard",
    "read_fineregion_cn",
    "read_flickr30k_cna",
    "read_image_folder",
    "read_pairs",
    "read_shards",
    "read_zero",
    "validate",
    "write_shards",
]
