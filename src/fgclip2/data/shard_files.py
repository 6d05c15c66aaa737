"""Tar shards in the layout of WebDataset: reading one, counting, the index, and writing them.

A sample is a run of members with one key: `000017.jpg` and `000017.json` (an item in FineHARD's schema, without
`f_path`), or `000017.txt` (the short caption). Nothing is ever extracted to disk.
"""

from __future__ import annotations

import io
import json
import logging
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from PIL import Image

from ..checks import check_positive_integer
from ..errors import UnreadableImageError
from ..files import IMAGE_SUFFIXES, decode_json, replacing
from ..languages import Language
from .readers.checks import shown
from .readers.finehard import check_item, item_of_record, record_of_item
from .records import InvalidRecordError, Record, RecordDataset, open_record_image

logger = logging.getLogger(__name__)

INDEX_NAME = "index.json"

_BLOCK = 512  # bytes, of the tar format
_SUFFIX_OF_FORMAT = {"MPO": ".jpg", "JPEG2000": ".jp2"}  # of Pillow's formats; the others are called like their suffix


class BrokenShardError(InvalidRecordError):
    """A shard is cut off, corrupt, or not what its index says; the message names it and the member."""


def broken_shard(path: str, found: str) -> BrokenShardError:
    """Return the error about the shard at `path`."""
    return BrokenShardError(path, "the shard", found, "a whole, uncompressed tar of plain files, as its index says")


@dataclass(frozen=True)
class Shard:
    """A tar file and the number of its samples."""

    path: str  # local, or an address that fsspec opens
    samples: int  # -1: not counted


@dataclass(frozen=True)
class RawSample:
    """The members of one sample, unread."""

    key: str
    members: dict[str, tarfile.TarInfo]  # by suffix, e.g. ".jpg", in lower case


# ---------------------------------------------------------------------------------------------------------------------
# Reading one shard
# ---------------------------------------------------------------------------------------------------------------------


