"""Tar shards in the layout of WebDataset: reading one, counting, and the index.

What is wrong with a shard, an unreadable file included, is a `BrokenShardError`.

A sample is a run of members with one key: `000017.jpg` and `000017.json` (an item in FineHARD's schema, without
`f_path`), or `000017.txt` (the short caption). Nothing is ever extracted to disk.
"""

from __future__ import annotations

import json
import logging
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ..files import IMAGE_SUFFIXES, decode_json, leads_outside, replacing
from ..languages import LANGUAGES, Language
from .readers.checks import shown
from .readers.files import MAX_RECORD_BYTES, scan_items
from .readers.finehard import check_item, item_language, record_of_item
from .records import InvalidRecordError, Record
from .remote import RemoteFile

logger = logging.getLogger(__name__)

INDEX_NAME = "index.json"

_PLACES = "shards must be a folder with *.tar, an index, a .tar, or a list of these"

_BLOCK = 512  # bytes, of the tar format


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
    languages: tuple[int, ...] | None = None  # samples in each of `LANGUAGES`; None: not counted


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
        path: A plain (not compressed) tar file: a local path, or an address that fsspec opens, e.g. `s3://…`. Where
            reading from an address fails, it is tried again (see `RemoteFile`).
        language: The language of all records. None: by `is_cn`, else detected, as `read_finehard` does.
        start: The byte at which the first sample that is wanted begins.

    Raises:
        BrokenShardError: (from every method) The file can't be read, is cut off, corrupt or no tar.
    """

    def __init__(self, path: str, language: Language | None = None, start: int = 0):
        self.path, self._language, self._start = path, language, start

    def __enter__(self) -> ShardReader:
        with ExitStack() as opened:
            try:
                self._file = opened.enter_context(closing(_open(self.path)))
                self._size = self._file.seek(0, os.SEEK_END)
                self._file.seek(self._start)
                self._tar = opened.enter_context(tarfile.open(fileobj=self._file, mode="r:"))
            except (tarfile.TarError, EOFError) as error:
                raise broken_shard(self.path, f"no tar file ({error})") from error
            except OSError as error:
                raise broken_shard(self.path, f"unreadable ({error})") from error
            self._opened = opened.pop_all()  # all is well: closed at the end
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.close()

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
        try:
            self._file.seek(self._tar.offset)
            end = self._file.read(_BLOCK)
        except OSError as error:
            raise broken_shard(self.path, f"unreadable after {last} ({error})") from error
        if end != bytes(_BLOCK):
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
        return record_of_item(self._item(sample), self.read(images[0]), source, self._language)

    def language(self, sample: RawSample) -> Language:
        """Return the language of one sample without reading its image; where its texts can't be read it is a guess."""
        try:
            return self._language or item_language(self._item(sample))
        except BrokenShardError:
            raise
        except InvalidRecordError:
            return LANGUAGES[0]

    def _item(self, sample: RawSample) -> dict[str, Any]:
        """Return what `.json`, `.txt` or both say, in FineHARD's schema."""
        source, item = self.source(sample), {}
        if ".json" in sample.members:
            item = self._decoded(sample.members[".json"], source, decode_json)
            check_item(item, f"{source}.json")
        if ".txt" in sample.members:
            text = self._decoded(sample.members[".txt"], source, bytes.decode).strip()
            # img2dataset repeats the text as `caption`, which is not a second, long one.
            repeated = {"caption": None} if item.get("caption") in (text, None) else {}
            item = {"short_caption": text, **{k: v for k, v in item.items() if v is not None}, **repeated}
        return item

    def _decoded(self, member: tarfile.TarInfo, source: str, decode: Callable[[bytes], Any]) -> Any:
        if member.size > MAX_RECORD_BYTES:
            found, allowed = f"{member.size:,} bytes long", f"at most {MAX_RECORD_BYTES:,} bytes long"
            raise InvalidRecordError(source, member.name, found, allowed)
        content = self.read(member)
        try:
            return decode(content)
        except ValueError as error:
            found = f"malformed ({error}): {shown(content)}"
            raise InvalidRecordError(source, member.name, found, "well-formed UTF-8") from error

    def read(self, member: tarfile.TarInfo) -> bytes:
        """Return the content of a member of a sample.

        Raises:
            BrokenShardError: It can't be read.
        """
        file = self._tar.extractfile(member)
        assert file is not None  # only plain files get this far
        try:
            return file.read()
        except (tarfile.TarError, OSError, EOFError) as error:
            raise broken_shard(self.path, f"unreadable in member {member.name!r} ({error})") from error


