"""Run a function on several real processes that talk over gloo."""

import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# Its processes are forked from one that has imported this and done nothing else, in place of importing it each anew.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["fgclip2", "fgclip2.training"])


def run_on_ranks(function: Callable[..., Any], world_size: int, *args: Any) -> list[Any]:
    """Call `function(*args)` on each rank and return what they return, in the order of ranks.

    The function must be importable (not local to a test), and what it returns made of tensors, numbers, strings, lists
    and dicts.
    """
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(_worker, (world_size, folder, function, args), world_size, start_method="forkserver")
        return [torch.load(Path(folder) / f"result{rank}.pt", weights_only=True) for rank in range(world_size)]


def _worker(rank: int, world_size: int, folder: str, function: Callable[..., Any], args: tuple) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    try:
        torch.save(function(*args), Path(folder) / f"result{rank}.pt")
    except Exception:
        traceback.print_exc()
        raise
    finally:
        # torch 2.6 joins its thread while it holds the GIL, for which that thread waits if it has the last reference to
        # a tensor of a collective that has just ended: both would wait for ever. Asleep, this one gives the GIL away.
        time.sleep(0.05)
        dist.destroy_process_group()