class ShardReader:
    """The samples of one shard, in order.

    Args:
        path: A plain (not compressed) tar file: a local path, or an address that fsspec opens, e.g. `s3://…`.
        language: The language of all records. None: by `is_cn`, else detected, as `read_finehard` does.
    """

    def __init__(self, path: str, language: Language | None = None):
        self.path, self._language = path, language

    def __enter__(self) -> ShardReader:
        self._file = _open(self.path)
        try:
            self._size = self._file.seek(0, os.SEEK_END)
            self._file.seek(0)
            self._tar = tarfile.open(fileobj=self._file, mode="r:")
        except (tarfile.TarError, EOFError) as error:
            self._file.close()
            raise broken_shard(self.path, f"no tar file ({error})") from error
        return self

    def __exit__(self, *exception: object) -> None:
        self._tar.close()
        self._file.close()

    def samples(self) -> Iterator[RawSample]:
        """Group the members by key, reading their headers only.

        Raises:
            BrokenShardError: The file is cut off or corrupt, or a member is neither file nor folder.
        """
        sample: RawSample | None = None
        for member in self._members():
            # A name is cut at the first dot of its last part, as WebDataset does.
            path = PurePosixPath(member.name)
            stem, _, ending = path.name.partition(".")
            key, suffix = str(path.with_name(stem)) if stem else member.name, f".{ending.lower()}"
            if sample is None or key != sample.key:
                if sample is not None:
                    yield sample
                sample = RawSample(key, {})
            if suffix in sample.members:
                raise broken_shard(self.path, f"holding member {member.name!r} twice")
            sample.members[suffix] = member
        if sample is not None:
            yield sample

    def _members(self) -> Iterator[tarfile.TarInfo]:
        last = "its start"
        while True:
            try:
                member = self._tar.next()
            except (tarfile.TarError, EOFError, OSError, ValueError) as error:
                raise broken_shard(self.path, f"cut off or corrupt after {last} ({error})") from error
            if member is None:
                break
            self._tar.members = []  # type: ignore[attr-defined]  # else it would keep every header
            last = f"member {member.name!r}"
            if member.offset_data + member.size > self._size:
                raise broken_shard(self.path, f"cut off within {last}")
            if member.isreg() and not member.issparse():
                yield member
            elif not member.isdir():
                raise broken_shard(self.path, f"holding a link or special file, {last}")
        # A whole archive ends with zeros; `tarfile` itself takes a corrupt header, or none, for the end.
        self._file.seek(self._tar.offset)
        if self._file.read(_BLOCK) != bytes(_BLOCK):
            raise broken_shard(self.path, f"cut off or corrupt after {last}")

    def source(self, sample: RawSample) -> str:
        """Return where a sample is, for error messages."""
        return f"{self.path}:{sample.key}"

    def record(self, sample: RawSample) -> Record:
        """Read and check one sample.

        Raises:
            InvalidRecordError: It lacks an image or a caption, or a field of its item is wrong.
        """
        source = self.source(sample)
        images = [member for suffix, member in sample.members.items() if suffix in IMAGE_SUFFIXES]
        if len(images) != 1:
            allowed = f"1, beside .json or .txt (images end with {', '.join(sorted(IMAGE_SUFFIXES))})"
            found = f"{len(images)} in {list(sample.members)}"
            raise InvalidRecordError(source, "the number of images", found, allowed)
        item: Any = {}  # in FineHARD's schema: of `.json`, of `.txt`, or of both
        if ".json" in sample.members:
            item = self._decoded(sample.members[".json"], source, decode_json)
            check_item(item, f"{source}.json")
        if ".txt" in sample.members:
            text = self._decoded(sample.members[".txt"], source, bytes.decode).strip()
            # img2dataset repeats the text as `caption`, which is not a second, long one.
            repeated = {"caption": None} if item.get("caption") in (text, None) else {}
            item = {"short_caption": text, **{k: v for k, v in item.items() if v is not None}, **repeated}
        return record_of_item(item, self._read(images[0]), source, self._language)

    def _decoded(self, member: tarfile.TarInfo, source: str, decode: Callable[[bytes], Any]) -> Any:
        content = self._read(member)
        try:
            return decode(content)
        except ValueError as error:
            found = f"malformed ({error}): {shown(content)}"
            raise InvalidRecordError(source, member.name, found, "well-formed UTF-8") from error

    def _read(self, member: tarfile.TarInfo) -> bytes:
        file = self._tar.extractfile(member)
        assert file is not None  # only plain files get this far
        try:
            return file.read()
        except (tarfile.TarError, OSError, EOFError) as error:
            raise broken_shard(self.path, f"unreadable in member {member.name!r} ({error})") from error


def _open(path: str) -> BinaryIO:
    """Open a local file, or an address through fsspec, which torch brings."""
    if "://" not in path:
        return Path(path).open("rb")
    import fsspec

    return fsspec.open(path, "rb").open()


# ---------------------------------------------------------------------------------------------------------------------
# Which shards there are
# ---------------------------------------------------------------------------------------------------------------------


def list_shards(shards: str | Path | Sequence[str | Path], count: bool = True) -> list[Shard]:
    """Find shards and the number of samples in each.

    Args:
        shards: A folder; the path or address of an index (`….json`); a `.tar`; or a list of `.tar`. Numbers of samples
            come from the index, which is `index.json` in a folder; without one, each shard's headers are read once.
        count: Whether to count samples; False leaves `samples` at -1 where there is no index.

    Raises:
        ValueError: There are none, or the index can't be read or names a file outside its folder.
        BrokenShardError: A shard had to be counted and is broken.
    """
    if isinstance(shards, (str, Path)):
        text = str(shards)
        if text.endswith(".json"):
            return read_index(text)
        if "://" not in text and Path(text).is_dir():
            if (Path(text) / INDEX_NAME).is_file():
                return read_index(str(Path(text) / INDEX_NAME))
            shards = sorted(Path(text).glob("*.tar"))
        else:
            shards = [text]
    paths = [str(path) for path in shards]
    if not paths:
        raise ValueError("shards must be a folder with *.tar, an index, or a list of .tar; there is no shard")
    missing = [path for path in paths if "://" not in path and not Path(path).is_file()]
    if missing:
        raise ValueError(f"{missing[0]}: no such shard")
    if not count:
        return [Shard(path, -1) for path in paths]
    logger.info("no index: reading the headers of %d shards to count their samples", len(paths))
    return [Shard(path, count_samples(path)) for path in paths]


