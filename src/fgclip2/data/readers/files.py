"""Text files of records (list-of-records JSON, JSONL, CSV, TSV): finding the records, and reading one at a time.

Files are scanned a piece at a time, and may be larger than memory; kept are a few bytes per record.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, Protocol

import numpy as np

from ...checks import one_of
from ...files import UTF8_BOM, decode_json, leads_outside
from ...languages import Language
from ..records import InvalidRecordError, Record, RecordDataset
from .record_index import RecordIndex, Span, record_indexes
from .scanning import Piece, make_piece, scan_files

logger = logging.getLogger(__name__)

MAX_RECORD_BYTES = 64 * 2**20
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
SUFFIXES = (*JSON_SUFFIXES, *_DELIMITERS)

_OPEN_AT_THE_END = "unexpected end of data"  # what Python's reader of CSV says
_BLOCK_BYTES = 2**20
_BRACKETS, _IN_STRING = re.compile(r'["{}\[\]]'), re.compile(r'"|\\.', re.DOTALL)
_SPACE = re.compile("[ \t\r\n\ufeff]*")
_BETWEEN_OBJECTS = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*(?=\{)")
_TRIED = 1000  # places between objects; an item has some dozens of them


class Parser(Protocol):
    """A function that knows what a format's fields mean; can be pickled.

    Its `repr` says all that the language of a record depends on: an index of records is kept for that.
    """

    def language(self, item: Any) -> Language:
        """Return the language of an item, right or wrong; may raise on what is no item."""

    def __call__(self, item: Any, source: str) -> Record:
        """Check an item and make a record of it."""


class FileRecords(RecordDataset):
    """The records of one file.

    Args:
        path: The file.
        decode: Makes an item of its bytes.
        parser: Makes a record of an item.
        index: Where the records are.
    """

    def __init__(self, path: Path, decode: Callable[[bytes], Any], parser: Any, index: RecordIndex):
        self.path, self._decode, self._parser, self._index = path, decode, parser, index
        count, first = index.malformed
        if count:
            some = ", ".join(map(str, first)) + (", …" if count > len(first) else "")
            logger.warning("%s: %d records are malformed (%s); reading them raises", path, count, some)
        if count and not index.lengths[-1]:
            place = index.numbers[-1], index.starts[-1]
            logger.warning("%s: the list is broken at item %d, byte %d; no item after it is read", path, *place)

    @property
    def languages(self) -> np.ndarray:  # type: ignore[override]  # not kept here, so that workers map it, too
        return self._index.languages

    @property
    def image_sizes(self) -> np.ndarray:  # type: ignore[override]
        return self._index.image_sizes

    @staticmethod
    def records_in(parser: Any, item: Any) -> Sequence[tuple[int, Language]]:
        """Return part and language of each record that an item is; may raise on what is no item."""
        return [(0, parser.language(item))]

    def _source(self, index: int) -> str:
        return f"{self.path}:{self._index.numbers[index]}"

    def _read(self, index: int) -> Record:
        source = self._source(index)
        return self._parser(self._item(index, source), source)

    def _item(self, index: int, source: str) -> Any:
        """Decode an item; raise an [`InvalidRecordError`] if that can't be done."""
        start, length = int(self._index.starts[index]), int(self._index.lengths[index])
        if not length:
            found = f"broken or cut off at byte {start}, so that no item from here on can be found"
            raise InvalidRecordError(source, "the list", found, "one JSON list")
        if length > MAX_RECORD_BYTES:
            raise InvalidRecordError(
                source, "the record", f"{length:,} bytes long", f"at most {MAX_RECORD_BYTES:,} bytes long"
            )
        try:
            # Opened anew each time: costs microseconds, and neither threads nor forked processes can share a position.
            with self.path.open("rb") as file:
                file.seek(start)
                return self._decode(file.read(length))
        except (ValueError, csv.Error) as error:
            reason = " ".join(str(error).split())
            is_json = self._decode is decode_json
            allowed = "well-formed JSON in UTF-8" if is_json else getattr(self._decode, "allowed", "UTF-8")
            raise InvalidRecordError(source, "the record", f"malformed ({reason})", allowed) from error


