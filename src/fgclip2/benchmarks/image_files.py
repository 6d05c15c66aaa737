"""Images where a data set keeps them: in folders or in zip archives, read without unpacking."""

from __future__ import annotations

import lzma
import os
import stat
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO, Protocol, cast

from ..errors import UnreadableImageError
from ..files import leads_outside
from ..modeling.inputs import read_size

MAX_IMAGE_BYTES = 2**29  # of a member of an archive, which may be packed to very little
_BROKEN_MEMBER = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)
_UTF8_FLAG = 0x800  # APPNOTE.TXT of PKWARE, appendix D


class StoredImage(Protocol):
    """An encoded image, wherever it is stored; `str` says where."""

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            UnreadableImageError: It is gone or broken.
        """


@dataclass(frozen=True)
class ImageFile:
    """An image on disk, or a member of a zip archive."""

    path: Path  # of the image, or of the archive
    member: str | None = None  # as `archive_members` has it

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}:{self.member}"

    def read(self) -> bytes:
        """Return the encoded image.

        Raises:
            UnreadableImageError: It is gone, or broken within its archive.
        """
        try:
            with self._open() as file:
                return file.read()
        except (OSError, ValueError, KeyError, RuntimeError, EOFError, *_BROKEN_MEMBER) as error:
            raise UnreadableImageError(f"{self}: {error}") from error

    def size(self) -> tuple[int, int] | None:
        """Return width and height of the upright image, by its header; `None` where that can't be read."""
        try:
            with self._open() as file:
                return read_size(file)
        except Exception:  # on corrupt data decoders raise nearly everything
            return None

    def stamp(self) -> tuple[int, ...]:
        """Return what tells it from another of its name without reading it: bytes, and in an archive the CRC-32."""
        if self.member is not None:
            info = archive_members(self.path)[self.member]
            return info.file_size, info.CRC
        return (self.path.stat().st_size,) if self.path.exists() else ()

    def _open(self) -> BinaryIO:
        if self.member is None:
            return self.path.open("rb")
        info = archive_members(self.path)[self.member]
        if info.file_size > MAX_IMAGE_BYTES:
            raise ValueError(f"{info.file_size} bytes unpacked; it must be at most {MAX_IMAGE_BYTES}")
        return cast(BinaryIO, open_archive(self.path).open(info))


@lru_cache(maxsize=64)
def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip archive; threads may read from it.

    Raises:
        ValueError: It is truncated or no zip archive.
    """
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is no whole zip archive ({error}); download it again, or unpack it if it is of another kind"
        ) from error


@lru_cache(maxsize=64)
def archive_members(path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the files in a zip archive by their names: Unicode, parts separated by `/`, none of them `..`; no links.

    Archives made on Windows may separate parts by a backslash, and have names in GBK or CP437; those of macOS have
    UTF-8 without saying so.

    Raises:
        ValueError: It is truncated or no zip archive.
    """
    members = {}
    infos = open_archive(path).infolist()
    encoding = _encoding_of_names(infos)
    for info in infos:
        name = info.orig_filename  # `filename` has its separators changed, also within characters of GBK
        if _is_unmarked(info):
            name = name.encode("cp437").decode(encoding)  # which zipfile takes it for
        name = name.replace("\\", "/")
        is_link = stat.S_ISLNK(info.external_attr >> 16)  # the mode that Unix gave it
        if not (name.endswith("/") or is_link or ".." in PureWindowsPath(name).parts):
            members[name] = info
    return members


def _is_unmarked(info: zipfile.ZipInfo) -> bool:
    return not info.flag_bits & _UTF8_FLAG and not info.orig_filename.isascii()


def _encoding_of_names(infos: Iterable[zipfile.ZipInfo]) -> str:
    """Return the encoding of an archive's names that don't say theirs.

    Nearly all European names are well-formed GB18030 too, but few are GB 2312, the characters that Chinese names mostly
    have: those with rarer ones are told by the others.
    """
    names = [info.orig_filename.encode("cp437") for info in infos if _is_unmarked(info)]
    if all(_is_in(name, "utf-8") for name in names):
        return "utf-8"
    common = sum(_is_in(name, "gb2312") for name in names)
    return "gb18030" if 2 * common >= len(names) and all(_is_in(name, "gb18030") for name in names) else "cp437"


