"""In which order records are trained on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, Literal, NamedTuple

import numpy as np
from torch.utils.data import Dataset, IterableDataset, Sampler

from ..checks import check_choice
from ..data.records import RecordDataset
from ..data.shards import ShardedRecords
from ..languages import LANGUAGES

logger = logging.getLogger(__name__)

LanguageBatches = Literal["homogeneous", "mixed"]
PatchBatches = Literal["any", "alike"]
PATCH_BATCHES: tuple[PatchBatches, ...] = ("any", "alike")
OnError = Literal["raise", "skip"]


class Draw(NamedTuple):
    """A record of an epoch. What is random about a sample follows from both, not from any process's random state."""

    index: int  # type: ignore[assignment]  # hides a method of tuple that nobody needs here
    epoch: int


class BatchOrderSampler(Sampler[Draw]):
    """Yields all batches of an epoch, of all ranks, one after another; the same on every rank.

    Records are shuffled anew in each epoch. What does not fill a batch on every rank is left out, other records each
    time. With `"homogeneous"`, the batches that ranks have at the same time are all of one language (as released), so
    that no text is told apart from others by its language. A language with too few records for one batch on every rank
    is never trained on, of which there is a warning.

    Attributes:
        left_out: Records that an epoch leaves out.
        never_drawn: Language -> its records, where these don't fill a batch.

    Args:
        languages: uint8, shape (N,), of [`RecordDataset`].
        batch_size: Records per batch of a rank.
        world_size: Number of ranks.
        language_batches: `"homogeneous"` or `"mixed"`.
        seed: Of the orders.
        neighbours: Integer, shape (N, K), of [`NeighbouringRecords`]; `None`: batches by chance.
        group_size: Records that stay together, with neighbours.
        patches: Integer, shape (N,), patches of each image: images of about as many share a batch, so that little of it
            is padding; records of equal counts are still shuffled, and so are the batches. `None`: batches by chance.

    Raises:
        ValueError: There are not enough records for one batch on every rank, or both `patches` and `neighbours` are to
            decide on the batches.
    """

    def __init__(
        self,
        languages: np.ndarray,
        batch_size: int,
        world_size: int = 1,
        language_batches: LanguageBatches = "homogeneous",
        seed: int = 0,
        neighbours: np.ndarray | None = None,
        group_size: int = 1,
        patches: np.ndarray | None = None,
    ):
        if patches is not None and neighbours is not None:
            raise ValueError(
                "`patch_batches` must be 'any' for records with neighbours, which decide themselves on the batches"
            )
        self._patches = patches
        self._neighbours, self._group_size = neighbours, group_size
        check_choice("`language_batches`", language_batches, ("homogeneous", "mixed"))
        groups = languages if language_batches == "homogeneous" else np.zeros_like(languages)
        kinds = np.unique(groups)
        self._groups = [np.flatnonzero(groups == kind) for kind in kinds]
        self._size, self._seed, self._epoch = batch_size * world_size, seed, 0
        self._length = sum(len(group) // self._size for group in self._groups) * self._size
        if not self._length:
            counts = ", ".join(str(len(group)) for group in self._groups)
            raise ValueError(
                f"{counts} records ({language_batches} batches) don't fill one batch of {batch_size} on each of "
                f"{world_size} ranks: choose a smaller per_device_train_batch_size, or add records"
            )
        self.left_out = len(languages) - self._length
        self.never_drawn = {
            LANGUAGES[kind]: len(group)
            for kind, group in zip(kinds, self._groups, strict=True)
            if len(group) < self._size
        }
        for language, count in self.never_drawn.items():
            logger.warning(
                "all %d records in language %r are never trained on: they don't fill one batch of %d on each of %d "
                "ranks. Set language_batches='mixed', choose a smaller per_device_train_batch_size, or add records",
                count,
                language,
                batch_size,
                world_size,
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng([self._seed, self._epoch])
        batches = []  # each of all ranks
        for group in self._groups:
            count = len(group) // self._size
            shuffled = rng.permutation(group)[: count * self._size]
            if self._patches is not None:  # stable, so that records of equal counts stay shuffled
                shuffled = shuffled[np.argsort(self._patches[shuffled], kind="stable")]
            if self._neighbours is not None:
                shuffled = np.array(order_with_neighbours(shuffled.tolist(), self._neighbours, self._group_size))
            batches.append(shuffled.reshape(count, self._size))
        order = np.concatenate(batches)[rng.permutation(self._length // self._size)]
        for index in order.reshape(-1).tolist():
            yield Draw(index, self._epoch)


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
        epoch = self.records.epoch
        try:
            yield from (DrawnRecord(record, epoch) for record in self.records)
        except (ValueError, OSError) as error:
            yield from repeat(DrawnRecord(error, epoch))
