"""Images where a data set keeps them: in folders or in zip archives, read without unpacking."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol

from ..errors import UnreadableImageError

MAX_IMAGE_BYTES = 2**29  # of a member of an archive, which may be packed to very little
_BROKEN_MEMBER = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)


class StoredImage(Protocol):
    """An encoded image, wherever it is stored; `str` says where."""

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            UnreadableImageError: It is gone or broken.
        """


@dataclass(frozen=True)
class ImageFile:
    """An image on disk, or a member of a zip archive."""

    path: Path  # of the image, or of the archive
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}:{self.member}"

    def read(self) -> bytes:
        """The encoded image.

        Raises:
            UnreadableImageError: It is gone, or broken within its archive.
        """
        try:
            return self.path.read_bytes() if self.member is None else _read_member(self.path, self.member)
        except (OSError, ValueError, KeyError, RuntimeError, EOFError, *_BROKEN_MEMBER) as error:
            raise UnreadableImageError(f"{self}: {error}") from error


def _read_member(archive: Path, member: str) -> bytes:
    size = open_archive(archive).getinfo(member).file_size
    if size > MAX_IMAGE_BYTES:
        raise ValueError(f"{size} bytes unpacked; allowed: {MAX_IMAGE_BYTES}")
    return open_archive(archive).read(member)


@lru_cache(maxsize=64)
def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip archive; threads may read from it.

    Raises:
        ValueError: It is truncated or no zip archive.
    """
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no whole zip archive ({error}); download it again") from error


class ImageStore:
    """Finds the images of a data set by the names that its records give.

    Names are relative to a folder of their makers' machines, so the longest end of a name that is found counts:
    `data/LIT-CN/images/1.jpg` may be `1.jpg` here. Nothing outside the folder is ever found.

    Args:
        folder: Has the images, or zip archives of them, in it or in `images/`; or one archive. Subfolders on disk must
            be those of the names; within archives any.

    Raises:
        ValueError: There is no such folder, or an archive is broken.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not self.folder.exists():
            raise ValueError(f"{self.folder}: no such folder of images")
        if self.folder.is_file():
            self.archives, self._folders = [self.folder], []
        else:
            self._folders = [each for each in (self.folder, self.folder / "images") if each.is_dir()]
            self.archives = [path for each in self._folders for path in sorted(each.glob("*.zip"))]

    def find(self, name: str) -> ImageFile | None:
        """The image of a name, or None.

        Raises:
            ValueError: The name leaves the folder, or fits several images equally well.
        """
        parts = _safe_parts(name)
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            for folder in self._folders:
                if _is_file(folder / end):
                    return ImageFile(folder / end)
            found = self._members_ending_in(end)
            if len(found) > 1:
                raise ValueError(f"the image {name!r} may be {found[0]} or {found[1]}; allowed: one image of that name")
            if found:
                return found[0]
        return None

    def _members_ending_in(self, end: str) -> list[ImageFile]:
        named = self._members.get(PurePosixPath(end).name, [])
        return [image for image in named if f"/{image.member}".endswith(f"/{end}")]

    @cached_property
    def _members(self) -> dict[str, list[ImageFile]]:
        """Base name -> members of the archives."""
        members = defaultdict(list)
        for archive in self.archives:
            for member in open_archive(archive).namelist():
                if not member.endswith("/") and ".." not in PureWindowsPath(member).parts:
                    members[PurePosixPath(member).name].append(ImageFile(archive, member))
        return dict(members)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a caption in place of a name is longer than any name may be
        return False


def _safe_parts(name: str) -> tuple[str, ...]:
    """The parts of a name, as any system would read it; absolute ones are taken from their root on."""
    path = PureWindowsPath(name)
    parts = path.parts[1:] if path.anchor else path.parts
    if not parts or ".." in parts or "\0" in name or "://" in name:
        raise ValueError(f"the image {name!r}; allowed: a path without '..'")
    return parts
