"""The image files of a folder."""

from __future__ import annotations

import os
import stat
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ..files import IMAGE_SUFFIXES, sha256_of_file
from ..streams import bounded_map

HASHING_THREADS = 8
ALLOWED_BY = "--follow-links (follow_links=True) uses it"


class ImageFile(NamedTuple):
    """A file, and what tells whether it has changed."""

    path: str  # relative to the folder, with forward slashes
    size: int
    mtime_ns: int
    digest: str = ""  # SHA-256 of its content, where contents are compared too


class UnusableFile(NamedTuple):
    """A file that is not in the index, and why."""

    path: str
    reason: str


class FolderScan(NamedTuple):
    """The files of a folder.

    Args:
        images: Files with the suffix of an image, sorted by path.
        unusable: Links that are not followed and what can't be looked at, sorted by path.
        left_out: How many other files there are, by suffix in lower case.
    """

    images: list[ImageFile]
    unusable: list[UnusableFile]
    left_out: dict[str, int]


def scan_folder(folder: Path, follow_links: bool = False) -> FolderScan:
    """List the image files of a folder and its subfolders, by suffix; hidden ones are left out.

    One entry that can't be looked at ends neither its folder nor the scan.

    Args:
        folder: Resolved path.
        follow_links: Follow links to folders, and to files outside `folder`. By default only links to files inside are
            used, so that nothing outside can get into an index. Each folder is entered once, however many links lead
            to it.
    """
    images: list[ImageFile] = []
    unusable: list[UnusableFile] = []
    left_out: Counter[str] = Counter()
    waiting = [""]  # folders to enter, relative, with a slash at the end
    links_to_folders: list[str] = []  # entered last, so that a folder is rather found under its own name
    entered: set[tuple[int, int]] = set()
    while waiting or links_to_folders:
        prefix = waiting.pop() if waiting else links_to_folders.pop()
        try:
            if follow_links:
                status = os.stat(folder / prefix)  # noqa: PTH116  # as in the loop below
                if (status.st_dev, status.st_ino) in entered:
                    continue
                entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder / prefix) as listing:
                entries = list(listing)
        except OSError as error:
            unusable.append(UnusableFile(prefix.rstrip("/"), error.strerror or str(error)))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = prefix + entry.name
            _, dot, ending = entry.name.rpartition(".")
            suffix = f"{dot}{ending.lower()}" if dot else ""
            try:
                is_link = entry.is_symlink()
                if entry.is_dir():
                    if not is_link:
                        waiting.append(path + "/")
                    elif follow_links:
                        links_to_folders.append(path + "/")
                    else:
                        unusable.append(UnusableFile(path, f"a link to a folder; {ALLOWED_BY}"))
                elif suffix not in IMAGE_SUFFIXES:
                    left_out[suffix] += 1
                elif is_link and not follow_links and not Path(entry.path).resolve().is_relative_to(folder):
                    unusable.append(UnusableFile(path, f"a link to a file outside the folder; {ALLOWED_BY}"))
                else:
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        images.append(ImageFile(path, status.st_size, status.st_mtime_ns))
                    else:
                        unusable.append(UnusableFile(path, "not a regular file"))
            except (OSError, RuntimeError) as error:  # RuntimeError: what pathlib calls a circle of links
                unusable.append(UnusableFile(path, getattr(error, "strerror", None) or str(error)))
    return FolderScan(sorted(images), sorted(unusable), dict(sorted(left_out.items())))


def with_digests(folder: Path, files: list[ImageFile]) -> list[ImageFile]:
    """Return the files with the hashes of their contents; one that can't be read keeps none."""

    def digest(file: ImageFile) -> str:
        try:
            return sha256_of_file(folder / file.path)
        except OSError:
            return ""

    digests = bounded_map(digest, files, HASHING_THREADS, 4 * HASHING_THREADS)
    return [file._replace(digest=value) for file, value in zip(files, digests, strict=True)]
