"""In which order records are trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat, starmap
from typing import Any, Literal, NamedTuple

import numpy as np
from torch.utils.data import Dataset, IterableDataset, Sampler

from ..checks import check_choice
from ..data.records import RecordDataset
from ..data.sampling import warn_of_copies
from ..data.shards import ShardedRecords
from ..languages import LANGUAGES
from .mixture import Cell, MixedCells, Source, draws_of_epoch

logger = logging.getLogger(__name__)

LanguageBatches = Literal["homogeneous", "mixed"]
PatchBatches = Literal["any", "alike"]
PATCH_BATCHES: tuple[PatchBatches, ...] = ("any", "alike")
OnError = Literal["raise", "skip"]

_PASSES, _TURNS, _BATCHES = 0, 1, 2  # streams of random numbers
_RECORDS_AT_ONCE = 2**12
_ALIKE_RECORDS, _ALIKE_BATCHES = 2**15, 8  # among which images of about as many patches are put together, at least


class Draw(NamedTuple):
    """A record of an epoch. What is random about a sample follows from both, not from any process's random state."""

    index: int  # type: ignore[assignment]  # hides a method of tuple that nobody needs here
    epoch: int  # of its source: with a sampling rate of 3 an epoch of the run has three of them


class BatchOrderSampler(Sampler[Draw]):
    """Yields all batches of an epoch, of all ranks, one after another; the same on every rank.

    Records are shuffled anew in each epoch. What does not fill a batch on every rank is left out, other records each
    time. With `"homogeneous"`, the batches that ranks have at the same time are all of one language (as released), so
    that no text is told apart from others by its language. A language with too few records for one batch on every rank
    is never trained on, of which there is a warning.

    Nothing is kept for each record: a batch is computed when it comes. With `patches`, batches are chosen within
    windows of many batches, with `neighbours` within all records.

    Attributes:
        records, draws: int64, shape (sources, languages): the records of each source in each language, and how many of
            them an epoch draws.
        left_out: Draws of an epoch that fill no batch.
        never_drawn: Language -> its draws of an epoch, where these don't fill a batch.

    Args:
        sources: The sources, with their sampling rates; see [`draws_of_epoch`].
        batch_size: Records per batch of a rank.
        world_size: Number of ranks.
        language_batches: `"homogeneous"` or `"mixed"`.
        seed: Of the orders.
        neighbours: Integer, shape (N, K), of [`NeighbouringRecords`]; `None`: batches by chance.
        group_size: Records that stay together, with neighbours.
        patches: Integer, shape (N,), patches of each image: images of about as many share a batch, so that little of it
            is padding; records of equal counts are still shuffled, and so are the batches. `None`: batches by chance.
        language_shares: Share of each language in the draws of an epoch; `None`: as the sources have them.

    Raises:
        ValueError: There are not enough records for one batch on every rank, `language_shares` are not those of the
            languages that there are, or `neighbours` are to decide on the batches and something else too.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        batch_size: int,
        world_size: int = 1,
        language_batches: LanguageBatches = "homogeneous",
        seed: int = 0,
        neighbours: np.ndarray | None = None,
        group_size: int = 1,
        patches: np.ndarray | None = None,
        language_shares: Mapping[str, float] | None = None,
    ):
        if patches is not None and neighbours is not None:
            raise ValueError(
                "`patch_batches` must be 'any' for records with neighbours, which decide themselves on the batches"
            )
        if language_shares and neighbours is not None:
            raise ValueError("`language_shares` must be left out for records with neighbours: each is drawn once")
        self._patches = patches
        self._neighbours, self._group_size = neighbours, group_size
        check_choice("`language_batches`", language_batches, ("homogeneous", "mixed"))
        self.records, self.draws = draws_of_epoch(sources, language_shares)
        self._size, self._seed, self._epoch = batch_size * world_size, seed, 0
        self._groups = self._make_groups(sources, language_batches == "homogeneous")
        self._length = sum(len(group) // self._size for group in self._groups.values()) * self._size
        if not self._length:
            counts = ", ".join(str(len(group)) for group in self._groups.values())
            raise ValueError(
                f"{counts} records ({language_batches} batches) don't fill one batch of {batch_size} on each of "
                f"{world_size} ranks: choose a smaller per_device_train_batch_size, or add records"
            )
        self.left_out = int(self.draws.sum()) - self._length
        self.never_drawn = {name: len(group) for name, group in self._groups.items() if len(group) < self._size}
        for language, count in self.never_drawn.items():
            logger.warning(
                "records in language %r are never trained on: the %d of an epoch don't fill one batch of %d on each of "
                "%d ranks. Set language_batches='mixed', choose a smaller per_device_train_batch_size, or add records",
                language,
                count,
                batch_size,
                world_size,
            )
        by_language = language_batches == "homogeneous"
        warn_of_copies(self.records, self.draws, self._size, LANGUAGES, by_language)

    def _make_groups(self, sources: Sequence[Source], by_language: bool) -> dict[str, MixedCells]:
        """Return the rows of draws that batches are cut from, by language or all in one."""
        cells: dict[str, list[Cell]] = {}
        firsts = np.cumsum([0, *(len(source.languages) for source in sources)]).tolist()
        for number, language in np.argwhere(self.draws).tolist():
            key = [self._seed, _PASSES, number, language]
            cell = Cell(sources[number], language, firsts[number], int(self.draws[number, language]), key)
            cells.setdefault(LANGUAGES[language] if by_language else "all", []).append(cell)
        return {
            name: MixedCells(of_group, [self._seed, _TURNS, number])
            for number, (name, of_group) in enumerate(sorted(cells.items()))
        }

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self._seed, _BATCHES, self._epoch])
        counts = [len(group) // self._size for group in self._groups.values()]
        group_of_batch = rng.permutation(np.repeat(np.arange(len(counts), dtype=np.uint8), counts))
        streams = [
            self._batches(group, count, self._epoch, np.random.default_rng(rng.integers(2**63)))
            for group, count in zip(self._groups.values(), counts, strict=True)
        ]
        for number in group_of_batch:
            records, passes = next(streams[number])
            yield from map(Draw, records.tolist(), passes.tolist())

    def _batches(
        self, group: MixedCells, count: int, epoch: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield `count` batches of all ranks: records, and the passes that they are drawn in, (N,) each."""
        ends = np.linspace(0, count, 1 + -(-count // self._batches_of_window(count)), dtype=np.int64)
        windows = group.windows(epoch, (np.diff(ends) * self._size).tolist())
        for records, passes in starmap(partial(self._cut, rng), windows):
            yield from zip(records, passes, strict=True)

    def _cut(
        self, rng: np.random.Generator, records: np.ndarray, passes: np.ndarray, begun: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cut a window of draws into batches: records and passes, (batches, N) each."""
        if self._neighbours is not None:  # each record is drawn once, so that all are of one pass
            records = np.array(order_with_neighbours(records.tolist(), self._neighbours, self._group_size))
        if self._patches is not None:
            # Pass by pass, or copies of a record, which are alike, would meet.
            order = rng.permutation(np.lexsort((self._patches[records], begun)).reshape(-1, self._size))
            return records[order], passes[order]
        return records.reshape(-1, self._size), passes.reshape(-1, self._size)

    def _batches_of_window(self, count: int) -> int:
        """Return how many batches are computed at once; what is chosen by likeness is chosen among many."""
        if self._neighbours is not None:
            return count
        least, records = (1, _RECORDS_AT_ONCE) if self._patches is None else (_ALIKE_BATCHES, _ALIKE_RECORDS)
        return max(least, records // self._size)


def order_with_neighbours(order: Sequence[int], neighbours: np.ndarray, group_size: int) -> list[int]:
    """Arrange records so that each is followed by its nearest neighbours that have no place yet.

    Args:
        order: Records, each once.
        neighbours: As in [`NeighbouringRecords`]; those outside of `order` are left out.
        group_size: Records that stand together, as far as there are neighbours left.

    Returns:
        The records of `order`.
    """
    left, arranged = dict.fromkeys(order), []
    for record in order:
        if record not in left:
            continue
        others = [other for other in neighbours[record].tolist() if other in left and other != record]
        group = [record, *others[: group_size - 1]]
        arranged += group
        for member in group:
            del left[member]
    return arranged


class DrawnRecord(NamedTuple):
    """What the collator gets: a record, or why there is none, and the epoch."""

    record: Any  # Record | Exception | None, see DrawnStream
    epoch: int


class DrawnRecords(Dataset):
    """A [`RecordDataset`] that is indexed by [`Draw`]s; what is wrong with a record is handed on to the collator."""

    def __init__(self, records: RecordDataset):
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: Draw) -> DrawnRecord:
        index, epoch = draw
        try:
            return DrawnRecord(self.records[index], epoch)
        except (ValueError, OSError) as error:
            return DrawnRecord(error, epoch)


class DrawnStream(IterableDataset):
    """[`ShardedRecords`] as the collator takes it; `None` stands for what a continued run has had.

    A stream that breaks goes on with its error without end: a batch that is not full would be dropped.
    """

    def __init__(self, records: ShardedRecords):
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[DrawnRecord]:
        try:
            yield from (DrawnRecord(record, number) for record, number in self.records.with_passes())
        except (ValueError, OSError) as error:
            yield from repeat(DrawnRecord(error, self.records.epoch))
