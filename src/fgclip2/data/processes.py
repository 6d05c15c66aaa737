"""One function over many items in several processes, to which what is common to all items is sent once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import current_process, get_context
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

_MOST = 61  # processes of a pool; Windows has no more

Item = TypeVar("Item")
Result = TypeVar("Result")

GUARD = 'put what your script does under `if __name__ == "__main__":`, which the processes that it starts leave out'


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def processes_for(
    function: Callable[[Any, Item], Result], common: Any, processes: int
) -> Iterator[Callable[[Sequence[Item]], list[Result]]]:
    """Yield what returns `function(common, item)` for each of some items, and starts processes when it is called.

    Without processes this one does it: with `processes` below 2, in a process that may have no children, and, with a
    warning, what others leave undone that can't start or are killed, from then on.

    Args:
        function: An importable function.
        common: What is the same for all items, and may be large.
        processes: How many processes are started at most.
    """
    if processes < 2 or current_process().daemon:
        yield lambda items: [function(common, item) for item in items]
        return

    is_broken = False

    def run(items: Sequence[Item]) -> list[Result]:
        nonlocal is_broken
        results: list[Result] = []
        if not is_broken:
            try:
                for result in pool.map(_call, items):
                    results.append(result)  # noqa: PERF402  # what is there stays there where a process ends early
            except BrokenProcessPool:
                is_broken = True
                logger.warning(
                    "one process goes on with the work of %d, for some ended early: if at their start, %s; else "
                    "memory may have run out",
                    processes,
                    GUARD,
                )
        return results + [function(common, item) for item in items[len(results) :]]

    with ProcessPoolExecutor(min(processes, _MOST), get_context("spawn"), _keep, (function, common)) as pool:
        yield run


_function: Callable[[Any, Any], Any]  # of a process that was started
_common: Any


def _keep(function: Callable[[Any, Any], Any], common: Any) -> None:
    global _function, _common
    _function, _common = function, common


def _call(item: Any) -> Any:
    return _function(_common, item)
