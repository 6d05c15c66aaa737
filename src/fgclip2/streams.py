"""Streams of work: threads a bounded number of items ahead, batches of items of one kind, progress."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Kind = TypeVar("Kind", bound=Hashable)

ITEMS_WORTH_A_PROGRESS_BAR = 256


def bounded_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int
) -> Iterator[Result]:
    """Map in threads, results in order; unlike `Executor.map`, items are taken only `ahead` of what is asked for.

    Args:
        function: Called in the threads; its exceptions are raised where the result is asked for.
        items: May be endless; iterated in the calling thread.
        workers: Number of threads.
        ahead: How many items at most are under way or waiting to be fetched.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # After an error, or when the caller stops early, what has not begun is not worth doing.
            pool.shutdown(wait=False, cancel_futures=True)


def batches_of_a_kind(
    items: Iterable[Item],
    kind: Callable[[Item], Kind],
    capacity: Callable[[Kind], int],
    total: int | None = None,
    show_progress_bar: bool | None = False,
    unit: str = "item",
) -> Iterator[list[Item]]:
    """Gather a stream into batches in which all items are of one kind, holding one open batch of each kind.

    Args:
        items: May be endless.
        kind: The kind of an item, e.g. its patch budget; there should be few.
        capacity: Size of a full batch of a kind. Batches that are not full come last, the smallest kind first.
        total: Number of items, where it is known, for the progress bar.
        show_progress_bar: Show progress on stderr, a batch being done when the next one is asked for; `None`: on a
            terminal, for many items or an unknown number.
        unit: What the progress bar calls an item.
    """
    open_batches: dict[Kind, list[Item]] = {}
    is_small = total is not None and total < ITEMS_WORTH_A_PROGRESS_BAR
    # tqdm's own None hides the bar where there is no terminal.
    hidden = (is_small or None) if show_progress_bar is None else not show_progress_bar
    bar: Any = None
    if not hidden:
        from tqdm.auto import tqdm  # not above, for it takes longer than many a short stream

        bar = tqdm(total=total, disable=hidden, unit=unit)
    with nullcontext() if bar is None else bar:
        for item in items:
            batch = open_batches.setdefault(kind(item), [])
            batch.append(item)
            if len(batch) >= capacity(kind(item)):
                yield open_batches.pop(kind(item))
                if bar is not None:
                    bar.update(len(batch))
        for key in sorted(open_batches):  # type: ignore[type-var]
            yield open_batches[key]
            if bar is not None:
                bar.update(len(open_batches[key]))
        if bar is not None and total is not None:
            bar.update(total - bar.n)  # items that were left out on the way are done, too


def chunks(
    items: Iterable[Item],
    size: int,
    total: int | None = None,
    show_progress_bar: bool | None = False,
    unit: str = "item",
) -> Iterator[list[Item]]:
    """Gather a stream into lists of `size` items, the last one maybe shorter; see [`batches_of_a_kind`]."""
    return batches_of_a_kind(items, lambda _: 0, lambda _: size, total, show_progress_bar, unit)
