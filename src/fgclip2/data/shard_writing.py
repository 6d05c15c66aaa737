"""Writing records as tar shards, by several processes, and going on after any interruption.

Shard number k holds the records from `k * samples_per_shard` on, so that its bytes depend on nothing else. What the
index will say of it is in the folder `unfinished` before the shard has its name, and the index comes last: half a
folder is never taken for a whole one.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from PIL import Image
from tqdm.auto import tqdm

from ..checks import check_choice, check_positive_integer
from ..errors import UnreadableImageError
from ..files import IMAGE_SUFFIXES, read_json, replacing
from ..languages import LANGUAGES
from ..modeling.inputs import open_image
from ..processes import end_with_parent
from .readers.finehard import item_of_record
from .records import Record, RecordDataset, open_record_image
from .shard_files import INDEX_NAME, Shard, read_index, write_index

SETTINGS_NAME = "conversion.json"
ERRORS_NAME = "left_out.jsonl"
UNFINISHED = "unfinished"  # the folder of what the index will say, while there is none

_FORMAT = 1  # of the settings
_SUFFIX_OF_FORMAT = {"MPO": ".jpg", "JPEG2000": ".jp2"}  # of Pillow's formats; the others are called like their suffix
_HOPELESS = 256  # records of a shard, none of which can be used: perhaps it is the disk, not the records
_TAR_OVERHEAD = 2048  # bytes of a sample: two headers, and what fills its members up to whole blocks
_LOOKED_AT = 64  # records by which others are judged


def write_shards(
    dataset: RecordDataset,
    folder: str | Path,
    samples_per_shard: int = 1000,
    processes: int = 1,
    on_error: Literal["raise", "skip"] = "raise",
    origin: Mapping[str, Any] | None = None,
    show_progress_bar: bool | None = False,
) -> list[Shard]:
    """Write any data set of records as tar shards (`000000.tar`, ...) with an index, images unchanged byte for byte.

    Height and width of each image, as it is stored, are in the `.json` beside it. If the call is interrupted, by
    SIGKILL too, the same call goes on after the shards that are whole. The files are the same to the byte, however
    often it was interrupted, and on any number of processes.

    Args:
        dataset: The records, written in their order; decoded (PIL) images are stored as PNG.
        folder: A new or empty folder, or one that such a call has begun.
        samples_per_shard: The number of records of all shards but the last.
        processes: The number of processes that write; they have to be able to unpickle the data set. In a script, what
            calls this must be under `if __name__ == "__main__":` if there are several.
        on_error: "raise" what is wrong with a record, or leave it out ("skip"): `left_out.jsonl` then has a line with
            `record` and `reason` for each. What was begun with "raise" may go on with "skip".
        origin: What the records depend on, by name, as JSON. It is kept in `conversion.json` beside what the data set
            itself tells of its records, and a call that goes on has to have the same.
        show_progress_bar: Show one line on stderr; `None`: on a terminal.

    Returns:
        The shards, as the index has them.

    Raises:
        ValueError: The folder holds something else, or was begun with other records or settings; another call writes
            to it; the disk has too little room; or a record can't be used, or none can.
        UnreadableImageError: An image is missing or of no known format (only its beginning is looked at).
        ChildProcessError: A process was killed.
    """
    check_positive_integer("samples_per_shard", samples_per_shard)
    check_positive_integer("processes", processes)
    check_choice("on_error", on_error, ("raise", "skip"))
    work = ShardWriter(dataset, Path(folder), samples_per_shard, on_error)
    work.check(origin)
    if not work.is_finished():
        (work.folder / UNFINISHED).mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(work.folder / UNFINISHED / ".lock", timeout=0):
                work.check(origin)  # once more: another run may have begun, or ended, in between
                if not work.is_finished():
                    work.keep_settings(origin)
                    _write_missing(work, processes, show_progress_bar)
                    work.write_index()
        except Timeout as error:
            raise ValueError(f"another run writes {folder}: wait for its end") from error
    shutil.rmtree(work.folder / UNFINISHED, ignore_errors=True)
    return read_index(str(work.folder / INDEX_NAME))


@dataclass(frozen=True)
class ShardWriter:
    """Writes the shards of a folder one by one, in any order and in any process; arguments as in [`write_shards`]."""

    dataset: RecordDataset
    folder: Path
    samples_per_shard: int
    on_error: Literal["raise", "skip"]

    def __len__(self) -> int:
        return -(-len(self.dataset) // self.samples_per_shard)

    def indices(self, number: int) -> range:
        """Return the records of a shard."""
        start = number * self.samples_per_shard
        return range(start, min(start + self.samples_per_shard, len(self.dataset)))

    def is_done(self, number: int) -> bool:
        """Tell if a shard is written, and what the index will say of it."""
        return self._shard(number).is_file() and self._contents(number).is_file()

    def is_finished(self) -> bool:
        """Tell if the index is there, which comes last."""
        return (self.folder / INDEX_NAME).is_file()

    def check(self, origin: Mapping[str, Any] | None) -> None:
        """Compare the settings with those that the folder was begun with, if it was.

        Raises:
            ValueError: They are not the same, or the folder has something else in it.
        """
        path, settings = self.folder / SETTINGS_NAME, self._settings(origin)
        if path.is_file():
            before = read_json(path)
            changed = [name for name in settings if before.get(name) != settings[name]]
            # The shards of "raise" are those of "skip", too.
            if changed and (changed != ["on_error"] or self.on_error == "raise"):
                name = changed[0]
                raise ValueError(
                    f"{self.folder} was begun with {name}={before.get(name)!r}, and now it is {settings[name]!r}: go "
                    "on with the records and settings that it was begun with, or give a new folder"
                )
        elif self.folder.is_dir() and any(
            place.name != UNFINISHED and not place.name.endswith(".partial") for place in self.folder.iterdir()
        ):
            raise ValueError(f"{self.folder} must be a new or empty folder, or shards that were begun before")

    def keep_settings(self, origin: Mapping[str, Any] | None) -> None:
        """Write the settings that whoever goes on must have, unless they are there."""
        path, settings = self.folder / SETTINGS_NAME, self._settings(origin)
        if not path.is_file() or read_json(path) != settings:
            with replacing(path) as unfinished:
                unfinished.write_text(json.dumps(settings, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def remove_partial(self) -> None:
        """Remove what a run that was killed was writing."""
        for place in (self.folder, self.folder / UNFINISHED):
            for path in place.glob(".*.partial"):
                path.unlink(missing_ok=True)

    def write(self, number: int) -> int:
        """Write a shard, and before it has its name what the index will say of it; return its records.

        Raises:
            ValueError, OSError: A record can't be used with `on_error="raise"`, or none of many; or the disk is full.
        """
        languages, left_out = dict.fromkeys(LANGUAGES, 0), []
        with replacing(self._shard(number)) as unfinished:
            with tarfile.open(unfinished, "w") as tar:
                for index in self.indices(number):
                    try:
                        record = self.dataset[index]
                        content, suffix, size = _encoded_image(record)
                    except (ValueError, OSError) as error:
                        if self.on_error == "raise":
                            raise
                        left_out.append({"record": self.dataset.source(index), "reason": str(error)})
                        continue
                    languages[record.language] += 1
                    item = item_of_record(replace(record, image_size=size))
                    _add_member(tar, f"{index:09d}{suffix}", content)
                    _add_member(tar, f"{index:09d}.json", json.dumps(item, ensure_ascii=False).encode())
            # A stretch may be so. Where records here and there are, too, it is the disk, or the folder of the images.
            if len(left_out) == len(self.indices(number)) >= _HOPELESS and not self._bytes_of_some(range(len(self))):
                raise ValueError(
                    f"none of the {len(left_out)} records of {self._shard(number).name} can be used, the first: "
                    f"{left_out[0]['reason']}"
                )
            with replacing(self._contents(number)) as contents:
                contents.write_text(json.dumps({"languages": languages, "left_out": left_out}), encoding="utf-8")
        return len(self.indices(number))

    def write_index(self) -> None:
        """Write the index, and before it the list of what was left out, if anything was.

        Raises:
            ValueError: No record could be used.
        """
        shards, left_out = [], []
        for number in range(len(self)):
            contents = read_json(self._contents(number))
            counts = tuple(contents["languages"][language] for language in LANGUAGES)
            shards.append(Shard(str(self._shard(number)), sum(counts), counts))
            left_out += contents["left_out"]
        if not sum(shard.samples for shard in shards):
            first = f", the first: {left_out[0]['reason']}" if left_out else ""
            raise ValueError(f"none of {len(self.dataset)} records can be used{first}")
        if left_out:
            with replacing(self.folder / ERRORS_NAME) as unfinished:
                lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in left_out]
                unfinished.write_text("".join(lines), encoding="utf-8")
        write_index(self.folder, shards)

    def check_room(self, numbers: Sequence[int]) -> None:
        """Make sure that there is room for the shards of these numbers, judged by some of their records.

        Raises:
            ValueError: There is too little.
        """
        sizes = self._bytes_of_some(numbers)
        if not sizes:
            return  # writing them says what is wrong
        count = sum(len(self.indices(number)) for number in numbers)
        needed = sum(sizes) / len(sizes) * count
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise ValueError(
                f"{self.folder}: the shards that are missing need about {needed / 1e9:,.1f} GB, and {free / 1e9:,.1f} "
                "GB are free there: make room, or choose another place"
            )

    def _bytes_of_some(self, numbers: Sequence[int]) -> list[int]:
        """Return about how many bytes some records take, spread over shards, without those that can't be read."""
        count = sum(len(self.indices(number)) for number in numbers)
        sizes = []
        for place in range(0, count, -(-count // _LOOKED_AT)):
            number, offset = divmod(place, self.samples_per_shard)
            try:
                record = self.dataset[self.indices(numbers[number])[offset]]
                sizes.append(_image_bytes(record) + len(json.dumps(item_of_record(record))) + _TAR_OVERHEAD)
            except (ValueError, OSError):
                continue
        return sizes

    def _settings(self, origin: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return what the bytes of the shards depend on, as far as it can be told without reading all records."""
        count = len(self.dataset)
        return {
            "format": _FORMAT,
            "records": count,
            "first_record": self.dataset.source(0) if count else None,
            "last_record": self.dataset.source(count - 1) if count else None,
            "languages": hashlib.sha256(self.dataset.languages.tobytes()).hexdigest()[:16],
            "samples_per_shard": self.samples_per_shard,
            "on_error": self.on_error,
            **(origin or {}),
        }

    def _shard(self, number: int) -> Path:
        return self.folder / f"{number:06d}.tar"

    def _contents(self, number: int) -> Path:
        return self.folder / UNFINISHED / f"{number:06d}.json"


def _write_missing(work: ShardWriter, processes: int, show_progress_bar: bool | None) -> None:
    work.remove_partial()
    missing = [number for number in range(len(work)) if not work.is_done(number)]
    if not missing:
        return
    work.check_room(missing)
    total, left = len(work.dataset), sum(len(work.indices(number)) for number in missing)
    hidden = None if show_progress_bar is None else not show_progress_bar
    written = map(work.write, missing) if processes == 1 else _write_in_processes(work, missing, processes)
    with tqdm(total=total, initial=total - left, unit=" records", disable=hidden) as bar:
        for records in written:
            bar.update(records)


def _write_in_processes(work: ShardWriter, numbers: Sequence[int], processes: int) -> Iterator[int]:
    with ProcessPoolExecutor(min(processes, len(numbers)), get_context("spawn"), _start, (work,)) as pool:
        try:
            for future in as_completed([pool.submit(_write, number) for number in numbers]):
                yield future.result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                f"a process was killed, perhaps for want of memory: whole shards stay in {work.folder}, and the same "
                'call goes on (in a script it has to be under `if __name__ == "__main__":`)'
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_work: ShardWriter  # of a process of the pool


def _start(work: ShardWriter) -> None:
    global _work
    _work = work
    end_with_parent()


def _write(number: int) -> int:
    return _work.write(number)


def _add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    header = tarfile.TarInfo(name)  # neither owner nor time: the same records give the same file
    header.size = len(content)
    tar.addfile(header, io.BytesIO(content))


def _image_bytes(record: Record) -> int:
    """Return about how many bytes the image of a record takes in a shard."""
    if isinstance(record.image, Image.Image):
        return record.image.width * record.image.height * 2  # as PNG
    return Path(record.image).stat().st_size if isinstance(record.image, str) else len(record.image)


def _encoded_image(record: Record) -> tuple[bytes, str, tuple[int, int]]:
    """Return the bytes of an image, the suffix of their format, and its height and width."""
    if isinstance(record.image, Image.Image):
        buffer = io.BytesIO()
        image = open_record_image(record)
        image.save(buffer, "PNG")
        return buffer.getvalue(), ".png", (image.height, image.width)
    try:
        content = Path(record.image).read_bytes() if isinstance(record.image, str) else record.image
        with open_image(content) as image:
            name, size = image.format or "", (image.height, image.width)
    except Exception as error:  # on corrupt data decoders raise nearly everything
        named = record.image if isinstance(record.image, str) else "the encoded image"
        raise UnreadableImageError(f"{record.source}: {named}: {error}") from error
    suffix = _SUFFIX_OF_FORMAT.get(name, f".{name.lower()}")
    if suffix not in IMAGE_SUFFIXES:
        known = ", ".join(sorted(IMAGE_SUFFIXES))
        raise UnreadableImageError(f"{record.source}: the format of the image must be one of {known}, got {name}")
    return content, suffix, size
