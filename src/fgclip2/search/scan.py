"""Where the entries of an index come from: what a source offers, and the first of them, the image files of a folder."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from ..embedding import ImageInput
from ..files import IMAGE_SUFFIXES, sha256_of_file
from ..streams import bounded_map
from .metadata import Records

HASHING_THREADS = 8
OUTSIDE = re.compile(r"^/|(^|/)\.\.(/|$)" if os.name != "nt" else r"^[/\\]|:|(^|[/\\])\.\.([/\\]|$)")  # of paths
ALLOWED_BY = "--follow-links (follow_links=True) uses it"


class ImageFile(NamedTuple):
    """An entry of an index: its id, and what tells whether its image has changed.

    Attributes:
        path: The id: the path relative to the folder, with forward slashes; the name in an archive; the id of a row of
            a table, or one of the user's own.
        size: Of the image file in bytes.
        mtime_ns: When the image has changed, as far as the source knows.
        digest: Of its content, where contents are compared.
    """

    path: str
    size: int
    mtime_ns: int
    digest: str = ""

    def has_stamp_of(self, former: ImageFile) -> bool:
        """Return whether size and time are those of a former entry, which may have a digest even if this has none."""
        return self.size == former.size and self.mtime_ns == former.mtime_ns

    def has_content_of(self, former: ImageFile) -> bool:
        """Return whether both have a digest, and the same."""
        return bool(self.digest) and self.digest == former.digest


class UnusableFile(NamedTuple):
    """A file that is not in the index, and why."""

    path: str
    reason: str


class Scan(NamedTuple):
    """The entries of a source.

    Args:
        images: Of a folder or an archive the files with the suffix of an image, sorted by path.
        unusable: What can't be looked at or must not be used, such as links that lead outside, sorted by path.
        left_out: How many other files there are, by suffix in lower case.
        records: Metadata and boxes that the source has itself; `None`: it has none.
    """

    images: list[ImageFile]
    unusable: list[UnusableFile]
    left_out: dict[str, int]
    records: Records | None = None


class Source(Protocol):
    """Where the entries of an index come from.

    Attributes:
        kind: One word, which the index keeps to refuse another kind in its place.
        path: Of the folder or the file, resolved.
        tells_contents: Every scan has digests of contents, by which changes are seen; else size and time tell them.
        adds_entries: It brings entries for those that the index has, of which it can't read an image again.
    """

    kind: str
    path: Path
    tells_contents: bool
    adds_entries: bool

    def describe(self) -> dict[str, Any]:
        """Return what the manifest of the index keeps of the source, `kind` and options that reading it again needs."""

    def scan(self, known: Iterable[ImageFile], compare_contents: bool) -> Scan:
        """List the entries.

        Args:
            known: Those that the index has.
            compare_contents: Read all contents for their digests, also where size and time tell changes by default.
        """

    def image(self, entry: str) -> ImageInput:
        """Return the image of an entry for the embedder: a path, or a function that gives the encoded image."""

    def images(self, files: list[ImageFile]) -> Iterable[ImageInput]:
        """Return the images of many entries, in an order that suits the source: that of [`Scan.images`]."""

    def shown_path(self, entry: str) -> Path:
        """Return the path that a hit has, which need not be that of a file."""


class FolderSource:
    """The image files of a folder and its subfolders; see [`scan_folder`]."""

    kind = "folder"
    tells_contents = False
    adds_entries = False

    def __init__(self, path: Path, follow_links: bool = False):
        self.path, self.follow_links = path, follow_links

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def scan(self, known: Iterable[ImageFile], compare_contents: bool) -> Scan:
        scan = scan_folder(self.path, self.follow_links, known={file.path: file for file in known})
        return scan._replace(images=with_digests(self.path, scan.images)) if compare_contents else scan

    def image(self, entry: str) -> Path:
        return self.path / entry

    def images(self, files: list[ImageFile]) -> list[Path]:
        return [self.path / file.path for file in files]

    def shown_path(self, entry: str) -> Path:
        return self.path / entry


def scan_folder(
    folder: Path,
    follow_links: bool = False,
    suffixes: frozenset[str] = IMAGE_SUFFIXES,
    known: Mapping[str, ImageFile] = MappingProxyType({}),
) -> Scan:
    """List the image files of a folder and its subfolders, by suffix; hidden ones are left out.

    One entry that can't be looked at ends neither its folder nor the scan.

    Args:
        folder: Resolved path.
        follow_links: Follow links to folders, and to files outside `folder`. By default only links to files inside are
            used, so that nothing outside can get into an index. Each folder is entered once, however many links lead
            to it.
        suffixes: Of the files to list, in lower case.
        known: Path -> an entry, which is listed itself where size and time are still its own: of 100,000 files no
            second copies are made, through which Python's garbage collector would have to go.
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
            suffix = suffix_of(entry.name)
            try:
                is_link = entry.is_symlink()
                if entry.is_dir():
                    if not is_link:
                        waiting.append(path + "/")
                    elif follow_links:
                        links_to_folders.append(path + "/")
                    else:
                        unusable.append(UnusableFile(path, f"a link to a folder; {ALLOWED_BY}"))
                elif suffix not in suffixes:
                    left_out[suffix] += 1
                elif is_link and not follow_links and not Path(entry.path).resolve().is_relative_to(folder):
                    unusable.append(UnusableFile(path, f"a link to a file outside the folder; {ALLOWED_BY}"))
                else:
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        file, former = ImageFile(path, status.st_size, status.st_mtime_ns), known.get(path)
                        images.append(former if former is not None and file.has_stamp_of(former) else file)
                    else:
                        unusable.append(UnusableFile(path, "not a regular file"))
            except (OSError, RuntimeError) as error:  # RuntimeError: what pathlib calls a circle of links
                unusable.append(UnusableFile(path, getattr(error, "strerror", None) or str(error)))
    return Scan(sorted(images), sorted(unusable), dict(sorted(left_out.items())))


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, with its dot; empty where it has none."""
    _, dot, ending = name.rpartition(".")
    return f"{dot}{ending.lower()}" if dot else ""


def with_digests(folder: Path, files: list[ImageFile]) -> list[ImageFile]:
    """Return the files with the hashes of their contents; one that can't be read keeps none."""

    def digest(file: ImageFile) -> str:
        try:
            return sha256_of_file(folder / file.path)
        except OSError:
            return ""

    digests = bounded_map(digest, files, HASHING_THREADS, 4 * HASHING_THREADS)
    return [file._replace(digest=value) for file, value in zip(files, digests, strict=True)]
