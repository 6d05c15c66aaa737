"""The queue: batches of a kind, equal jobs once, bounds, and what becomes of jobs that nobody waits for."""

import asyncio
import threading

import pytest

from fgclip2.serving.errors import ServiceError
from fgclip2.serving.metrics import Metrics
from fgclip2.serving.work_queue import Job, Kind, WorkQueue


class Worker:
    """Doubles numbers, and notes the batches. It begins when `may_go` is set."""

    def __init__(self, capacity: int = 4):
        self.batches: list[list[int]] = []
        self.may_go = threading.Event()
        self.kind = Kind(self.double, (), capacity)

    def double(self, numbers):
        assert self.may_go.wait(10)
        self.batches.append(numbers)
        if any(number < 0 for number in numbers):
            raise ValueError("negative")
        return [ValueError("zero") if number == 0 else 2 * number for number in numbers]

    def jobs(self, *numbers):
        return [Job(self.kind, number, number) for number in numbers]


def run(scenario, worker, limit=100, threads=1):
    """Run a coroutine function with a queue, and close the queue."""

    async def main():
        queue = WorkQueue(threads, limit, Metrics())
        try:
            return await asyncio.wait_for(scenario(queue), 20)
        finally:
            worker.may_go.set()
            queue.close()

    return asyncio.run(main())


def test_what_arrives_while_the_threads_work_shares_a_batch_and_equal_jobs_are_one():
    worker, other = Worker(), Worker()
    other.may_go.set()

    async def scenario(queue):
        first = asyncio.ensure_future(queue.results(worker.jobs(1)))
        await asyncio.sleep(0.05)
        later = [
            asyncio.ensure_future(queue.results(worker.jobs(*numbers))) for numbers in ((2, 3), (3, 4, 5, 6), (1,))
        ]
        another = asyncio.ensure_future(queue.results(other.jobs(7)))
        await asyncio.sleep(0.05)
        assert queue.waiting == 6
        worker.may_go.set()
        return await asyncio.gather(first, *later, another)

    assert run(scenario, worker) == [[2], [4, 6], [6, 8, 10, 12], [2], [14]]
    assert worker.batches == [[1], [2, 3, 4, 5], [6]]  # the oldest kind goes next, at most its capacity


def test_the_oldest_kind_goes_next():
    worker, other = Worker(), Worker()
    order = []

    def note(numbers):
        order.append(numbers)
        return numbers

    kinds = [Kind(note, (option,), 4) for option in "ab"]
    kinds = [kind._replace(function=lambda numbers, option: note(numbers)) for kind in kinds]

    async def scenario(queue):
        first = asyncio.ensure_future(queue.results(worker.jobs(1)))
        await asyncio.sleep(0.05)
        jobs = [Job(kinds[number % 2], number, number) for number in range(6)]
        later = asyncio.ensure_future(queue.results(jobs))
        await asyncio.sleep(0.05)
        worker.may_go.set()
        await first
        return await later

    assert run(scenario, worker) == list(range(6))
    assert order == [[0, 2, 4], [1, 3, 5]]
    assert other.batches == []


def test_a_full_queue_refuses_and_says_when_to_come_back():
    worker = Worker()

    async def scenario(queue):
        first = asyncio.ensure_future(queue.results(worker.jobs(1)))
        await asyncio.sleep(0.05)
        waiting = asyncio.ensure_future(queue.results(worker.jobs(2, 3)))
        await asyncio.sleep(0)
        with pytest.raises(ServiceError, match="2 of at most 3 inputs are waiting") as refused:
            await queue.results(worker.jobs(4, 5))
        assert (refused.value.status, refused.value.code) == (429, "queue_full")
        assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
        again = asyncio.ensure_future(queue.results(worker.jobs(2, 3, 1, 4)))  # three of them are under way
        late = asyncio.ensure_future(queue.results(worker.jobs(5), admitted=True))
        await asyncio.sleep(0)
        worker.may_go.set()
        return await asyncio.gather(first, waiting, again, late)

    assert run(scenario, worker, limit=3) == [[2], [4, 6], [4, 6, 2, 8], [10]]


def test_a_job_that_fails_fails_alone():
    worker = Worker(capacity=8)
    worker.may_go.set()

    async def scenario(queue):
        requests = [queue.results(worker.jobs(*numbers)) for numbers in ((1, 2), (0,), (-1, 3), (4,))]
        return await asyncio.gather(*requests, return_exceptions=True)

    good, zero, negative, other = run(scenario, worker)
    assert (good, other) == ([2, 4], [8])
    assert str(zero) == "zero"
    assert str(negative) == "negative"


def test_what_nobody_waits_for_is_dropped():
    worker = Worker()

    async def scenario(queue):
        begun = asyncio.ensure_future(queue.results(worker.jobs(1)))
        await asyncio.sleep(0.05)
        given_up = asyncio.ensure_future(queue.results(worker.jobs(2, 3)))
        shared = asyncio.ensure_future(queue.results(worker.jobs(3)))
        await asyncio.sleep(0.05)
        begun.cancel()
        given_up.cancel()
        await asyncio.sleep(0.05)
        assert queue.waiting == 1
        worker.may_go.set()
        assert await shared == [6]
        return await queue.results(worker.jobs(1))  # what had begun has ended, and is not in the way

    assert run(scenario, worker) == [2]
    assert worker.batches == [[1], [3], [1]]
