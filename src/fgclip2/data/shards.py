"""Streams of records out of tar shards, for data that does not fit a disk or is slow to read at random."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ..checks import check_positive_integer
from ..languages import Language
from .readers.checks import check_language_option
from .records import InvalidRecordError, Record
from .shard_files import BrokenShardError, Shard, ShardReader, check_count, list_shards

logger = logging.getLogger(__name__)

_SHUFFLE_SHARDS, _SHUFFLE_SAMPLES = 0, 1  # streams of random numbers


class ShardedRecords(IterableDataset):
    """A stream of records out of tar shards, divided over ranks and workers without overlap or loss.

    The shards of an epoch (in an order drawn for it) are one long row of samples. Ranks take even parts of it and,
    within a rank, DataLoader workers take even numbers of batches, so any number of shards serves any number of ranks
    and workers; of a shard on a border each side reads its own samples. Within its part each worker shuffles through a
    bounded buffer. Nothing but `seed`, epoch and these numbers decides the order.

    Use it as `DataLoader(dataset, batch_size=dataset.batch_size, drop_last=dataset.drop_last, num_workers=...)`: every
    rank then has exactly `ceil(len(dataset) / batch_size)` batches (all full with `drop_last`). Call `set_epoch` before
    each epoch (persistent workers see it too).

    Restart in mid-epoch: `set_epoch(epoch, batches)` with the number of batches that this rank has had, on the same
    shards with the same arguments and number of workers, gives exactly the batches that were left, in their order.
    (`state_dict` and `load_state_dict` do it by samples without workers, or in loaders that call them in the workers;
    of a loader that fetches ahead they count what was fetched.) Samples passed over are not read, only their headers.

    Args:
        shards: What `list_shards` takes. With an index nothing is opened before it is needed.
        batch_size: Records per batch of one rank.
        rank, world_size: The place of this process among all, and their number.
        drop_last: True, for training: all ranks have the same number of whole batches; what is left over (other
            samples in each epoch, for shards are reordered) is counted and logged. False, for evaluation: every sample
            once; the parts of ranks differ by at most one sample.
        shuffle: False keeps the order of shards and samples.
        buffer_size: Records in the buffer of each worker, encoded images included.
        seed: Seed of the orders.
        language: The language of all records. None: by `is_cn`, else detected.
        on_error: "raise" what is wrong with a sample, or give it out in the record's place ("skip"), so that the number
            of samples, and of batches, stays what it is.

    Raises:
        ValueError: Arguments are out of range, there are no shards, or fewer samples than ranks need.
        BrokenShardError: (while iterating) A shard is cut off, corrupt, or does not hold what the index says.
        InvalidRecordError: (while iterating) A sample can't be used.

    Example:
        >>> records = ShardedRecords("shards/", batch_size=32, rank=0, world_size=1, drop_last=True)
        >>> loader = DataLoader(records, batch_size=32, drop_last=True, num_workers=2, collate_fn=list)
    """

    def __init__(
        self,
        shards: str | Path | Sequence[str | Path],
        batch_size: int = 1,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        shuffle: bool = True,
        buffer_size: int = 1000,
        seed: int = 0,
        language: Language | None = None,
        on_error: Literal["raise", "skip"] = "raise",
    ):
        check_language_option(language)
        for name, value in (("batch_size", batch_size), ("world_size", world_size), ("buffer_size", buffer_size)):
            check_positive_integer(name, value)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to {world_size - 1} for world_size={world_size}, got {rank}")
        self.shards = list_shards(shards)
        self.batch_size, self.rank, self.world_size, self.drop_last = batch_size, rank, world_size, drop_last
        self.shuffle, self.buffer_size, self.seed, self._language = shuffle, buffer_size, seed, language
        self.on_error = on_error
        self.total = sum(shard.samples for shard in self.shards)
        needed = world_size * (batch_size if drop_last else 1)
        if self.total < needed:  # on all ranks alike, so that none waits for another
            raise ValueError(f"{world_size} ranks need at least {needed} samples, and the shards hold {self.total}")
        # Epoch, batches already had, and whether to stand in for them, in shared memory: persistent workers live on.
        self._position = torch.zeros(3, dtype=torch.int64).share_memory_()
        self._emitted = 0  # samples, of the running iteration in this process
        self._skip = 0  # samples, of the next iteration

    def __len__(self) -> int:
        """Return the number of samples of this rank in a whole epoch."""
        return len(self._part_of_rank())

    @property
    def left_out(self) -> int:
        """Samples of an epoch that no rank gets; 0 without `drop_last`."""
        return self.total - len(self) * self.world_size if self.drop_last else 0

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration gives."""
        return int(self._position[0])

    def set_epoch(self, epoch: int, batches: int = 0, placeholders: bool = False) -> None:
        """Go to an epoch, `batches` batches of this rank into it.

        With `placeholders` these batches come, but of `None` instead of records: for loops that count off what they
        have had, such as transformers' Trainer.
        """
        if epoch < 0 or not 0 <= batches <= -(-len(self) // self.batch_size):
            raise ValueError(f"epoch and batches must be from 0 on, within an epoch, got {epoch} and {batches}")
        self._position.copy_(torch.tensor([epoch, batches, int(placeholders)]))
        self._emitted = self._skip = 0
        if self.left_out and self.rank == 0:
            logger.info("epoch %d: %d of %d samples are left out for even ranks", epoch, self.left_out, self.total)

    def state_dict(self) -> dict[str, Any]:
        """Return where the iteration in this process is, for `load_state_dict` on equal arguments."""
        return {"epoch": self.epoch, "batches": int(self._position[1]), "samples": self._emitted, **self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on where a state was taken.

        Raises:
            ValueError: The state is of other shards or arguments, which would repeat and lose samples.
        """
        for name, value in self._settings().items():
            if state.get(name) != value:
                raise ValueError(f"the state's {name} must be {value!r}, as this data set has, got {state.get(name)!r}")
        self._position.copy_(torch.tensor([state["epoch"], state["batches"], 0]))
        self._emitted = self._skip = state["samples"]

    def __iter__(self) -> Iterator[Any]:  # Record; InvalidRecordError with on_error="skip"; None for a placeholder
        worker = get_worker_info()
        index, count = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch, batches, placeholders = self._position.tolist()
        # Batches come from the workers in turn: after `batches` of them it is the turn of another than the first.
        role = index if placeholders else (index + batches) % count
        had = len(range(role, batches, count)) * self.batch_size
        part = self._part_of_worker(role, count)
        rng = np.random.default_rng([self.seed, epoch, _SHUFFLE_SAMPLES, self.rank, role])
        order = buffered_shuffle(part, self.buffer_size, rng) if self.shuffle else iter(part)
        if placeholders:
            yield from (None for _ in range(min(had, len(part))))
        self._emitted, self._skip = self._skip, 0
        remaining = np.ones(len(part), dtype=bool)
        for _, position in zip(range(min(had + self._emitted, len(part))), order, strict=False):
            remaining[position - part.start] = False
        # The samples are read one after another and given out in `order`.
        read = self._read(part.start + np.flatnonzero(remaining), epoch)
        waiting: dict[int, Record] = {}
        for position in order:
            while position not in waiting:
                read_position, record = next(read)
                waiting[read_position] = record
            self._emitted += 1
            yield waiting.pop(position)
        for _ in read:  # nothing is left, but the last shard's end is still to be checked
            raise AssertionError("a sample was read that no one asked for")

    def _part_of_rank(self) -> range:
        """Return an even part of the row; with `drop_last` all ranks have as many whole batches."""
        if self.drop_last:
            size = self.total // (self.world_size * self.batch_size) * self.batch_size
            return range(self.rank * size, (self.rank + 1) * size)
        start, stop = (self.total * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return range(start, stop)

    def _part_of_worker(self, worker: int, workers: int) -> range:
        """Return a part of whole batches; the first workers have one more, so that batches in turn use up the row."""
        part = self._part_of_rank()
        batches = -(-len(part) // self.batch_size)
        per_worker, extra = divmod(batches, workers)
        last = (batches - 1) % workers  # its last batch is the one that may not be full
        missing = batches * self.batch_size - len(part)
        sizes = [(per_worker + (w < extra)) * self.batch_size - missing * (w == last) for w in range(workers)]
        start = part.start + sum(sizes[:worker])
        return range(start, start + sizes[worker])

    def _read(self, positions: np.ndarray, epoch: int) -> Iterator[tuple[int, Record]]:
        """Read the samples at sorted positions of the epoch's row."""
        numbers: Iterable[int] = range(len(self.shards))
        if self.shuffle:
            numbers = np.random.default_rng([self.seed, epoch, _SHUFFLE_SHARDS]).permutation(len(self.shards)).tolist()
        start = 0
        for number in numbers:
            shard = self.shards[number]
            low, high = np.searchsorted(positions, [start, start + shard.samples])
            if low < high:
                for offset, record in self._read_shard(shard, positions[low:high] - start):
                    yield start + offset, record
            start += shard.samples

    def _read_shard(self, shard: Shard, offsets: np.ndarray) -> Iterator[tuple[int, Record]]:
        wanted = iter(offsets.tolist())
        offset: int | None = next(wanted)
        to_end = offsets[-1] == shard.samples - 1
        found = 0
        with ShardReader(shard.path, self._language) as reader:
            for found, sample in enumerate(reader.samples(), start=1):
                if found - 1 == offset:
                    try:
                        record: Any = reader.record(sample)
                    except InvalidRecordError as error:
                        if self.on_error == "raise" or isinstance(error, BrokenShardError):
                            raise
                        record = error
                    yield offset, record
                    offset = next(wanted, None)
                if offset is None and not to_end:
                    return
        check_count(shard, found)

    def _settings(self) -> dict[str, Any]:
        names = ("batch_size", "rank", "world_size", "drop_last", "shuffle", "buffer_size", "seed")
        worker = get_worker_info()
        samples = [shard.samples for shard in self.shards]
        return {
            **{name: getattr(self, name) for name in names},
            "worker": (worker.id, worker.num_workers) if worker else None,
            "shards": samples,
        }


def buffered_shuffle(positions: range, buffer_size: int, rng: np.random.Generator) -> Iterator[int]:
    """Give out `positions` in a random order in which none comes more than `buffer_size` early."""
    buffer: list[int] = []
    for position in positions:
        if len(buffer) < buffer_size:
            buffer.append(position)
            continue
        chosen = int(rng.integers(buffer_size))
        yield buffer[chosen]
        buffer[chosen] = position
    rng.shuffle(buffer)
    yield from buffer
