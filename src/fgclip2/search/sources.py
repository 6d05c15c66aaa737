"""From what users name to the source of an index: a folder, an archive, a Parquet file, a dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..files import printable
from .archives import TarSource, ZipSource
from .scan import FolderSource, Source
from .tables import DatasetSource, ParquetSource

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".gz", ".bz2", ".xz", ".zst")
ALLOWED = "give a folder of images, a .zip or .tar archive of them, or a .parquet file"


def open_source(
    place: str | os.PathLike | Any,
    index_folder: str | os.PathLike | None = None,
    follow_links: bool = False,
    id_column: str | None = None,
    image_column: str | None = None,
) -> Source:
    """Open what an index is to be made of, by its kind.

    Args:
        place: A folder, a `.zip`, `.tar` or `.parquet` file, or a `datasets.Dataset`.
        index_folder: Where the index is kept, which a dataset needs, for it has no place of its own.
        follow_links: See [`scan_folder`].
        id_column, image_column: Of a table, see [`TableSource`].

    Raises:
        ValueError: There is no such thing, or it can't be used.
    """
    columns = (id_column, image_column)
    if not isinstance(place, (str, os.PathLike)):
        if not (hasattr(place, "features") and hasattr(place, "select_columns") and hasattr(place, "__getitem__")):
            raise ValueError(f"an index is not made of a {type(place).__name__}: {ALLOWED}, or a datasets.Dataset")
        if index_folder is None:
            raise ValueError("the index of a dataset needs a place: give `index_folder`")
        return DatasetSource(place, Path(index_folder), *columns)
    path = Path(place)
    suffix = path.suffix.lower()
    if any(columns) and (path.is_dir() or suffix != ".parquet"):
        raise ValueError(f"{printable(path)} is no table: leave out `id_column` and `image_column`")
    if path.is_dir():
        return FolderSource(path.resolve(), follow_links)
    if not path.is_file():
        raise ValueError(f"{printable(path)}: no such folder or file")
    if suffix == ".zip":
        return ZipSource(path.resolve())
    if suffix == ".tar":
        return TarSource(path.resolve())
    if suffix == ".parquet":
        return ParquetSource(path.resolve(), *columns)
    if path.name.lower().endswith(COMPRESSED):
        raise ValueError(
            f"{printable(path)} is compressed as a whole, so that no image can be read without those before it: unpack "
            "it to a .tar, or make a .zip of it"
        )
    raise ValueError(f"{printable(path)} is a file, and none that an index is made of: {ALLOWED}")