def count_samples(path: str) -> int:
    """Read a shard's headers to its end and count its samples."""
    with ShardReader(path) as reader:
        return sum(1 for _ in reader.samples())


def check_count(shard: Shard, found: int) -> None:
    """Check the number of samples that a shard turned out to hold."""
    if shard.samples not in (-1, found):
        raise broken_shard(shard.path, f"of {found} samples in place of {shard.samples}")


def read_index(path: str) -> list[Shard]:
    """Read an index as `write_index` writes it; shards lie beside it."""
    folder = path.rpartition("/")[0] if "://" in path else str(Path(path).parent)
    with _open(path) as file:
        content = file.read()
    try:
        entries = [(entry["name"], entry["samples"]) for entry in decode_json(content)["shards"]]
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"{path} is no index of shards ({type(error).__name__}: {error})") from error
    for name, samples in entries:
        entry = (name, samples)
        good = isinstance(name, str) and name.endswith(".tar") and not set(name) & set("/\\:\0")
        if not good or type(samples) is not int or samples < 0:
            raise ValueError(f"{path}: an entry must be the name of a .tar beside it and a number, got {entry!r}")
    return [Shard(f"{folder}/{name}", samples) for name, samples in entries]


def write_index(folder: str | Path, shards: Sequence[Shard]) -> None:
    """Write `index.json`: the name and the number of samples of each shard, which all lie in `folder`."""
    entries = [{"name": Path(shard.path).name, "samples": shard.samples} for shard in shards]
    content = json.dumps({"shards": entries}, ensure_ascii=False, indent=1)
    with replacing(Path(folder) / INDEX_NAME) as unfinished:
        unfinished.write_text(content + "\n", encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------------------------------


def write_shards(dataset: RecordDataset, folder: str | Path, samples_per_shard: int = 1000) -> list[Shard]:
    """Write any data set of records as tar shards (`000000.tar`, ...) with an index, images unchanged byte for byte.

    Args:
        dataset: The records, written in their order; decoded (PIL) images are stored as PNG.
        folder: A new or empty folder.
        samples_per_shard: The number of samples of all shards but the last.

    Returns:
        The shards, as the index has them.

    Raises:
        ValueError: The folder holds something, or a record can't be used.
        UnreadableImageError: An image is missing or of no known format (only its beginning is looked at).
    """
    check_positive_integer("samples_per_shard", samples_per_shard)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ValueError(f"{folder} must be a new or empty folder")
    shards = []
    for number, start in enumerate(range(0, len(dataset), samples_per_shard)):
        indices = range(start, min(start + samples_per_shard, len(dataset)))
        path = folder / f"{number:06d}.tar"
        with replacing(path) as unfinished, tarfile.open(unfinished, "w") as tar:
            for index in indices:
                record = dataset[index]
                content, suffix = _encoded_image(record)
                item = json.dumps(item_of_record(record), ensure_ascii=False).encode()
                for name, data in ((f"{index:09d}{suffix}", content), (f"{index:09d}.json", item)):
                    header = tarfile.TarInfo(name)  # neither owner nor time: the same records give the same file
                    header.size = len(data)
                    tar.addfile(header, io.BytesIO(data))
        shards.append(Shard(str(path), len(indices)))
    write_index(folder, shards)
    return shards


def _encoded_image(record: Record) -> tuple[bytes, str]:
    """Return the bytes of an image and the suffix of their format."""
    if isinstance(record.image, Image.Image):
        buffer = io.BytesIO()
        open_record_image(record).save(buffer, "PNG")
        return buffer.getvalue(), ".png"
    try:
        content = Path(record.image).read_bytes() if isinstance(record.image, str) else record.image
        with Image.open(io.BytesIO(content)) as image:
            name = image.format or ""
    except Exception as error:  # on corrupt data decoders raise nearly everything
        named = record.image if isinstance(record.image, str) else "the encoded image"
        raise UnreadableImageError(f"{record.source}: {named}: {error}") from error
    suffix = _SUFFIX_OF_FORMAT.get(name, f".{name.lower()}")
    if suffix not in IMAGE_SUFFIXES:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UnreadableImageError(f"{record.source}: the format of the image must be one of {known}, got {name}")
    return content, suffix
