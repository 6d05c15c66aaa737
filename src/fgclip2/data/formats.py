"""One door to all formats of training data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .readers import (
    Columns,
    read_ccmb,
    read_finehard,
    read_fineregion_cn,
    read_flickr30k_cna,
    read_image_folder,
    read_pairs,
    read_zero,
)
from .records import RecordDataset
from .shard_records import read_shards

WITH_IMAGES = ("folder", "shards")  # formats that have their images in themselves
FORMATS = ("finehard", "fineregion-cn", "ccmb", "flickr30k-cna", "zero", "pairs", "folder", "shards")


def for_each_source(name: str, values: Sequence[Any] | None, count: int) -> list[Any]:
    """Spread one value over all sources; several must be one for each.

    Raises:
        ValueError: There are neither one nor as many; names the option `name`.
    """
    if not values:
        return [None] * count
    if len(values) == 1:
        return [*values] * count
    if len(values) != count:
        raise ValueError(f"`{name}` must have one value, or one for each of {count} sources, got {len(values)}")
    return list(values)


def open_records(
    path: str,
    format: str,
    images_folder: str | Path | None = None,
    language: Any = None,
    columns: Columns | None = None,
    follow_links: bool = False,
) -> RecordDataset:
    """Open the records of one path, in any of [`FORMATS`], as a data set that is read in any order.

    Args:
        path: File or folder.
        format: One of [`FORMATS`].
        images_folder: Where the images are; `None`: beside the records.
        language: Language of all records; `None`: by each record, or detected.
        columns: Names of the columns of `"pairs"`.
        follow_links: Also read what links in the folders lead to outside them.

    Raises:
        ValueError: The records can't be read, or a folder of images is given for one.
    """
    if format in WITH_IMAGES:
        if images_folder:
            raise ValueError(f"images_folder must be left out for {path}, which has its images, got {images_folder}")
        read_whole = read_shards if format == "shards" else read_image_folder
        return read_whole(path, language=language, follow_links=follow_links)
    if format == "pairs":
        return read_pairs(path, images_folder, columns or Columns(), language, follow_links)
    if format == "zero":
        return read_zero(path, images_folder, language=language, follow_links=follow_links)
    images_folder = images_folder or str(path if Path(path).is_dir() else Path(path).parent)
    if format == "fineregion-cn":
        return read_fineregion_cn(path, images_folder, language or "zh", follow_links)
    if format in ("ccmb", "flickr30k-cna"):
        read = read_ccmb if format == "ccmb" else read_flickr30k_cna
        return read(path, images_folder, language or "zh", follow_links)
    return read_finehard(path, images_folder, language, follow_links)
