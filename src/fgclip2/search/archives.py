"""Images in zip and tar archives, which are read in place: nothing is ever extracted to disk."""

from __future__ import annotations

import hashlib
import lzma
import math
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from ..files import IMAGE_SUFFIXES, printable
from .scan import OUTSIDE, ImageFile, Scan, UnusableFile, suffix_of

MAX_MEMBER_BYTES = 1 << 28  # 256 MiB of a member once it is unpacked; its pixels are limited when it is decoded
NOT_READABLE = (
    *(OSError, EOFError, ValueError, RuntimeError, NotImplementedError),
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
)


class Member(NamedTuple):
    """A file in an archive, whatever the kind of archive.

    Attributes:
        path: Its name in the archive.
        size: In bytes, once it is unpacked.
        mtime_ns: When it was changed; 0 in archives that have a digest.
        digest: Of its content, if the archive has one.
        info: By which the archive finds it.
        problem: Why it can't be used; empty if it can.
    """

    path: str
    size: int
    mtime_ns: int
    digest: str
    info: Any
    problem: str = ""


class ArchiveSource:
    """The image files of an archive.

    Names are only names here: one that leads outside is left out all the same, and so are links, encrypted members and
    those of more than `MAX_MEMBER_BYTES`. Of two members of one name the later one counts, as when they are unpacked.
    """

    kind: str
    tells_contents: bool
    adds_entries = False
    _members: dict[str, Member]

    def __init__(self, path: Path):
        self.path = path

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def scan(self, known: Iterable[ImageFile], compare_contents: bool) -> Scan:
        images, unusable, left_out = [], [], Counter[str]()
        for member in self._members.values():
            parts = member.path.split("/")
            if parts[0] == "__MACOSX" or any(part.startswith(".") and part.strip(".") for part in parts):
                continue  # hidden, and what macOS adds
            suffix = suffix_of(parts[-1])
            if suffix not in IMAGE_SUFFIXES:
                left_out[suffix] += 1
            elif problem := member.problem or self._problem(member):
                unusable.append(UnusableFile(member.path, problem))
            else:
                images.append(ImageFile(member.path, member.size, member.mtime_ns, member.digest))
        if compare_contents and not self.tells_contents:
            images = [file._replace(digest=self._digest(file.path)) for file in images]
        return Scan(sorted(images), sorted(unusable), dict(sorted(left_out.items())))

    def image(self, entry: str) -> Callable[[], bytes]:
        return partial(self._read, entry)

    def images(self, files: list[ImageFile]) -> list[Callable[[], bytes]]:
        return [self.image(file.path) for file in files]

    def shown_path(self, entry: str) -> Path:
        return self.path / entry

    def _problem(self, member: Member) -> str:
        if OUTSIDE.search(member.path) or "\\" in member.path:
            return "its name leads out of the archive"
        if member.size > MAX_MEMBER_BYTES:
            return f"it unpacks to {member.size:,} bytes, more than {MAX_MEMBER_BYTES:,}"
        return ""

    def _digest(self, entry: str) -> str:
        try:
            return hashlib.sha256(self._read(entry)).hexdigest()
        except ValueError:
            return ""

    def _read(self, entry: str) -> bytes:
        """Return the content of a member.

        Raises:
            ValueError: It is not there any more, or can't be read.
        """
        member = self._members.get(entry)
        problem = "it has no such member" if member is None else member.problem or self._problem(member)
        if member is None or problem:
            raise ValueError(f"{printable(self.path / entry)}: {problem}")
        try:
            content = self._content(member)
        except NOT_READABLE as error:
            raise ValueError(f"{printable(self.path / entry)}: {type(error).__name__}: {error}") from error
        if len(content) != member.size:
            raise ValueError(f"{printable(self.path / entry)}: {len(content):,} of {member.size:,} bytes are there")
        return content

    def _content(self, member: Member) -> bytes:
        raise NotImplementedError


class ZipSource(ArchiveSource):
    """The image files of a zip archive, whose directory has a checksum of each."""

    kind = "zip"
    tells_contents = True

    def __init__(self, path: Path):
        super().__init__(path)
        try:
            self._archive = zipfile.ZipFile(path)
        except NOT_READABLE as error:
            raise ValueError(f"{printable(path)} is not a zip archive, or is damaged: {error}") from error
        members = [_member_of_zip(info) for info in self._archive.infolist() if not info.is_dir()]
        self._members = {member.path: member for member in members}

    def _content(self, member: Member) -> bytes:
        with self._archive.open(member.info) as file:  # which checks the checksum at the end
            return file.read(member.size + 1)


class TarSource(ArchiveSource):
    """The image files of a tar archive that is not compressed as a whole."""

    kind = "tar"
    tells_contents = False

    def __init__(self, path: Path):
        super().__init__(path)
        self._lock = Lock()  # the archive is one file with one position
        try:
            self._archive = tarfile.open(path, "r:")  # noqa: SIM115  # closed when the source is not used any more
            infos = self._archive.getmembers()
        except NOT_READABLE as error:
            raise ValueError(f"{printable(path)} is not a tar archive, or is damaged: {error}") from error
        members = [_member_of_tar(info) for info in infos if not info.isdir()]
        self._members = {member.path: member for member in members}

    def _content(self, member: Member) -> bytes:
        with self._lock:
            file = self._archive.extractfile(member.info)
            return file.read(member.size + 1) if file else b""


def _member_of_zip(info: zipfile.ZipInfo) -> Member:
    name = info.filename
    if not info.flag_bits & 0x800:  # not said to be UTF-8, which zipfile takes for the code page of IBM's first PC
        name = _decode(name.encode("cp437", "replace"), name)
    problem = "it is encrypted" if info.flag_bits & 1 else ""
    digest = f"crc32:{info.CRC:08x}:{info.file_size}"
    return Member(name.removeprefix("./"), info.file_size, 0, digest, info, problem)


def _decode(raw: bytes, fallback: str) -> str:
    """Return a file name in UTF-8 or, as Windows in China writes it, in GB 18030."""
    for encoding in ("utf-8", "gb18030"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return fallback


def _member_of_tar(info: tarfile.TarInfo) -> Member:
    problem = "" if info.isreg() else "not a regular file; links in an archive are not followed"
    changed = info.mtime * 1e9  # infinite where the archive says so, or a time that large
    mtime_ns = int(changed) if math.isfinite(changed) else 0
    return Member(info.name.removeprefix("./"), info.size, mtime_ns, "", info, problem)
