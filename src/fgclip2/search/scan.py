"""The image files of a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..files import IMAGE_SUFFIXES


class ImageFile(NamedTuple):
    """A file, and what tells whether it has changed."""

    path: str  # relative to the folder, with forward slashes
    size: int
    mtime_ns: int


class UnusableFile(NamedTuple):
    """A file that is not in the index, and why."""

    path: str
    reason: str


def scan_folder(folder: Path) -> tuple[list[ImageFile], list[UnusableFile]]:
    """List the image files of a folder and its subfolders, by suffix; hidden ones are left out.

    Links to folders are not followed, nor links to files outside the folder: nothing outside can get into an index.

    Args:
        folder: Resolved path.

    Returns:
        The images, sorted by path, and what is refused or can't be looked at.
    """
    images: list[ImageFile] = []
    unusable: list[UnusableFile] = []
    for path in _walk(folder, unusable):
        relative = path.relative_to(folder).as_posix()
        try:
            inside = path.resolve(strict=True).is_relative_to(folder)
            status = path.stat()
        except OSError as error:
            unusable.append(UnusableFile(relative, error.strerror or str(error)))
            continue
        if not inside:
            unusable.append(UnusableFile(relative, "a link to a file outside the folder"))
        elif not stat.S_ISREG(status.st_mode):
            unusable.append(UnusableFile(relative, "not a regular file"))
        else:
            images.append(ImageFile(relative, status.st_size, status.st_mtime_ns))
    return sorted(images), sorted(unusable)


def _walk(folder: Path, unusable: list[UnusableFile]) -> Iterator[Path]:
    """Yield files with the suffix of an image, and note folders that can't be entered."""

    def note(error: OSError) -> None:
        relative = Path(error.filename).relative_to(folder).as_posix()
        unusable.append(UnusableFile(relative, error.strerror or str(error)))

    for root, subfolders, names in os.walk(folder, onerror=note):
        for name in subfolders:
            if (Path(root) / name).is_symlink():
                relative = (Path(root) / name).relative_to(folder).as_posix()
                unusable.append(UnusableFile(relative, "a link to a folder, which is not followed"))
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(root) / name
