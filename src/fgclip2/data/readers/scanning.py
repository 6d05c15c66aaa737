"""Finding the items of files by several processes, each of which scans pieces of them.

A piece begins wherever the file is cut, mostly within an item, and the first item that begins in it is searched for.
That is certain for lines. In a list, or a table with quotes, what looks like the beginning of an item may be within
another one: so a piece counts only if it begins with the very item that the piece before it ended at, and is scanned
again from there if it does not. The index is that of a file which is scanned from its beginning to its end. (To find
the borders of a list's items for certain, by its quotes and brackets, would take one process as long as to decode it.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ...languages import Language
from ..processes import processes_for
from .record_index import RecordIndex, Span, join_indexes, make_index

PIECE_BYTES = 64 * 2**20
BYTES_PER_PROCESS = 256 * 2**20  # at least: are scanned in about the time that a process takes to start


class Place(NamedTuple):
    """Where an item begins."""

    start: int  # byte
    number: int  # as that of a span


@dataclass(frozen=True)
class Piece:
    """Items found in a piece of a file, and those at its borders."""

    index: RecordIndex  # of the items that begin in it; numbers are counted from its beginning
    first: Place | None  # the first item that was met
    following: Place | None  # the first item behind the piece; None: there is none


class Scanner(Protocol):
    """Finds the items of files; can be pickled."""

    def find_item(self, path: Path, begin: int, end: int) -> int | None:
        """Return a byte from `begin` to `end` at which an item seems to begin, `None` if there is none."""

    def scan(self, path: Path, start: int, end: int) -> Piece:
        """Find the items from a byte at which one begins to the last one that begins before the byte `end`."""


def make_piece(spans: Iterable[Span], records_in: Callable[[Any], Sequence[tuple[int, Language]]], end: int) -> Piece:
    """Go through the items of a file up to the first one that begins at the byte `end` or behind it.

    A span without length, where the file is broken, belongs to the piece that comes upon it, wherever it is.
    """
    first = following = None

    def spans_of_piece() -> Iterator[Span]:
        nonlocal first, following
        for span in spans:
            place = Place(span.start, span.number)
            first = first or place
            if span.length and span.start >= end:
                following = place
                return
            yield span

    index = make_index(spans_of_piece(), records_in)
    return Piece(index, first, following)


def scan_files(scanner: Scanner, files: Sequence[Path], processes: int) -> list[RecordIndex]:
    """Scan files in pieces.

    Args:
        scanner: Finds the items.
        files: The files.
        processes: How many processes may be started; where fewer than two are of use, none is.
    """
    cuts = {file: _cut(file) for file in files}
    pieces = _scan_pieces(scanner, [piece for cuts_of_file in cuts.values() for piece in cuts_of_file], processes)
    return [_join(scanner, {cut: pieces[cut] for cut in cuts[file]}) for file in files]


class _Cut(NamedTuple):
    """The bytes of a file that are a piece of it."""

    path: Path
    begin: int
    end: int


def _cut(path: Path) -> list[_Cut]:
    size = path.stat().st_size
    return [_Cut(path, begin, min(begin + PIECE_BYTES, size)) for begin in range(0, size or 1, PIECE_BYTES)]


def _scan_pieces(scanner: Scanner, cuts: Sequence[_Cut], processes: int) -> dict[_Cut, Piece | None]:
    processes = min(processes, sum(cut.end - cut.begin for cut in cuts) // BYTES_PER_PROCESS)
    largest_first = sorted(cuts, key=lambda cut: cut.begin - cut.end)
    # The scanner is sent to each process once: it may know all images of a data set by their names.
    with processes_for(_scan_piece, scanner, processes) as scan:
        return dict(zip(largest_first, scan(largest_first), strict=True))


def _scan_piece(scanner: Scanner, cut: _Cut) -> Piece | None:
    start = scanner.find_item(*cut) if cut.begin else 0
    return None if start is None else scanner.scan(cut.path, start, cut.end)


def _join(scanner: Scanner, pieces: dict[_Cut, Piece | None]) -> RecordIndex:
    """Join the pieces of a file; those that begin with another item than the one that is due are scanned again."""
    (_, beginning), *others = pieces.items()
    assert beginning is not None
    indexes, shifts, due = [beginning.index], [0], beginning.following
    for cut, piece in others:
        if due is None:
            break
        if due.start >= cut.end:
            continue  # all of it is within one item
        if piece is None or piece.first is None or piece.first.start != due.start:
            piece = scanner.scan(cut.path, due.start, cut.end)
            assert piece.first is not None
        shift = due.number - piece.first.number
        indexes.append(piece.index)
        shifts.append(shift)
        due = piece.following and Place(piece.following.start, piece.following.number + shift)
    return join_indexes(indexes, shifts)