def read_files(
    path: str | Path,
    parser: Any,
    suffixes: Sequence[str],
    follow_links: bool = False,
    kind: type[FileRecords] = FileRecords,
) -> list[FileRecords]:
    """Scan a file of records, or all such files in a folder, in the order of their names.

    Args:
        path: A `.json` or `.jsonl` (whether it is a list or lines is seen from its first character), `.csv` or `.tsv`;
            or a folder that holds such files.
        parser: Knows what the fields mean: a [`Parser`], or what `kind` takes in its place.
        suffixes: The suffixes of files that may be read.
        follow_links: Also read files that links in the folder lead to outside it.
        kind: What the records of a file become.

    Raises:
        ValueError: There is no such file, an unknown suffix, a folder without any, or not one record in all; or a link
            leads nowhere, or out of the folder.
    """
    files = record_files(path, suffixes, follow_links)
    scan = partial(scan_files, FileScanner(kind, parser))
    indexes = record_indexes(files, scan, str(Path(path).resolve()), f"{kind.__name__} {parser!r}")
    datasets = []
    for file, index in zip(files, indexes, strict=True):
        table = _table_of(file)
        datasets.append(kind(file, table[0] if table else decode_json, parser, index))
    if not any(map(len, datasets)):
        raise ValueError(f"{path} must hold at least one record")
    return datasets


@dataclass(frozen=True)
class FileScanner:
    """Finds the items of text files, and the languages of their records."""

    kind: type[FileRecords]
    parser: Any

    def find_item(self, path: Path, begin: int, end: int) -> int | None:
        """Return where an item seems to begin."""
        is_list = path.suffix.lower() not in _DELIMITERS and _head(path).startswith(b"[")
        return find_in_list(path, begin, end) if is_list else find_line(path, begin, end)

    def scan(self, path: Path, start: int, end: int) -> Piece:
        """Find the items from `start` on, which is where one begins."""
        return make_piece(scan_items(path, start), partial(self.kind.records_in, self.parser), end)


def record_files(path: str | Path, suffixes: Sequence[str], follow_links: bool = False) -> list[Path]:
    """Return the files of records that a path stands for: itself, or those in the folder, without subfolders."""
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes and not file.is_dir())
        files = [file for file in files if not file.name.startswith(".")]
        if not files:
            raise ValueError(f"{path} must hold a file of records ({', '.join(suffixes)})")
        check_record_files(files, path, follow_links)
        return files
    if not path.is_file():
        raise ValueError(f"{path}: no such file or folder")
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: the suffix must be {one_of(suffixes)}, got {path.suffix!r}")
    return [path]


def check_record_files(files: Iterable[Path], folder: Path, follow_links: bool) -> None:
    """Raise a `ValueError` if a file found in a folder is a link that leads nowhere, or out of it without leave."""
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file} must be a file, and is a link that leads nowhere: mend it or remove it")
        if not follow_links and leads_outside(file, folder):
            raise ValueError(
                f"{file} is a link that leads out of {folder}: set follow_links if you trust it, or name the file"
            )


def columns_of(path: Path) -> list[str] | None:
    """Return the header of a CSV or TSV file; None for JSON, where each record has its own keys.

    Raises:
        ValueError: The header is not UTF-8, blank, or names a column twice.
    """
    table = _table_of(path)
    return list(table[0].columns) if table else None


def first_item(path: Path) -> Any:
    """Return the first well-formed item of a file, None if there is none."""
    return next((span.item for span in scan_items(path) if span.item is not None), None)


def scan_items(path: Path, start: int = 0) -> Iterator[Span]:
    """Yield the items of a file from a byte on at which one begins, 0 for all of them.

    Raises:
        ValueError: The file is UTF-16, or the header of a table is none.
    """
    head = _head(path)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path} must be UTF-8, and is UTF-16")
    table = _table_of(path)
    if table is not None:
        return _scan_table(path, *table, start)
    return scan_list(path, start) if head.startswith(b"[") else scan_lines(path, decode_json, start)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_BLOCK_BYTES).removeprefix(UTF8_BOM).lstrip()


def _table_of(path: Path) -> tuple[_Table, int] | None:
    """Return how the rows of a table are written, and the byte at which they begin; None for JSON."""
    delimiter = _DELIMITERS.get(path.suffix.lower())
    if delimiter is None:
        return None
    with path.open("rb") as file:
        return _read_header(file, path, delimiter), file.tell()


# ---------------------------------------------------------------------------------------------------------------------
# JSON
# ---------------------------------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    """A line of a file; one that is too long for a record has its beginning only."""

    start: int  # byte
    number: int  # from 1
    content: bytes
    length: int  # bytes


def _numbered_lines(file: BinaryIO, number: int = 1) -> Iterator[_Line]:
    """Yield the lines from where a file stands."""
    start = file.tell()
    while content := file.readline(MAX_RECORD_BYTES + 1):
        length, piece = len(content), content
        while len(piece) == MAX_RECORD_BYTES + 1 and not piece.endswith(b"\n"):
            piece = file.readline(MAX_RECORD_BYTES + 1)
            length += len(piece)
        yield _Line(start, number, content if length <= MAX_RECORD_BYTES else content[:_BLOCK_BYTES], length)
        start, number = start + length, number + 1


