"""How many patches the images of a data set have, by their headers, so that batches can be chosen before decoding."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain, pairwise

import numpy as np
import torch

from ..data.records import RecordDataset, read_image_size
from ..distributed import device, gather_rows, rank, world_size
from ..modeling.interface import DualEncoderProcessor
from .sampler import PatchBatches

logger = logging.getLogger(__name__)

_THREADS = 16  # that wait for files
_BLOCK = 256  # records that a thread takes at a time


def check_patch_batches(patch_batches: PatchBatches, processor: DualEncoderProcessor) -> None:
    """Raise a `ValueError` if batches are to be alike in their patches, and images have none to choose by."""
    if patch_batches != "any" and processor.patch_budgets is None:
        raise ValueError(
            f"`patch_batches` must be 'any' for a model whose images all have the same patches, got {patch_batches!r}"
        )


def read_patch_counts(records: RecordDataset, count_patches: Callable[[int, int], int]) -> np.ndarray:
    """Count the patches of all images by the sizes that records state, else by headers.

    Each rank reads its part, and all have to call this.

    Args:
        records: The records of all ranks.
        count_patches: Takes height and width of an image in pixels, either way round, and returns its patches.

    Returns:
        uint16 (N,), at most 65,535; 0 for a record that can't be used, which its batch has to deal with.
    """
    start = time.perf_counter()
    count = cache(count_patches)  # photos have few sizes

    def patches_of(index: int) -> int:
        try:
            record = records[index]
            return count(*(record.image_size or read_image_size(record)))
        except (ValueError, OSError):
            return 0

    def patches_of_block(block: range) -> list[int]:
        return [patches_of(index) for index in block]

    ends = [len(records) * place // world_size() for place in range(world_size() + 1)]
    first, last = ends[rank()], ends[rank() + 1]
    blocks = [range(begin, min(begin + _BLOCK, last)) for begin in range(first, last, _BLOCK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        own = torch.tensor(list(chain.from_iterable(pool.map(patches_of_block, blocks))), dtype=torch.int32)
    counts = gather_rows(own.to(device()), [stop - begin for begin, stop in pairwise(ends)]).cpu().numpy()
    counts = counts.clip(max=np.iinfo(np.uint16).max).astype(np.uint16)  # kept by each process, for every record
    if rank() == 0:
        unread, seconds = int((counts == 0).sum()), time.perf_counter() - start
        logger.info("read the sizes of %d images in %.0f s; %d can't be read", len(counts), seconds, unread)
    return counts


def useful_share(batches: Iterable[np.ndarray]) -> float:
    """Return the share of vision tokens that are not padding, of batches given by the patches of their images."""
    useful, computed = 0, 0
    for patches in batches:
        useful += int(patches.sum())
        computed += int(patches.max()) * len(patches)
    return useful / computed