def _open(path: str) -> Any:
    """Open a local file, or an address through fsspec, which torch brings."""
    return RemoteFile(path) if "://" in path else Path(path).open("rb")


# ---------------------------------------------------------------------------------------------------------------------
# Which shards there are
# ---------------------------------------------------------------------------------------------------------------------


def list_shards(
    shards: str | Path | Sequence[str | Path],
    count: bool = True,
    languages: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    follow_links: bool = False,
) -> list[Shard]:
    """Find shards and the number of samples in each.

    Args:
        shards: A folder; the path or address of an index (`….json`); a `.tar`; or a list of these. Numbers of samples
            come from the index, which is `index.json` in a folder; without one, each shard's headers are read once.
        count: Whether to count samples; False leaves `samples` at -1 where there is no index.
        languages: Whether to count the samples of each language too. Where an index does not say, texts are read once
            (`write_index` keeps the numbers).
        on_error: "skip" takes what can be read of a broken shard that has to be counted, with a warning.
        follow_links: Also take shards that links in their folder lead to outside it.

    Raises:
        ValueError: There are none, or the index can't be read or names a file outside its folder, also by a link.
        BrokenShardError: A shard had to be counted and is broken.
    """
    found = [shard for place in places_of(shards) for shard in find_shards(place, follow_links)]
    return count_shards(found, [languages] * len(found), on_error) if count else found


def places_of(shards: str | Path | Sequence[str | Path]) -> list[str]:
    """Return one place of shards, or several, as a list.

    Raises:
        ValueError: The list is empty.
    """
    places = [str(shards)] if isinstance(shards, (str, Path)) else [str(place) for place in shards]
    if not places:
        raise ValueError(f"{_PLACES}, got []")
    return places


def find_shards(place: str, follow_links: bool = False) -> list[Shard]:
    """Find the shards of one place, with the numbers that its index has.

    Args:
        place: A folder, an index, or a `.tar`, which is named by the caller wherever a link leads.
        follow_links: Also take shards that links in their folder lead to outside it.

    Raises:
        ValueError: As `list_shards`.
    """
    path = Path(place)
    is_remote, is_index = "://" in place, place.endswith(".json")
    if not is_index and (is_remote or not path.is_dir()):
        return [_existing(place)]
    if is_index or (path / INDEX_NAME).is_file():
        found = read_index(place if is_index else str(path / INDEX_NAME))
    else:
        found = [_existing(str(file)) for file in sorted(path.glob("*.tar"))]
        if not found:
            raise ValueError(f"{_PLACES}; there is no shard in {place}")
    folder = path.parent if is_index else path
    for shard in [] if is_remote or follow_links else found:
        if leads_outside(shard.path, folder):
            raise ValueError(
                f"{shard.path} is a link that leads out of {folder}: set follow_links if you trust it, or name the "
                "shards themselves"
            )
    return found


def _existing(path: str) -> Shard:
    if "://" not in path and not Path(path).is_file():
        raise ValueError(f"{path}: no such shard")
    return Shard(path, -1)


def count_shards(
    shards: Sequence[Shard], languages: Sequence[bool], on_error: Literal["raise", "skip"] = "raise"
) -> list[Shard]:
    """Count the samples of shards that no index has counted.

    Args:
        shards: The shards.
        languages: For each whether the samples of each language are wanted, too.
        on_error: "skip" takes what can be read of a broken shard, with a warning.

    Raises:
        BrokenShardError: A shard had to be counted and is broken.
    """
    wanted = list(zip(shards, languages, strict=True))
    uncounted = [shard for shard, by_language in wanted if _is_uncounted(shard, by_language)]
    if uncounted:
        lacking = "no index" if any(shard.samples < 0 for shard in uncounted) else "no languages in the index"
        read = "headers and texts" if any(languages) else "headers"
        logger.info("%s: reading the %s of %d shards to count their samples", lacking, read, len(uncounted))
    return [
        count_shard(shard.path, by_language, on_error) if _is_uncounted(shard, by_language) else shard
        for shard, by_language in wanted
    ]