def scan_lines(path: Path, decode: Callable[[bytes], Any], start: int = 0) -> Iterator[Span]:
    """Yield the items that the lines of a file are, but for blank ones, from a byte on at which a line begins."""
    with path.open("rb") as file:
        file.seek(start)
        for start, number, line, length in _numbered_lines(file):
            if length > MAX_RECORD_BYTES:
                yield Span(start, length, number, None)
                continue
            skipped = len(UTF8_BOM) if start == 0 and line.startswith(UTF8_BOM) else 0
            content = line[skipped:].strip()
            if content:
                try:
                    item = decode(content)
                except ValueError:
                    item = None
                yield Span(start + line.index(content, skipped), len(content), number, item)


def find_line(path: Path, begin: int, end: int) -> int | None:
    """Return where the first line begins that does so between two bytes, None if there is none."""
    with path.open("rb") as file:
        file.seek(begin - 1)  # it may have the end of the line before
        rest = file.readline(end - begin)
    return begin - 1 + len(rest) if rest.endswith(b"\n") else None


class _Window:
    """The text of a file from some byte on, as much of it as is needed; bytes that are no UTF-8 are escaped."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")  # holds back what a piece cuts
        self.text, self.position = "", 0  # position: in the text
        self.byte = file.tell()  # where `position` is in the file
        self._ended = False

    def advance(self, end: int) -> int:
        """Move to position `end`; returns the number of bytes passed."""
        passed = self.text[self.position : end]
        length = len(passed) if passed.isascii() else len(passed.encode(errors="surrogateescape"))
        self.position, self.byte = end, self.byte + length
        return length

    def extend(self) -> bool:
        """Drop what was passed and double what is left; False at the end of the file, or at too much of it."""
        pending = self.text[self.position :]
        if self._ended or len(pending) > MAX_RECORD_BYTES:
            return False
        content = self._file.read(max(_BLOCK_BYTES, len(pending)))
        self._ended = not content
        more = self._decoder.decode(content, final=self._ended)
        self.text, self.position = pending + more, 0
        return not self._ended or bool(more)

    def skip_space(self) -> str:
        """Move to the next character that is no white space and return it, "" at the end."""
        while True:
            end = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]  # matches always
            self.advance(end)
            if end < len(self.text):
                return self.text[end]
            if not self.extend():
                return ""


def scan_list(path: Path, start: int = 0) -> Iterator[Span]:
    """Yield the items of one JSON list, from a byte on at which one begins; 0: all of them.

    An object or list that can't be decoded is malformed by itself, if its end is found; where the list is broken, what
    remains of it is one malformed item.
    """
    decoder = json.JSONDecoder()
    with path.open("rb") as file:
        file.seek(start)
        window = _Window(file)
        expected = "" if start else "["
        for number in range(1, 2**32):
            found, place = window.skip_space(), window.byte
            if found == "]" and expected == ",":
                return (yield from _after_list(window, number))
            if found.startswith(expected):
                window.advance(window.position + len(expected))
                if window.skip_space() == "]" and expected == "[":
                    return (yield from _after_list(window, number))
                place, item, end = window.byte, None, None
                while end is None:
                    try:
                        item, end = decoder.raw_decode(window.text, window.position)
                    except (ValueError, RecursionError):
                        if not window.extend():  # nothing more that could complete it
                            break
                length = _skip_brackets(window) if end is None else window.advance(end)
                if length:
                    yield Span(place, length, number, item if length <= MAX_RECORD_BYTES else None)
                    expected = ","
                    continue
            yield Span(place, 0, number, None)
            return


def find_in_list(path: Path, begin: int, end: int) -> int | None:
    """Return where an object begins between two bytes that seems to be an item of the list, None if there is none.

    It is behind another object, and the list goes on for a while: one within an item ends before, and what is behind
    it does not belong in a list. So a wrong answer is possible, where an item is long.
    """
    with path.open("rb") as file:
        before = file.seek(max(0, begin - _BLOCK_BYTES))  # the comma may be before the first byte
        content = file.read(end - before)
    starts = (before + found.end() for found in _BETWEEN_OBJECTS.finditer(content))
    for start in islice((start for start in starts if start >= begin), _TRIED):
        for span in scan_list(path, start):
            if not span.length:
                break
            if span.start >= start + _BLOCK_BYTES:
                return start
        else:
            return start  # the list has come to its end
    return None


def _skip_brackets(window: _Window) -> int:
    """Go behind the object or list that begins here, without decoding it; returns its bytes, 0 if there is no end."""
    if window.text[window.position : window.position + 1] not in ("{", "["):
        return 0
    length, depth, in_string = 0, 0, False
    while True:
        end, is_done = window.position, False
        for mark in (_IN_STRING if in_string else _BRACKETS).finditer(window.text, window.position):
            end, found = mark.end(), mark[0]
            depth += (found in "{[") - (found in "}]")
            is_done = not in_string and not depth and found in "}]"
            if is_done or found == '"':
                in_string = in_string != (found == '"')
                break
        else:  # on with the next piece, but for a backslash that belongs to the first character of it
            is_cut = in_string and end < len(window.text) and window.text.endswith("\\")
            end = len(window.text) - is_cut
        length += window.advance(end)
        if is_done:
            return length
        if end + 1 >= len(window.text) and not window.extend():
            return 0


def _after_list(window: _Window, number: int) -> Iterator[Span]:
    window.advance(window.position + 1)
    if window.skip_space():
        yield Span(window.byte, 0, number, None)


# ---------------------------------------------------------------------------------------------------------------------
# CSV and TSV
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """The columns of a table, and how its rows are written: TSV has no quoting."""

    columns: tuple[str, ...]
    delimiter: str
    quoting: Literal[0, 3]  # csv.QUOTE_MINIMAL or csv.QUOTE_NONE

    @property
    def allowed(self) -> str:
        """Return how a row must be written, for error messages."""
        cells = "well-formed UTF-8, as many cells as the header has"
        if self.quoting == csv.QUOTE_NONE:
            return cells
        mark = "commas" if self.delimiter == "," else "tabs"
        return f'{cells}, those with {mark}, line ends or " in quotes, where " is doubled, e.g. "a 12"" pizza"'

    def __call__(self, content: bytes) -> dict[str, str | None]:
        """Decode one row."""
        try:
            rows = list(self.reader(io.StringIO(content.decode(), newline="\n")))
        except csv.Error as error:
            raise ValueError("unclosed quote" if str(error) == _OPEN_AT_THE_END else str(error)) from error
        if len(rows) != 1:
            raise ValueError(f"{len(rows)} rows in place of one")
        return self.item(rows[0])

    def reader(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Yield the cells of each row."""
        return csv.reader(lines, delimiter=self.delimiter, quoting=self.quoting, strict=True)

    def item(self, row: Sequence[str]) -> dict[str, str | None]:
        """Return a row by columns; an empty cell is None."""
        if len(row) != len(self.columns):
            raise ValueError(f"{len(row)} cells in place of {len(self.columns)}")
        return {column: value or None for column, value in zip(self.columns, row, strict=True)}


