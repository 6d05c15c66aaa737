"""Times and memory on a device that computes behind the back of its host."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from ..perf.measuring import added_peak_memory, peak_memory
from .records import NotAvailableError, Settings

WARM_UP = 3  # calls before the clock starts: kernels are chosen, memory is reserved, clocks rise
REPEATS = 5  # times of which the median counts
SECONDS = 2.0  # of all repeats of a call
MOST_CALLS = 100  # in a repeat


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds_of(call: Callable[[], object], settings: Settings) -> float:
    """Return the median seconds of a call among calls one right behind another, as a loop over batches makes them.

    The host waits for the device before and after a series, not between its calls: what the host does for the next
    call while the device computes costs nothing.
    """
    device = settings.device
    for _ in range(settings.pick(WARM_UP, 1)):
        call()
    one = _seconds_of_series(call, 1, device)
    calls = settings.pick(max(1, min(MOST_CALLS, int(SECONDS / REPEATS / one))), 1)
    return statistics.median(_seconds_of_series(call, calls, device) / calls for _ in range(settings.pick(REPEATS, 1)))


def _seconds_of_series(call: Callable[[], object], calls: int, device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    synchronize(device)
    return time.perf_counter() - start


def memory_of(call: Callable[[], object], device: torch.device) -> tuple[int, int]:
    """Return by how many bytes a call's peak is above what was held before it, and the peak itself.

    Of a device, what torch has allocated on it counts; on the CPU what the process holds.

    Raises:
        NotAvailableError: The device does not tell.
    """
    if device.type == "cpu":
        return added_peak_memory(call), peak_memory()
    module = torch.get_device_module(device)
    if not hasattr(module, "max_memory_allocated"):
        raise NotAvailableError(f"torch has no peak of memory for {device.type}")
    synchronize(device)
    before = module.memory_allocated(device)
    module.reset_peak_memory_stats(device)
    call()
    synchronize(device)
    peak = module.max_memory_allocated(device)
    return peak - before, peak


def matrix_peak(settings: Settings, dtype: torch.dtype = torch.bfloat16) -> float:
    """Return operations a second of a large square matrix product of random values."""
    side = settings.pick(8192, 64)
    first, second = (torch.randn(side, side, device=settings.device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(first)
    return 2 * side**3 / seconds_of(lambda: torch.mm(first, second, out=product), settings)