def _is_uncounted(shard: Shard, by_language: bool) -> bool:
    return shard.samples < 0 or (by_language and shard.languages is None)


def count_shard(path: str, languages: bool = False, on_error: Literal["raise", "skip"] = "raise") -> Shard:
    """Read a shard to its end and count its samples, and with `languages` those in each language.

    Raises:
        BrokenShardError: It is broken, unless `on_error` is "skip": then what comes before is counted.
    """
    samples, counts = 0, dict.fromkeys(LANGUAGES, 0)
    try:
        with ShardReader(path) as reader:
            for sample in reader.samples():
                if languages:
                    counts[reader.language(sample)] += 1
                samples += 1
    except BrokenShardError as error:
        if on_error == "raise":
            raise
        logger.warning("%s; what comes before, %d samples, is used", error, samples)
    return Shard(path, samples, tuple(counts.values()) if languages else None)


def check_count(path: str, found: int, wanted: int, what: str = "samples") -> None:
    """Check the number of samples that a shard turned out to hold; -1: any is right."""
    if wanted not in (-1, found):
        raise broken_shard(path, f"of {found} {what} in place of {wanted}")


def is_index(path: str | Path) -> bool:
    """Tell by its name whether a path is an index of shards, and of a file here also by its content.

    Records may be in a file of that name too: a list, or an object on each line. An index is one object with `shards`;
    if it is written on several lines, the first is no object by itself.

    Raises:
        ValueError: The file is UTF-16.
    """
    path = Path(path)
    if path.name != INDEX_NAME or not path.is_file():
        return path.name == INDEX_NAME
    first = next(scan_items(path), None)
    return first is None or not isinstance(first.item, dict) or "shards" in first.item


def read_index(path: str) -> list[Shard]:
    """Read an index as `write_index` writes it; shards lie beside it."""
    folder = path.rpartition("/")[0] if "://" in path else str(Path(path).parent)
    with closing(_open(path)) as file:
        content = file.read()
    try:
        rows = decode_json(content)["shards"]
        entries = [(row["name"], row["samples"], row.get("languages")) for row in rows]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(f"{path} is no index of shards ({type(error).__name__}: {error})") from error
    shards = []
    for name, samples, languages in entries:
        good = isinstance(name, str) and name.endswith(".tar") and not set(name) & set("/\\:\0")
        if not good or type(samples) is not int or samples < 0:
            found = shown((name, samples))
            raise ValueError(f"{path}: an entry must be the name of a .tar beside it and a number, got {found}")
        counts: tuple[Any, ...] | None = None
        if languages is not None:
            counts = tuple(languages.get(language) for language in LANGUAGES) if isinstance(languages, dict) else ()
            if not counts or any(type(n) is not int or n < 0 for n in counts) or sum(counts) != samples:
                raise ValueError(
                    f"{path}: languages of {name} must be numbers of en and zh that make up its samples, {samples}, "
                    f"got {shown(languages)}"
                )
        shards.append(Shard(f"{folder}/{name}", samples, counts))
    return shards


def write_index(folder: str | Path, shards: Sequence[Shard]) -> None:
    """Write `index.json`: name, number of samples, and languages if known, of each shard; all lie in `folder`."""
    entries = [
        {"name": Path(shard.path).name, "samples": shard.samples}
        | ({} if shard.languages is None else {"languages": dict(zip(LANGUAGES, shard.languages, strict=True))})
        for shard in shards
    ]
    content = json.dumps({"shards": entries}, ensure_ascii=False, indent=1)
    with replacing(Path(folder) / INDEX_NAME) as unfinished:
        unfinished.write_text(content + "\n", encoding="utf-8")
