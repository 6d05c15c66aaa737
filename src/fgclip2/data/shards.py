"""Streams of records out of tar shards, for data that does not fit a disk or is slow to read at random."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import accumulate, chain, compress, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ..checks import check_choice, check_positive_integer
from ..languages import Language
from .records import InvalidRecordError, Record, read_image_size
from .sampling import check_language_shares, warn_of_copies
from .shard_files import BrokenShardError, ShardReader, check_count
from .shard_mixture import ShardCell, ShardMixture, ShardPart, find_sources
from .stream_orders import buffered_shuffle, order_by_patches, passes_begun, window_lengths

logger = logging.getLogger(__name__)

# Streams of random numbers; 0 is that of the orders of shards.
_SHUFFLE_SAMPLES, _SHUFFLE_BATCHES, _SHUFFLE_ALIKE, _SHUFFLE_SOURCES = range(1, 5)
_FEW_BATCHES = 8  # among which images of about as many patches hardly meet


class ShardedRecords(IterableDataset):
    """A stream of records out of tar shards, divided over ranks and workers without overlap or loss.

    The shards of an epoch (in an order drawn for it) are one long row of samples. Ranks take even parts of it and,
    within a rank, DataLoader workers take even numbers of batches, so any number of shards serves any number of ranks
    and workers; of a shard on a border each side reads its own samples. Within its part each worker shuffles through a
    bounded buffer. Nothing but `seed`, epoch and these numbers decides the order.

    With `language_batches="homogeneous"` the samples of each language are such a row by themselves, and the batches
    that ranks have at the same time are all of one language, in an order of languages drawn for the epoch.

    After `group_by_patches`, images of about as many patches share a batch, and the batches that ranks have at the same
    time are of about as many.

    Use it as `DataLoader(dataset, batch_size=dataset.batch_size, drop_last=dataset.drop_last, num_workers=...)`: every
    rank then has exactly `ceil(len(dataset) / batch_size)` batches (all full with `drop_last`). Call `set_epoch` before
    each epoch (persistent workers see it too).

    With `sampling_rates` each source is gone through in passes, from a random sample on in a random order of its
    shards, and an epoch goes on where the last one stopped. Each worker has its part of every pass over every source.
    Sources take turns in it at random, each with its share of the buffer, which is empty before another pass fills it:
    copies of a sample meet only in batches around the end of a pass. (Of a source so small that a worker has few
    samples of a pass, passes run side by side, and copies may meet anywhere.) `.tar` of one rate and language that
    follow each other are one source. With `language_shares` the languages of a source are as several sources.

    Restart in mid-epoch: `set_epoch(epoch, batches)` with the number of batches that this rank has had, on the same
    shards with the same arguments and number of workers, gives exactly the batches that were left, in their order.
    (`state_dict` and `load_state_dict` do it by samples without workers, or in loaders that call them in the workers;
    of a loader that fetches ahead they count what was fetched.) Samples passed over are not read, only their headers,
    and in homogeneous batches their texts.

    Args:
        shards: What `list_shards` takes: one source, or a list of them. With an index nothing is opened before it is
            needed, with homogeneous batches if it has the languages (as `write_shards` makes it): else all texts are
            read once to count them.
        batch_size: Records per batch of one rank.
        rank, world_size: The place of this process among all, and their number.
        drop_last: True, for training: all ranks have the same number of whole batches; what is left over (other
            samples in each epoch, for shards are reordered; of one shard without rates always its end) is counted and
            logged. False, for evaluation: every sample once; the parts of ranks differ by at most one sample.
        shuffle: False keeps the order of shards and samples.
        buffer_size: Records in the buffer of each worker, encoded images included; the languages of homogeneous batches
            share it.
        seed: Seed of the orders.
        language: The language of all records, or a list with that of each source. None: by `is_cn`, else detected.
        on_error: "raise" what is wrong with a sample or a shard, or give it out in the place of each record that can't
            be read ("skip"), so that the number of samples, and of batches, stays what it is. Of a broken shard without
            an index what comes before the break is taken.
        language_batches: "mixed", or "homogeneous": all records of a batch, on all ranks, are of one language. Needs
            `drop_last`. A language with too few samples for one batch on every rank is never given out, with a warning.
        follow_links: Also read shards that links in their folder lead to outside it.
        sampling_rates: How many times an epoch takes the samples of each source: 3 takes each sample three times, 0.25
            takes a quarter of them, another in each epoch, and 2.5 takes each twice and half of them a third time.
            `None`, or 1 throughout: once, in one order of the shards of all. With others there may be 64 sources, for
            each worker has a shard of every one open; with `language_shares` or homogeneous batches languages count.
        language_shares: Share of each language in the samples of an epoch, e.g. `{"en": 0.5, "zh": 0.5}`; `None`: as
            the sources have them. Where no index has the numbers of each language, all texts are read once.

    Attributes:
        mixture: What an epoch draws of each source and language.
        shards, total: The shards of all sources, and the number of their samples.
        never_drawn: Language -> its draws of an epoch, where these don't fill a batch.

    Raises:
        ValueError: Arguments are out of range, there are no shards, fewer samples than ranks need, or
            `language_shares` are not those of the languages that there are.
        BrokenShardError: (also while iterating) A shard can't be read, is cut off, corrupt, or does not hold what the
            index says.
        InvalidRecordError: (while iterating) A sample can't be used.

    Example:
        >>> records = ShardedRecords("shards/", batch_size=32, rank=0, world_size=1, drop_last=True)
        >>> loader = DataLoader(records, batch_size=32, drop_last=True, num_workers=2, collate_fn=list)
        >>> weighted = ShardedRecords(["web/", "captioned/"], batch_size=32, drop_last=True, sampling_rates=[0.5, 3])
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
        language: Language | Sequence[Language | None] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        language_batches: Literal["homogeneous", "mixed"] = "mixed",
        follow_links: bool = False,
        sampling_rates: Sequence[float] | None = None,
        language_shares: Mapping[str, float] | None = None,
    ):
        check_choice("on_error", on_error, ("raise", "skip"))
        check_choice("language_batches", language_batches, ("homogeneous", "mixed"))
        for name, value in (("batch_size", batch_size), ("world_size", world_size), ("buffer_size", buffer_size)):
            check_positive_integer(name, value)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to {world_size - 1} for world_size={world_size}, got {rank}")
        if language_batches == "homogeneous" and not drop_last:
            raise ValueError("language_batches='homogeneous' needs drop_last=True, for all its batches are whole ones")
        if language_shares is not None:
            check_language_shares(language_shares)
        self.batch_size, self.rank, self.world_size, self.drop_last = batch_size, rank, world_size, drop_last
        self.shuffle, self.buffer_size, self.seed = shuffle, buffer_size, seed
        self.on_error, self.language_batches, self.language_shares = on_error, language_batches, language_shares
        sources = find_sources(shards, language, sampling_rates, follow_links)
        self.mixture = ShardMixture(sources, language_batches, language_shares, on_error, seed if shuffle else None)
        self.shards, self.total, self._rows = self.mixture.shards, int(self.mixture.counts.sum()), self.mixture.rows
        needed = world_size * (batch_size if drop_last else 1)
        if not any(len(row) >= needed for row in self._rows):  # on all ranks alike, so that none waits for another
            has = " and ".join(f"{len(row)} {row.language}" if row.language else f"{len(row)}" for row in self._rows)
            of_one = " of one language (or language_batches='mixed')" if len(self._rows) > 1 else ""
            raise ValueError(
                f"{world_size} ranks need at least {needed} samples{of_one}, and an epoch of the shards has {has}"
            )
        self.never_drawn = {row.language: len(row) for row in self._rows if row.language and 0 < len(row) < needed}
        if rank == 0:
            self._warn()
        # Epoch, batches already had, and whether to stand in for them, in shared memory: persistent workers live on.
        self._position = torch.zeros(3, dtype=torch.int64).share_memory_()
        self._count_patches: Callable[[int, int], int] | None = None  # None: batches by chance
        self._emitted = 0  # samples, of the running iteration in this process
        self._skip = 0  # samples, of the next iteration

    def _warn(self) -> None:
        """Warn of what is never given out, and of what a batch has several times."""
        for name, count in self.never_drawn.items():
            logger.warning(
                "samples in language %r are never trained on: the %d of an epoch don't fill one batch of %d on each of "
                "%d ranks. Set language_batches='mixed', choose a smaller batch, or add samples",
                name,
                count,
                self.batch_size,
                self.world_size,
            )
        mixture, size = self.mixture, self.batch_size * self.world_size
        warn_of_copies(mixture.counts, mixture.draws, size, mixture.columns, len(self._rows) > 1)

    def __len__(self) -> int:
        """Return the number of samples of this rank in a whole epoch."""
        return sum(len(self._part_of_rank(row)) for row in range(len(self._rows)))

    @property
    def _drawn(self) -> int:
        return sum(map(len, self._rows))

    @property
    def left_out(self) -> int:
        """Samples of an epoch that no rank gets; 0 without `drop_last`."""
        return self._drawn - len(self) * self.world_size if self.drop_last else 0

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
            logger.info("epoch %d: %d of %d samples are left out for even ranks", epoch, self.left_out, self._drawn)

    def group_by_patches(self, count_patches: Callable[[int, int], int]) -> None:
        """Let images of about as many patches share a batch from the next iteration on.

        A window of the samples in the buffer is put in order of its patches at a time; its batches are shuffled, and so
        are samples of equal counts. The size of an image is that of its `.json` (`height` and `width`, as
        `write_shards` writes them), else it is read from the image's header. A run that goes on within an epoch reads
        the window that it is in again.

        Args:
            count_patches: Takes height and width of an image in pixels, either way round, and returns its patches; is
                pickled for workers.

        Raises:
            ValueError: The data set is not one for training, with `shuffle` and `drop_last`.
        """
        if not self.shuffle or not self.drop_last:
            raise ValueError(
                f"batches of images with about as many patches need shuffle=True and drop_last=True, got "
                f"{self.shuffle} and {self.drop_last}"
            )
        self._count_patches = count_patches
        batches = self._batches_in_buffer
        if batches < _FEW_BATCHES and self.rank == 0:
            logger.warning(
                "images of about as many patches are looked for among %d batches of %d only, which is all that the "
                "buffer of %d samples%s holds: choose a larger one",
                batches,
                self.batch_size,
                self.buffer_size,
                " of two languages" if len(self._rows) > 1 else "",
            )

    @property
    def _batches_in_buffer(self) -> int:
        return max(1, self.buffer_size // len(self._rows) // self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """Return where the iteration in this process is, for `load_state_dict` on equal arguments."""
        return {"epoch": self.epoch, "batches": int(self._position[1]), "samples": self._emitted, **self._settings()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on where a state was taken.

        Raises:
            ValueError: The state is of other shards or arguments, which would repeat and lose samples.
        """
        settings = self._settings()
        # States of older releases are without some.
        older = {"sampling_rates": None, "language_shares": None, "cells": settings["cells"]}
        state = {"language_batches": "mixed", "patch_batches": "any", **older, **state}
        for name, value in settings.items():
            if state.get(name) != value:
                raise ValueError(f"the state's {name} must be {value!r}, as this data set has, got {state.get(name)!r}")
        self._position.copy_(torch.tensor([state["epoch"], state["batches"], 0]))
        self._emitted = self._skip = state["samples"]

    def __iter__(self) -> Iterator[Any]:  # Record; its error with on_error="skip"; None for a placeholder
        return (record for record, _ in self.with_passes())

    def with_passes(self) -> Iterator[tuple[Any, int]]:
        """Yield what iterating yields, each with the number of the pass over its source.

        With a rate of 1 that is the epoch, with a rate of 3 an epoch has three passes. What is random about a sample
        follows from it, so that each copy of a record is another sample.
        """
        worker = get_worker_info()
        index, count = (worker.id, worker.num_workers) if worker else (0, 1)
        epoch, batches, placeholders = self._position.tolist()
        # Batches come from the workers in turn: after `batches` of them it is the turn of another than the first.
        role = index if placeholders else (index + batches) % count
        row_of_batch = self._row_of_batch(epoch)[role::count]  # (batches of this worker,)
        parts = [self._part_of_worker(role, count, row, epoch) for row in range(len(self._rows))]
        had = min(len(range(role, batches, count)) * self.batch_size, sum(map(len, parts)))
        if placeholders:
            yield from ((None, epoch) for _ in range(had))
        self._emitted, self._skip = self._skip, 0
        whole, rest = divmod(had + self._emitted, self.batch_size)  # batches, and samples of the next one
        had_of_row = np.bincount(row_of_batch[:whole], minlength=len(parts)) * self.batch_size
        had_of_row[row_of_batch[whole : whole + 1]] += rest
        stream_of_row = self._stream if self._count_patches is None else self._stream_by_patches
        streams = [
            stream_of_row(row, part, role, epoch, had)
            for row, (part, had) in enumerate(zip(parts, had_of_row.tolist(), strict=True))
        ]
        for batch, row in enumerate(row_of_batch[whole:].tolist()):
            for drawn in islice(streams[row], self.batch_size - (0 if batch else rest)):
                self._emitted += 1
                yield drawn
        for stream in streams:  # nothing is left, but the end of its last shard is still to be checked
            for _ in stream:
                raise AssertionError("a sample was read that no one asked for")

    def _row_of_batch(self, epoch: int) -> np.ndarray:
        """Return for each batch of a rank in an epoch the row that it is taken from; the same on all ranks."""
        batches = [-(-len(self._part_of_rank(row)) // self.batch_size) for row in range(len(self._rows))]
        rows = np.repeat(np.arange(len(self._rows)), batches)
        return np.random.default_rng([self.seed, epoch, _SHUFFLE_BATCHES]).permutation(rows) if self.shuffle else rows

    def _part_of_rank(self, row: int) -> range:
        """Return an even part of a row; with `drop_last` all ranks have as many whole batches."""
        total = len(self._rows[row])
        if self.drop_last:
            size = total // (self.world_size * self.batch_size) * self.batch_size
            return range(self.rank * size, (self.rank + 1) * size)
        start, stop = (total * rank // self.world_size for rank in (self.rank, self.rank + 1))
        return range(start, stop)

    def _part_of_worker(self, worker: int, workers: int, row: int = 0, epoch: int = 0) -> range:
        """Return a part of a row, of whole batches; batches in turn use up the rows, the last may not be full."""
        part, row_of_batch = self._part_of_rank(row), self._row_of_batch(epoch)
        sizes = [int((row_of_batch[w::workers] == row).sum()) * self.batch_size for w in range(workers)]
        sizes[(len(row_of_batch) - 1) % workers] -= sum(sizes) - len(part)  # not 0 only without `drop_last`
        start = part.start + sum(sizes[:worker])
        return range(start, start + sizes[worker])

    def _stream(self, row: int, part: range, role: int, epoch: int, had: int) -> Iterator[tuple[Any, int]]:
        """Give out the samples of a part of a row, but for the first `had`."""
        size = self.buffer_size // len(self._rows) if self.shuffle else 1
        return self._draw(row, part, role, epoch, self._turns(row, part, role, epoch), had, size)

    def _stream_by_patches(self, row: int, part: range, role: int, epoch: int, had: int) -> Iterator[tuple[Any, int]]:
        """Give out a part of a row window by window, in batches of about as many patches, but for the first `had`.

        While a window is given out the next is read, sample for sample: no more are held than the buffer has.
        """
        assert self._count_patches is not None
        count = cache(self._count_patches)  # photos have few sizes
        # Without the rank, so that at the same time all ranks have the few or the many patches of their windows.
        key = [self.seed, epoch, _SHUFFLE_ALIKE, role, row]
        lengths = window_lengths(len(part), self._batches_in_buffer, self.batch_size, np.random.default_rng(key))
        first = int(np.searchsorted(np.cumsum(lengths), had, side="right"))  # window, after those that were had whole
        start = sum(lengths[:first])
        had -= start
        turns = self._turns(row, part, role, epoch)
        samples = self._draw(row, part, role, epoch, turns, start, buffer_size=1)
        ahead = list(islice(samples, sum(lengths[first : first + 1])))
        for number in range(first, len(lengths)):
            window, ahead, next_length = ahead, [], sum(lengths[number + 1 : number + 2])
            patches = np.array([_patches_of(record, count) for record, _ in window])
            # Pass by pass, or copies of a record, which are alike, would meet.
            begun = passes_begun(turns[start : start + len(window)], np.array([of_record for _, of_record in window]))
            likeness = begun * (patches.max(initial=0) + 1) + patches
            of_rank, of_all = (np.random.default_rng([*key, number, *other]) for other in ([1, self.rank], [0]))
            for place, chosen in enumerate(order_by_patches(likeness, self.batch_size, of_rank, of_all)):
                if len(ahead) < next_length:
                    ahead.append(next(samples))
                drawn, window[chosen] = window[chosen], (None, 0)
                if place >= had:
                    yield drawn
            ahead += islice(samples, next_length - len(ahead))
            start, had = start + len(window), 0
        yield from samples  # none, but the end of the last shard is checked

    def _turns(self, row: int, part: range, role: int, epoch: int) -> np.ndarray:
        """Return for each sample of a part of a row which of its cells it is drawn from, uint8 (N,)."""
        counts = self._rows[row].divide(part.stop) - self._rows[row].divide(part.start)  # (cells,)
        if len(counts) == 1:
            return np.broadcast_to(np.uint8(0), len(part))  # which takes no memory
        turns = np.repeat(np.arange(len(counts), dtype=np.uint8), counts)
        if self.shuffle:
            np.random.default_rng([self.seed, epoch, _SHUFFLE_SOURCES, self.rank, role, row]).shuffle(turns)
        return turns

    def _draw(
        self, row: int, part: range, role: int, epoch: int, turns: np.ndarray, had: int, buffer_size: int
    ) -> Iterator[tuple[Any, int]]:
        """Draw the samples of a part of a row, but for the first `had`, where its cells take these turns."""
        of_row, streams = self._rows[row], []
        starts, stops = (of_row.divide(place).tolist() for place in (part.start, part.stop))
        for number, (cell, start, stop) in enumerate(zip(of_row.cells, starts, stops, strict=True)):
            # The first row and the first cell have the numbers that orders were drawn from before there were others.
            others = [row, number] if number else [row] if row else []
            rng = np.random.default_rng([self.seed, epoch, _SHUFFLE_SAMPLES, self.rank, role, *others])
            had_of_cell = int(np.count_nonzero(turns[:had] == number))
            size = max(1, buffer_size * cell.draws // len(of_row))
            streams.append(self._draw_of_cell(cell, cell.spans(epoch, start, stop), had_of_cell, size, rng))
        for number in turns[had:]:
            yield next(streams[number])
        for stream in streams:
            yield from stream  # none, but the end of its last shard is checked

    def _draw_of_cell(
        self, cell: ShardCell, spans: Sequence[range], had: int, buffer_size: int, rng: np.random.Generator
    ) -> Iterator[tuple[Any, int]]:
        """Draw the samples of these places of a cell, but for the first `had`, each with the pass it is drawn in.

        Each pass goes through a buffer that is empty before the next one fills it, so that copies don't meet there.
        """
        ends = accumulate(map(len, spans))
        passes = (range(end - len(span), end) for end, span in zip(ends, spans, strict=True))
        order = chain.from_iterable(buffered_shuffle(positions, buffer_size, rng) for positions in passes)
        remaining = np.ones(sum(map(len, spans)), dtype=bool)  # all that is kept for each sample: there may be millions
        for position in islice(order, had):
            remaining[position] = False
        # The samples are read one after another and given out in `order`.
        samples = (
            (record, shard.number_of_pass)
            for shard in cell.locate(spans, remaining)
            for record in self._read_shard(shard, cell.language)
        )
        read = zip(compress(range(len(remaining)), remaining), samples, strict=False)
        waiting: dict[int, tuple[Any, int]] = {}
        for position in order:
            while position not in waiting:
                read_position, drawn = next(read)
                waiting[read_position] = drawn
            yield waiting.pop(position)
        yield from samples  # none, but the end of the last shard is checked

    def _read_shard(self, part: ShardPart, language: Language | None) -> Iterator[Any]:
        """Read samples of a shard, whose offsets count all of them or those in a language."""
        path = self.shards[part.shard].path
        wanted = deque(part.offsets)
        found = 0
        try:
            with ShardReader(path, self.mixture.languages[part.shard]) as reader:
                for sample in reader.samples():
                    if language is not None and reader.language(sample) != language:
                        continue
                    if wanted and found == wanted[0]:
                        try:
                            record: Any = reader.record(sample)
                        except InvalidRecordError as error:
                            if self.on_error == "raise" or isinstance(error, BrokenShardError):
                                raise
                            record = error
                        wanted.popleft()
                        yield record
                    found += 1
                    if not wanted and part.offsets[-1] < part.samples - 1:
                        return  # the end of the shard is another worker's to check
            what = "samples" if language is None else f"samples in language {language!r}"
            check_count(path, found, part.samples, what)
        except BrokenShardError as error:
            if self.on_error == "raise":
                raise
            if not wanted:
                logger.warning("%s", error)
            yield from (error for _ in wanted)

    def _settings(self) -> dict[str, Any]:
        names = ("batch_size", "rank", "world_size", "drop_last", "shuffle", "buffer_size", "seed", "language_batches")
        worker = get_worker_info()
        return {
            **{name: getattr(self, name) for name in names},
            "patch_batches": "any" if self._count_patches is None else "alike",
            "worker": (worker.id, worker.num_workers) if worker else None,
            "shards": [shard.samples for shard in self.shards],
            "sampling_rates": self.mixture.sampling_rates,
            "language_shares": self.language_shares,
            "cells": [[cell.total, cell.draws] for row in self._rows for cell in row.cells],
        }


def _patches_of(record: Any, count_patches: Callable[[int, int], int]) -> int:
    """Return the patches of an image; 0 where there is none that can be read, with which its batch has to deal."""
    if not isinstance(record, Record):
        return 0
    try:
        return count_patches(*(record.image_size or read_image_size(record)))
    except (ValueError, OSError):
        return 0
