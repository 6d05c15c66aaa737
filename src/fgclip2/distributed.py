"""Every collective of the package. With one process, or outside `torch.distributed`, each is what it is for one rank.

All ranks must call the same functions in the same order, whatever data they have; rows may be unevenly spread, also
none on a rank. Device and backend are those of the tensors and of the default process group.
"""

from __future__ import annotations

import gc
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

# A process that finds its work done before waits for others that do theirs; of one that died, torchrun tells them.
_LONGEST_WAIT = timedelta(days=1)
_LAST_TENSORS = 0.5  # seconds; gloo's threads have no end that one could wait for as long as a model keeps the group


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def device() -> torch.device:
    """Return where the default process group's tensors must be: the accelerator, but for gloo and MPI the CPU."""
    on_cpu = world_size() == 1 or dist.get_backend() in ("gloo", "mpi")
    accelerator = None if on_cpu else torch.accelerator.current_accelerator()
    return accelerator or torch.device("cpu")


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


def start_process_group() -> None:
    """Join the other processes that `torchrun` has started; one plain process stays alone."""
    if "RANK" not in os.environ or world_size() > 1:
        return
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is not None:
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(dist.get_default_backend_for_device(accelerator or "cpu"), timeout=_LONGEST_WAIT)


def end_process_group() -> None:
    """Let all processes come to their end before they part: the last call of a script under `torchrun`.

    Without it gloo may abort a process after all its work is done: when others are gone, or when one of gloo's threads
    lets go of a tensor while the interpreter ends. With torch 2.6 it may also wait for ever: the group
    joins its threads while it holds the GIL, which one of them needs to let go of the last collective's tensor.
    """
    barrier()
    if dist.is_available() and dist.is_initialized():
        time.sleep(_LAST_TENSORS)  # before the group ends, and so before the interpreter does
        dist.destroy_process_group()
        gc.collect()  # a wrapped model that is not used any more keeps the group, and its threads


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """Sum of a tensor over all ranks, on each of them, as a new tensor; carries no gradient."""
    total = tensor.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def max_over_ranks(value: int, device: torch.device) -> int:
    """Largest of the ranks' numbers."""
    if world_size() == 1:
        return value
    largest = torch.tensor(value, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest.item())


def mean_over_ranks(tensor: Tensor) -> Tensor:
    """Mean of a tensor over all ranks, on each of them, as a new tensor; carries no gradient."""
    return sum_over_ranks(tensor) / world_size()


def counts_over_ranks(counts: list[int], device: torch.device) -> list[list[int]]:
    """Counts of each rank: one list per rank, in one collective."""
    if world_size() == 1:
        return [counts]
    own = torch.tensor(counts, device=device)
    gathered = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(gathered, own)
    return torch.stack(gathered).tolist()


def gather_objects(value: object) -> list:
    """Return what each rank passes, in the order of ranks, on every rank; pickled on its way, so for small things."""
    if world_size() == 1:
        return [value]
    gathered: list = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def ranks_of_machine() -> list[int]:
    """Return the ranks of the processes that run on the machine of this one, and see the same temporary files."""
    boot, folder = Path("/proc/sys/kernel/random/boot_id"), Path(tempfile.gettempdir()).stat()
    machine = boot.read_text() if boot.exists() else (socket.gethostname(), uuid.getnode())
    places = gather_objects((machine, folder.st_dev, folder.st_ino))  # a container has temporary files of its own
    return [number for number, place in enumerate(places) if place == places[rank()]]


def broadcast_object(value: Any) -> Any:
    """Return what rank 0 passes, on every rank; pickled on its way."""
    if world_size() == 1:
        return value
    values = [value if rank() == 0 else None]
    dist.broadcast_object_list(values, device=device())
    return values[0]