def _read_header(file: BinaryIO, path: Path, delimiter: str) -> _Table:
    """Read the first line, and leave the file after it."""
    line = file.readline(MAX_RECORD_BYTES).removeprefix(UTF8_BOM)
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    if b"\t" in line and b"," not in line:
        delimiter = "\t"  # also in a `.csv`: open_clip's own are written so, with quotes as in CSV
    try:
        columns = next(_Table((), delimiter, quoting).reader([line.decode()]), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}:1: the header must be names of columns in UTF-8 ({error})") from error
    named = [column for column in columns if column]
    if not named or len(set(named)) < len(named):
        raise ValueError(f"{path}:1: the header must be names of columns, none of them twice, got {columns}")
    return _Table(tuple(columns), delimiter, quoting)


def _scan_table(path: Path, table: _Table, first_row: int, start: int) -> Iterator[Span]:
    """Yield the rows from a byte on at which one begins, 0 for all of them, which begin behind the header.

    One that has no end, or a wrong one, is its first line only: the others may well be rows.
    """
    with path.open("rb") as file:
        file.seek(max(first_row, start))
        lines = _numbered_lines(file, number=2)
        taken: list[_Line] = []  # the lines of the row being read
        again: deque[_Line] = deque()  # to be read again

        def texts() -> Iterator[str]:
            while line := again.popleft() if again else next(lines, None):
                taken.append(line)
                yield line.content.decode(errors="surrogateescape")

        reader = table.reader(texts())
        while True:
            taken.clear()
            item = None
            try:
                row = next(reader)
                if not row:
                    continue  # a blank line
                item = table.item(row)
            except StopIteration:
                return
            except csv.Error:
                again.extendleft(reversed(taken[1:]))
                del taken[1:]
                reader = table.reader(texts())
            except ValueError:
                pass
            length = sum(line.length for line in taken)
            yield Span(taken[0].start, length, taken[0].number, item if length <= MAX_RECORD_BYTES else None)
