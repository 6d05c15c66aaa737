"""How often an epoch draws the records of each source and language, and which ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..data.records import ConcatenatedRecords, RecordDataset
from ..data.sampling import count_draws
from ..languages import LANGUAGES
from .permutation import RandomOrders

_BLOCK = 64  # records, which are looked through to find one in a language
_DRAWN_AT_ONCE = 2**12
_COUNTED_AT_ONCE = 2**16  # records, a multiple of a block


class Source(NamedTuple):
    """A data set of several, and how many times an epoch takes its records."""

    languages: np.ndarray  # uint8 (N,), of [`RecordDataset`]
    rate: float = 1.0


def sampling_rates_of(records: RecordDataset) -> list[float]:
    """Return how many times an epoch takes the records of each source, in the order of [`sources_of`]."""
    return [rate for _, rate in _parts_of_sources(records)]


def sources_of(
    records: RecordDataset, join: Callable[[Sequence[np.ndarray]], np.ndarray] = np.concatenate
) -> list[Source]:
    """Return the sources that records were concatenated of, in their order; without sampling rates they are one.

    Args:
        records: The records.
        join: Makes one array of the languages of the data sets that are one source.
    """
    sources = []
    for parts, rate in _parts_of_sources(records):
        languages = [part.languages for part in parts]
        sources.append(Source(languages[0] if len(parts) == 1 else join(languages), rate))
    return sources


def _parts_of_sources(records: RecordDataset) -> list[tuple[tuple[RecordDataset, ...], float]]:
    if not isinstance(records, ConcatenatedRecords):
        return [(records.parts, 1.0)]
    rates = records.sampling_rates or [1.0] * len(records.datasets)
    sources = [
        (parts, rate * own_rate)
        for dataset, rate in zip(records.datasets, rates, strict=True)
        for parts, own_rate in _parts_of_sources(dataset)
    ]
    is_one = records.sampling_rates is None and all(rate == 1 for _, rate in sources)
    return [(records.parts, 1.0)] if is_one else sources


def draws_of_epoch(sources: Sequence[Source], shares: Mapping[str, float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Count the records of each source in each language, and how many of them an epoch draws by [`count_draws`].

    Args:
        sources: The sources, which have at least one record.
        shares: Share of each language of the records, which add up to 1; `None`: as the sources have them.

    Returns:
        Two int64 arrays (sources, languages), in the order of `LANGUAGES`: records, and draws.

    Raises:
        ValueError: `shares` are not those of the languages that there are.
    """
    counts = np.array(
        [
            [_count_blocks(source.languages, number).sum(dtype=np.int64) for number in range(len(LANGUAGES))]
            for source in sources
        ]
    )
    return counts, count_draws(counts, [source.rate for source in sources], shares)


def _count_blocks(languages: np.ndarray, language: int) -> np.ndarray:
    """Count the records in a language of each block, uint8 (blocks,); languages may be a mapped file."""
    some = (languages[start : start + _COUNTED_AT_ONCE] for start in range(0, len(languages), _COUNTED_AT_ONCE))
    return np.concatenate(
        [np.add.reduceat(part == language, np.arange(0, len(part), _BLOCK), dtype=np.uint8) for part in some]
    )


class Cell:
    """The records of one source in one language, which are drawn in passes, each in a random order of its own.

    Epochs go on where the last one stopped: with a rate of 0.25 four epochs are a pass; with 2.5 an epoch has two
    passes and half of one, whose other half the next epoch begins with. So copies of a record are far apart.

    Args:
        source: The source.
        language: Index into `LANGUAGES`, of which the source has records.
        first: Number of the source's first record among those of all sources.
        draws: Records that an epoch draws.
        key: Integers that the orders follow from.
    """

    def __init__(self, source: Source, language: int, first: int, draws: int, key: Sequence[int]):
        self.draws, self._first, self._language = draws, first, language
        # Whole blocks, and what is left at the end. They stay where they are, for that may be a mapped file.
        whole = len(source.languages) // _BLOCK * _BLOCK
        self._blocks, self._rest = source.languages[:whole].reshape(-1, _BLOCK), source.languages[whole:]
        up_to = _count_blocks(source.languages, language).cumsum(dtype=np.uint32)
        self._before, self._count = np.append(np.uint32(0), up_to[:-1]), int(up_to[-1])
        self._orders = RandomOrders(self._count, key)

    def records(self, epoch: int, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return `count` of the draws of an epoch, from the one numbered `first` on.

        Returns:
            Two int64 arrays (count,): the records among those of all sources, and the pass that each is drawn in.
        """
        passes, places = np.divmod(epoch * self.draws + first + np.arange(count), self._count)
        return self._first + self._find(self._orders(places, passes)), passes

    def _find(self, numbers: np.ndarray) -> np.ndarray:
        """Return where records in the language are in their source, by their numbers among these, both (N,)."""
        block = self._before.searchsorted(numbers, side="right") - 1
        rows = np.empty((len(block), _BLOCK), np.uint8)
        is_whole = block < len(self._blocks)
        rows[is_whole] = self._blocks[block[is_whole]]
        rows[~is_whole, : len(self._rest)] = self._rest  # what stands behind it is not looked at
        up_to = (rows == self._language).cumsum(axis=1, dtype=np.uint8)  # (N, _BLOCK)
        within = (up_to > (numbers - self._before[block])[:, None]).argmax(axis=1)
        return block * _BLOCK + within


class MixedCells:
    """The draws of several cells as one row, in which cells take turns at random, otherwise in each epoch.

    Args:
        cells: The cells, at least one.
        key: Integers that the turns follow from.
    """

    def __init__(self, cells: Sequence[Cell], key: Sequence[int]):
        self._cells = cells
        self._ends = np.cumsum([cell.draws for cell in cells])
        self._turns = RandomOrders(len(self), key)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def windows(self, epoch: int, lengths: Iterable[int]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the draws of an epoch in windows of these lengths.

        Yields:
            Three arrays (length,): the records, int64; the pass that each is drawn in, int32; and how many passes of
            its cell have begun in the window before that one, int32. Records that are equal in the last number are
            distinct.
        """
        start, drawn = 0, [0] * len(self._cells)
        for length in lengths:
            yield self._window(epoch, start, length, drawn)
            start += length

    def _window(
        self, epoch: int, start: int, length: int, drawn: list[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return a window, and count in `drawn` what it takes of each cell."""
        records, (passes, begun) = np.empty(length, np.int64), np.empty((2, length), np.int32)
        first_passes: dict[int, int] = {}
        for begin in range(0, length, _DRAWN_AT_ONCE):
            places = np.arange(start + begin, start + min(begin + _DRAWN_AT_ONCE, length))
            cell_of = self._ends.searchsorted(self._turns(places, np.full(len(places), epoch)), side="right")
            for number in np.unique(cell_of).tolist():
                own = np.flatnonzero(cell_of == number)
                own_records, own_passes = self._cells[number].records(epoch, drawn[number], len(own))
                drawn[number] += len(own)
                records[begin + own] = own_records
                passes[begin + own] = own_passes
                begun[begin + own] = own_passes - first_passes.setdefault(number, int(own_passes[0]))
        return records, passes, begun
