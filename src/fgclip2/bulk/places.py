"""Folders and files on disk or at addresses that fsspec opens, as file systems of pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._imports import require


def open_place(place: str) -> tuple[Any, str]:
    """Return the `pyarrow.fs.FileSystem` of a path or an address, and the path in it.

    Raises:
        ValueError: No file system is known for the address, or its package is not installed.
    """
    fs = require("pyarrow.fs", "parquet")
    if "://" not in place:
        return fs.LocalFileSystem(), str(Path(place).expanduser().absolute())
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(place)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{place} can't be opened: {error}") from error
    return fs.PyFileSystem(fs.FSSpecHandler(filesystem)), path


def absolute(place: str | None) -> str | None:
    """Return a path as it is from any working folder; addresses and `None` are returned as they are."""
    return place if place is None or "://" in place else str(Path(place).expanduser().absolute())


def kind_of(filesystem: Any, path: str) -> str:
    """Return `"file"`, `"folder"` or `"nothing"`."""
    fs = require("pyarrow.fs", "parquet")
    kinds = {fs.FileType.File: "file", fs.FileType.Directory: "folder"}
    return kinds.get(filesystem.get_file_info(path).type, "nothing")


def list_files(filesystem: Any, folder: str) -> list[str]:
    """Return the paths of all files below a folder, relative to it and sorted; hidden ones are left out."""
    fs = require("pyarrow.fs", "parquet")
    infos = filesystem.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    names = (info.path[len(folder) :].lstrip("/") for info in infos if info.type == fs.FileType.File)
    return sorted(name for name in names if not any(part.startswith((".", "_")) for part in name.split("/")))
