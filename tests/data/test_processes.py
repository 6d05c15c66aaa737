"""Work of several processes, some of which end before it is done."""

import os
from multiprocessing import parent_process

from fgclip2.data.processes import processes_for


def times(factor: int, item: int) -> int:
    """Multiply, but for a process that others started, which is killed by a negative number."""
    if item < 0 and parent_process() is not None:
        os._exit(9)
    return factor * item


def test_where_processes_are_killed_one_goes_on_and_says_so_once(caplog):
    with processes_for(times, 3, 2) as run:
        assert run([1, 2]) == [3, 6]
        assert run([1, -2, 4]) == [3, -6, 12]
        assert run([5, -1]) == [15, -3]
    (warning,) = caplog.messages
    assert warning.startswith("one process goes on with the work of 2, for some ended early: if at their start, put")
    assert warning.endswith("else memory may have run out")
