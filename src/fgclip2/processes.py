"""Processes that a command starts to share its work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any


def end_with_parent() -> None:
    """Let this process leave Ctrl-C to the one that has started it, and end with that one, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the parent ends the others
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_wait_for_the_end_of, args=(parent,), daemon=True).start()


def _wait_for_the_end_of(parent: Any) -> None:
    parent.join()
    os._exit(1)