def _is_in(name: bytes, encoding: str) -> bool:
    try:
        name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def check_inside(path: Path, folder: Path, follow_links: bool) -> None:
    """Check that no link leads from a folder to a path outside it, unless links are to be followed.

    Raises:
        ValueError: One does.
    """
    if not follow_links and leads_outside(path, folder):
        raise ValueError(
            f"{path} is a link to {os.path.realpath(path)}, outside {folder}: if you trust it, follow links "
            "(`--follow-links`, follow_links=True), or give the folder of images itself (`--images`, images=)"
        )


class ImageStore:
    """Finds the images of a data set by the names that its records give.

    Names are relative to a folder of their makers' machines, so the longest end of a name that is found counts:
    `data/LIT-CN/images/1.jpg` may be `1.jpg` here. Nothing outside the folder is ever found, by a name or by a link.

    Args:
        folder: Has the images, or zip archives of them, in it or in `images/`; or one archive. Subfolders on disk must
            be those of the names; within archives any.
        follow_links: Also find what links in the folder lead to outside it.

    Raises:
        ValueError: There is no such folder, an archive is broken, or a link to one outside the folder.
    """

    def __init__(self, folder: str | Path, follow_links: bool = False):
        self.folder, self._follow_links = Path(folder), follow_links
        if not self.folder.exists():
            raise ValueError(f"{self.folder}: no such folder of images")
        if self.folder.is_file():
            self.archives, self._folders = [self.folder], []
        else:
            self._folders = [place for place in (self.folder, self.folder / "images") if place.is_dir()]
            self.archives = [path for place in self._folders for path in sorted(place.glob("*.zip"))]
            for archive in self.archives:
                check_inside(archive, self.folder, follow_links)
        self._listings: dict[Path, dict[str, Path]] = {}  # of folders, by names in small letters

    def find(self, name: str) -> ImageFile | None:
        """Return the image of a name, or `None`.

        Raises:
            ValueError: The name leaves the folder, by itself or by a link, or fits several images equally well.
        """
        parts = _safe_parts(name)
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            for folder in self._folders:
                if _is_file(folder / end):
                    check_inside(folder / end, self.folder, self._follow_links)
                    return ImageFile(folder / end)
            named = self._members.get(PurePosixPath(end).name.lower(), [])
            found = [image for image in named if f"/{image.member}".endswith(f"/{end}")]
            if len(found) > 1:
                raise ValueError(f"the image {name!r} may be {found[0]} or {found[1]}: keep one image of that name")
            if found:
                return found[0]
        return None

    def find_other_case(self, name: str) -> str | None:
        """Return where an image is whose name differs only in capitals from one that is not found."""
        parts = _safe_parts(name)
        for start in range(len(parts)):
            for folder in self._folders:
                found = self._file_in_other_case(folder, parts[start:])
                if found is not None:
                    return found.relative_to(self.folder).as_posix()
            end = "/".join(parts[start:]).lower()
            for image in self._members.get(parts[-1].lower(), []):
                if f"/{image.member}".lower().endswith(f"/{end}"):
                    return str(image)
        return None

    def _file_in_other_case(self, folder: Path, parts: Sequence[str]) -> Path | None:
        path: Path | None = folder
        for part in parts:
            if path is None or not path.is_dir():
                return None
            if path not in self._listings:
                self._listings[path] = {child.name.lower(): child for child in path.iterdir()}
            path = self._listings[path].get(part.lower())
        return path if path is not None and path.is_file() else None

    @cached_property
    def _members(self) -> dict[str, list[ImageFile]]:
        """The members of the archives by their base names in small letters."""
        members = defaultdict(list)
        for archive in self.archives:
            for member in archive_members(archive):
                members[PurePosixPath(member).name.lower()].append(ImageFile(archive, member))
        return dict(members)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a caption in place of a name is longer than any name may be
        return False


def _safe_parts(name: str) -> tuple[str, ...]:
    """Return the parts of a name, as any system would read it; absolute ones are taken from their root on."""
    path = PureWindowsPath(name)
    parts = path.parts[1:] if path.anchor else path.parts
    if not parts or ".." in parts or "\0" in name or "://" in name:
        raise ValueError(f"the image {name!r} must be a path without '..'")
    return parts