def map_on_machine(blocks: Sequence[tuple[int, Callable[[], np.ndarray]]], dtype: np.dtype[Any]) -> np.ndarray:
    """Return an array that the processes of a machine hold once: each makes a part of it, and all map it.

    It is in a temporary file, which is gone with the processes; on Windows with the other temporary files.

    Args:
        blocks: Number of values of each part of the array, and what makes them, which one of the processes calls.
        dtype: Of the values.

    Returns:
        Shape (sum of the numbers,), not to be written to.

    Raises:
        Exception: What one of the processes has raised in making its part or in writing it, on all of them.
    """
    if world_size() == 1:
        return np.concatenate([make() for _, make in blocks])
    members = ranks_of_machine()
    is_first = rank() == members[0]
    file = _new_file() if is_first else None
    with gather_objects(file)[members[0]].open("r+b") as values:
        barrier()
        if file is not None:
            with suppress(PermissionError):  # of Windows, where what is open can't be removed
                file.unlink()
        error = None
        try:
            for number, (count, make) in enumerate(blocks):
                if members[number % len(members)] == rank():
                    values.write(make().astype(dtype, copy=False).data)
                else:
                    values.seek(count * dtype.itemsize, os.SEEK_CUR)
            values.flush()
        except Exception as raised:  # of which the others have to know, or they would wait
            error = raised
        for failed in filter(None, gather_objects(error)):
            raise failed
        return np.asarray(np.memmap(values, dtype, "r", shape=(sum(count for count, _ in blocks),)))


def join_on_machine(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate arrays (N,) of one dtype that all processes have; the processes of a machine hold the result once."""
    return map_on_machine([(len(array), partial(np.asarray, array)) for array in arrays], arrays[0].dtype)


def _new_file() -> Path:
    handle, name = tempfile.mkstemp(prefix="fgclip2-")
    os.close(handle)
    return Path(name)


def gather_rows(tensor: Tensor, counts: list[int]) -> Tensor:
    """Concatenate the rows of all ranks, with exact gradients.

    Args:
        tensor: Shape (counts[rank], ...), of equal trailing shape and dtype on all ranks.
        counts: Rows of each rank, see [`counts_over_ranks`].

    Returns:
        Shape (sum of counts, ...), in the order of ranks. The gradient of a rank's rows is the sum of what all ranks
        compute for them.
    """
    return tensor if world_size() == 1 else _GatherRows.apply(tensor, counts)


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tensor: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        own = _padded(tensor, max(counts))
        gathered = [torch.empty_like(own) for _ in counts]
        dist.all_gather(gathered, own)
        return torch.cat([rows[:count] for rows, count in zip(gathered, counts, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        start = sum(ctx.counts[: rank()])
        return total[start : start + ctx.counts[rank()]], None


def ring_blocks(tensor: Tensor, counts: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Yield (rank, its rows) for each rank, own rows first; carries no gradient.

    The next block is on its way while the caller works with this one, and there are never more than two: memory does
    not grow with the number of ranks. Arguments as in [`gather_rows`].
    """
    world, block = world_size(), _padded(tensor.detach(), max(counts))
    for step in range(world):
        transfer = _Transfer(block) if step < world - 1 else None
        source = (rank() - step) % world
        yield source, block[: counts[source]]
        if transfer is not None:
            block = transfer.wait()


def ring_sum(tensor: Tensor, counts: list[int], function: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Sum over ranks of what each computes for this rank's rows.

    Args:
        tensor, counts: As in [`gather_rows`].
        function: Takes a rank and its rows, and returns a tensor of their shape.

    Returns:
        Shape of `tensor`. The sums travel behind the rows they belong to and come home after the last step.
    """
    sums: Tensor | None = None
    transfer: _Transfer | None = None
    for source, block in ring_blocks(tensor, counts):
        sums = _padded(function(source, block), max(counts))
        if transfer is not None:
            sums = sums + transfer.wait()  # what the ranks before have computed for the same rows
        if world_size() > 1:
            transfer = _Transfer(sums)
    if transfer is not None:
        sums = transfer.wait()
    assert sums is not None
    return sums[: counts[rank()]]


class _Transfer:
    """A tensor on its way to the next rank while as much comes from the one before."""

    def __init__(self, tensor: Tensor):
        self._sent = tensor  # kept alive until it has left
        self._received = torch.empty_like(tensor)
        self._requests = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, tensor, (rank() + 1) % world_size()),
                dist.P2POp(dist.irecv, self._received, (rank() - 1) % world_size()),
            ]
        )

    def wait(self) -> Tensor:
        for request in self._requests:
            request.wait()
        return self._received


def _padded(tensor: Tensor, rows: int) -> Tensor:
    """A contiguous copy-if-needed of `tensor` with zero rows appended."""
    missing = rows - len(tensor)
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])]) if missing else tensor.contiguous()
