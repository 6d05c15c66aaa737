"""WorkQueue: jobs of many requests gathered into batches of one kind, computed in threads, equal ones once."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

from .errors import ServiceError
from .metrics import Metrics

MOST_SECONDS_TO_WAIT = 60  # that a refused client is told to wait
WEIGHT_OF_LAST_BATCH = 0.2  # in the running mean of the seconds that a job takes


class Kind(NamedTuple):
    """What jobs of one batch have in common.

    Attributes:
        function: Called in a thread as `function(payloads, *options)`; returns a result for each payload. A result that
            is an exception fails its own job alone.
        options: The same for the whole batch, e.g. a patch budget or the role of texts.
        capacity: Most jobs of a batch.
    """

    function: Callable[..., Sequence[Any]]
    options: tuple[Hashable, ...]
    capacity: int


class Job(NamedTuple):
    """One thing to compute. Jobs of equal kinds and keys have equal results, and are computed once if they meet."""

    kind: Kind
    key: Hashable
    payload: Any


class _Entry:
    """A job under way: who waits for it, and its result, which may be an exception."""

    def __init__(self, job: Job, number: int):
        self.job = job
        self.number = number
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.waiters = 0
        self.is_started = False


class WorkQueue:
    """Jobs that wait for a bounded number of threads; those of the oldest kind go next, in one batch.

    There is no delay to fill batches: while all threads work, what arrives gathers by itself. All methods belong to the
    thread of the event loop.

    Args:
        threads: How many batches are computed at a time.
        limit: Most jobs that wait.
        metrics: Counts batches, and jobs that were asked for again while they were under way.
    """

    def __init__(self, threads: int, limit: int, metrics: Metrics):
        self.limit = limit
        self._metrics = metrics
        self._free = threads
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, "model")
        self._under_way: dict[tuple[Kind, Hashable], _Entry] = {}
        self._waiting: dict[Kind, dict[Hashable, _Entry]] = {}
        self._numbers = itertools.count()
        self._seconds_of_a_job = 0.0
        self._is_start_due = False

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return sum(map(len, self._waiting.values()))

    async def results(self, jobs: Sequence[Job], admitted: bool = False) -> list[Any]:
        """Return the results of jobs. Those that nobody waits for any more are dropped unless they have begun.

        Args:
            jobs: All of them are admitted, or none.
            admitted: Take them though the queue is full, as later steps of a request that was admitted.

        Raises:
            ServiceError: The queue is full (429).
            Exception: What the function of a kind raised or returned for a job.
        """
        new = {(job.kind, job.key) for job in jobs} - self._under_way.keys()
        if not admitted and self.waiting + len(new) > self.limit:
            self._metrics.refused.inc()
            raise ServiceError(
                429,
                "queue_full",
                f"{self.waiting} of at most {self.limit} inputs are waiting for the model: try again later",
                retry_after=self._seconds_to_wait(),
            )
        self._metrics.shared.inc(len(jobs) - len(new))
        entries = [self._enter(job) for job in jobs]
        try:
            results = [await asyncio.shield(entry.future) for entry in entries]
        finally:
            for entry in entries:
                self._leave(entry)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return results

    def close(self) -> None:
        """Wait for the threads, which finish what they have begun."""
        self._pool.shutdown()

    def _seconds_to_wait(self) -> int:
        seconds = math.ceil(self._seconds_of_a_job * self.waiting / self._threads)
        return min(max(seconds, 1), MOST_SECONDS_TO_WAIT)

    def _enter(self, job: Job) -> _Entry:
        entry = self._under_way.get((job.kind, job.key))
        if entry is None:
            entry = self._under_way[job.kind, job.key] = _Entry(job, next(self._numbers))
            self._waiting.setdefault(job.kind, {})[job.key] = entry
            self._metrics.waiting.set(self.waiting)
            if not self._is_start_due:  # after all jobs that arrive at this moment, so that they share a batch
                self._is_start_due = True
                asyncio.get_running_loop().call_soon(self._start_batches)
        entry.waiters += 1
        return entry

    def _leave(self, entry: _Entry) -> None:
        entry.waiters -= 1
        if not entry.waiters and not entry.is_started:
            self._take(entry.job.kind, [entry.job.key])
            del self._under_way[entry.job.kind, entry.job.key]

    def _take(self, kind: Kind, keys: list[Hashable]) -> list[_Entry]:
        """Remove entries from those that wait."""
        waiting = self._waiting[kind]
        taken = [waiting.pop(key) for key in keys]
        if not waiting:
            del self._waiting[kind]
        self._metrics.waiting.set(self.waiting)
        return taken

    def _start_batches(self) -> None:
        self._is_start_due = False
        while self._free and self._waiting:
            kind = min(self._waiting, key=lambda kind: next(iter(self._waiting[kind].values())).number)
            batch = self._take(kind, list(itertools.islice(self._waiting[kind], kind.capacity)))
            for entry in batch:
                entry.is_started = True
            self._free -= 1
            self._metrics.batch_size.labels(kind.function.__name__).observe(len(batch))
            payloads = [entry.job.payload for entry in batch]
            done = asyncio.get_running_loop().run_in_executor(self._pool, compute, kind, payloads)
            done.add_done_callback(partial(self._finish, batch, time.monotonic()))

    def _finish(self, batch: list[_Entry], start: float, done: asyncio.Future[list[Any]]) -> None:
        seconds = (time.monotonic() - start) / len(batch)
        self._seconds_of_a_job += WEIGHT_OF_LAST_BATCH * (seconds - self._seconds_of_a_job)
        self._free += 1
        for entry, result in zip(batch, done.result(), strict=True):
            del self._under_way[entry.job.kind, entry.job.key]
            entry.future.set_result(result)
        self._start_batches()


def compute(kind: Kind, payloads: list[Any]) -> list[Any]:
    """Return a result or an exception for each payload; one that fails its whole batch fails itself alone."""
    try:
        return list(kind.function(payloads, *kind.options))
    except BaseException as error:  # whatever it is, those who wait have to hear of it
        if len(payloads) == 1:
            return [error if isinstance(error, Exception) else RuntimeError(type(error).__name__)]
        return [result for payload in payloads for result in compute(kind, [payload])]
