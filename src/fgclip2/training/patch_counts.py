"""How many patches the images of a data set have, by their headers, so that batches can be chosen before decoding."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import chain, pairwise

import numpy as np
import torch

from ..data.processes import available_cores, processes_for
from ..data.readers.checks import MAX_SIDE
from ..data.records import RecordDataset, read_image_size
from ..distributed import (
    broadcast_object,
    device,
    gather_objects,
    gather_rows,
    map_on_machine,
    max_over_ranks,
    rank,
    ranks_of_machine,
    sum_over_ranks,
    world_size,
)
from ..modeling.interface import DualEncoderProcessor
from .sampler import PatchBatches

logger = logging.getLogger(__name__)

_THREADS = 16  # that wait for files
_RECORDS_AT_ONCE, _RECORDS_PER_PROCESS = 2**12, 2**15  # a process takes seconds to start
_BLOCK = 2**18  # records whose sizes are looked for, and kept, at a time
_COUNTED_AT_ONCE = 2**15  # records
_SIZES = 2**18  # whose patches are remembered; photos have few
_COUNTS = np.dtype(np.uint16)


def check_patch_batches(patch_batches: PatchBatches, processor: DualEncoderProcessor) -> None:
    """Raise a `ValueError` if batches are to be alike in their patches, and images have none to choose by."""
    if patch_batches != "any" and processor.patch_budgets is None:
        raise ValueError(
            f"`patch_batches` must be 'any' for a model whose images all have the same patches, got {patch_batches!r}"
        )


def read_patch_counts(records: RecordDataset, count_patches: Callable[[int, int], int]) -> np.ndarray:
    """Count the patches of all images, by sizes that an earlier run has kept, that records state, or of headers.

    Each rank reads its part of what is not known yet, and all have to call this. What can't be read is tried again in
    the next run. The processes of a machine hold the counts once.

    Args:
        records: The records of all ranks.
        count_patches: Takes height and width of an image in pixels, either way round, and returns its patches.

    Returns:
        uint16 (N,), at most 65,535; 0 for a record that can't be used, which its batch has to deal with.
    """
    start, read, sizes = time.perf_counter(), 0, []
    cores = available_cores() // len(ranks_of_machine())
    for part in records.parts:
        sizes.append(np.zeros((len(part), 2), np.int32) if part.image_sizes is None else part.image_sizes)
        unknown = max_over_ranks(_count_unknown(sizes[-1]), device())
        if not unknown:
            continue
        # Records without an index may be of a class that can't be sent to processes, or hold their images.
        own = 0 if part.image_sizes is None else unknown // world_size()
        processes = min(cores, own // _RECORDS_PER_PROCESS)
        with processes_for(_read_sizes, part, processes) as read_in_processes:
            read += _complete(sizes[-1], read_in_processes)
    if read and rank() == 0:
        unread, seconds = sum(map(_count_unknown, sizes)), time.perf_counter() - start
        logger.info("read the sizes of %d images in %.0f s; %d can't be read", read, seconds, unread)
    count = lru_cache(_SIZES)(partial(_count, count_patches))
    blocks = chain.from_iterable(_blocks(known, _COUNTED_AT_ONCE) for known in sizes)
    counts = map_on_machine([(len(block), partial(_count_block, block, count)) for block in blocks], _COUNTS)
    return _of_rank_0(counts)


def _count_unknown(sizes: np.ndarray) -> int:
    return sum(int((block[:, 0] == 0).sum()) for block in _blocks(sizes, _BLOCK))


def _blocks(sizes: np.ndarray, length: int) -> Iterator[np.ndarray]:
    return (sizes[first : first + length] for first in range(0, len(sizes), length))


def _of_rank_0(counts: np.ndarray) -> np.ndarray:
    """Return the counts of rank 0 where those of another machine differ, which may have kept other sizes."""
    if len(set(gather_objects(digest_of_counts(counts)))) == 1:
        return counts
    if rank() == 0:
        logger.warning("machines know other sizes of some images: those that the machine of rank 0 knows are taken")
    taken = broadcast_object(counts)
    return map_on_machine([(len(taken), partial(np.asarray, taken))], _COUNTS)


def digest_of_counts(counts: np.ndarray) -> str:
    """Return a text that differs for other counts."""
    return hashlib.blake2b(np.ascontiguousarray(counts).data, digest_size=16).hexdigest()


def _complete(sizes: np.ndarray, read_sizes: Callable[[Sequence[Sequence[int]]], list[list[tuple[int, int]]]]) -> int:
    """Read the sizes that some rank does not know, int32 (N, 2), each rank a part of them; returns how many."""
    read = 0
    for number, block in enumerate(_blocks(sizes, _BLOCK)):
        is_missing = torch.from_numpy((block[:, 0] == 0).astype(np.int32))
        missing = sum_over_ranks(is_missing.to(device())).nonzero()[:, 0].tolist()
        if not missing:
            continue
        ends = [len(missing) * place // world_size() for place in range(world_size() + 1)]
        begins = range(ends[rank()], ends[rank() + 1], _RECORDS_AT_ONCE)
        own = [missing[begin : min(begin + _RECORDS_AT_ONCE, begins.stop)] for begin in begins]
        read_by_rank = chain.from_iterable(read_sizes([[number * _BLOCK + place for place in some] for some in own]))
        rows = torch.tensor(list(read_by_rank), dtype=torch.int32, device=device()).reshape(-1, 2)
        found = gather_rows(rows, [stop - begin for begin, stop in pairwise(ends)]).cpu().numpy()
        block[missing] = np.where(found == 0, block[missing], found)
        read += len(missing)
    return read


def _read_sizes(records: RecordDataset, numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Read height and width of images by the numbers of their records; zeros where that fails."""
    with ThreadPoolExecutor(_THREADS) as pool:  # for what waits is the disk
        return list(pool.map(partial(_read_size, records), numbers))


def _read_size(records: RecordDataset, number: int) -> tuple[int, int]:
    try:
        record = records[number]
        height, width = record.image_size or read_image_size(record)
    except (ValueError, OSError):
        return 0, 0
    return min(height, MAX_SIDE), min(width, MAX_SIDE)


def _count(count_patches: Callable[[int, int], int], height: int, width: int) -> int:
    try:
        return min(count_patches(height, width), np.iinfo(_COUNTS).max) if height and width else 0
    except ValueError:
        return 0


def _count_block(sizes: np.ndarray, count: Callable[[int, int], int]) -> np.ndarray:
    """Count the patches of images by their sizes, (N, 2), each distinct size once; uint16 (N,)."""
    heights, widths = sizes.astype(np.int64).T
    distinct, number = np.unique(heights << 32 | widths, return_inverse=True)
    counts = [count(size >> 32, size & MAX_SIDE) for size in distinct.tolist()]
    return np.array(counts, _COUNTS)[number]


def useful_share(batches: Iterable[np.ndarray]) -> float:
    """Return the share of vision tokens that are not padding, of batches given by the patches of their images."""
    useful, computed = 0, 0
    for patches in batches:
        useful += int(patches.sum())
        computed += int(patches.max()) * len(patches)
    return useful / computed
