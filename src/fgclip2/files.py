"""Files that every part of the package reads or writes: JSON in UTF-8, and writing that is whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")

UTF8_BOM = b"\xef\xbb\xbf"
BYTES_PER_READ = 1 << 20

# What people keep images in and Pillow decodes: AVIF in newer releases, HEIC with the extra `heic`.
IMAGE_SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".jp2",
        ".avif",
        ".heic",
        ".heif",
        ".ppm",
        ".pgm",
    ]
)


# Control characters, line separators, halves of surrogate pairs, and what changes the direction of writing.
_NOT_TO_BE_SHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def user_cache() -> Path:
    """Return the cache folder of this package, where the platform has such: XDG, Apple or %LOCALAPPDATA%."""
    if sys.platform == "win32":
        root = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "fgclip2"


def printable(text: str | os.PathLike) -> str:
    r"""Return a file name or another text from outside as people can safely be shown it, on one line.

    Line breaks, other control characters, characters that change the direction of writing and bytes that are not
    UTF-8 become escapes such as `\n` and `\u202e`; all else stays as it is, emoji and Chinese included.
    """
    return _NOT_TO_BE_SHOWN.sub(lambda found: found[0].encode("unicode_escape").decode(), os.fspath(text))


def leads_outside(path: str | os.PathLike, folder: str | os.PathLike) -> bool:
    """Tell if links on the way from a folder to a path lead out of the folder, which may be a link itself."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))  # unlike resolve(), never raises


def decode_json(content: bytes) -> Any:
    """Decode JSON in UTF-8, with or without a byte order mark; other encodings are an error, not a guess.

    Raises:
        ValueError: The content is not UTF-8 or not JSON.
    """
    try:
        return json.loads(content.removeprefix(UTF8_BOM).decode())
    except RecursionError as error:
        raise ValueError("lists or objects are nested too deeply") from error


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not UTF-8 or not JSON; the message names it.
    """
    try:
        return decode_json(Path(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON in UTF-8, or is broken or cut off: {error}; get it again") from error


def patiently(action: Callable[[], Result]) -> Result:
    """Return what `action` returns, trying again for about a second while it raises a `PermissionError`.

    Windows raises one while another process has the file open, or is about to replace it.
    """
    for seconds in (0.01, 0.05, 0.2, 0.7):
        try:
            return action()
        except PermissionError:
            time.sleep(seconds)
    return action()


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal, reading a MiB at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(BYTES_PER_READ):
            digest.update(piece)
    return digest.hexdigest()


def flush_to_disk(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, would survive a power cut."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return  # Windows opens no folders, and writes their entries by itself
    handle = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError:
        if not is_folder:  # some network file systems know no fsync of folders
            raise
    finally:
        os.close(handle)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a name beside `path` to write to, which takes the place of `path` when the block ends without an error.

    A reader sees the old file or the whole new one, also where two processes write at once, and after a power cut;
    after an error nothing is left behind. Beside its final place, because a rename is all or nothing only within one
    file system.

    Raises:
        OSError: `path` can't be written. Where the disk is full, of which the system names no file, it names `path`.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield unfinished
        flush_to_disk(unfinished)
        patiently(lambda: unfinished.replace(path))
        flush_to_disk(path.parent)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            error.filename = os.fspath(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def check_writable(folder: str | os.PathLike) -> None:
    """Make sure that a folder for results is there or can be made, before there is anything to lose; make nothing.

    Raises:
        OSError: Nothing can be written there.
    """
    nearest = next(place for place in (Path(folder), *Path(folder).absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        error.filename = os.fspath(folder)  # rather than the temporary file
        raise


@contextmanager
def new_folder(folder: str | os.PathLike) -> Iterator[Path]:
    """Yield an empty folder that takes the name `folder` at the end; if the work on it fails, nothing is left of it.

    Raises:
        ValueError: `folder` is a file, or has something in it.
    """
    folder = Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder: choose a new name, or remove it first")
    staging = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    staging.mkdir(parents=True)
    try:
        yield staging
        for path in (*staging.rglob("*"), staging):
            flush_to_disk(path)
        if folder.exists():
            folder.rmdir()  # an empty one: Windows does not rename over it
        patiently(lambda: staging.replace(folder))
        flush_to_disk(folder.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
