"""Random orders of samples that come one after another, of which only some are in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np


def buffered_shuffle(positions: range, buffer_size: int, rng: np.random.Generator) -> Iterator[int]:
    """Give out `positions` in a random order in which none comes more than `buffer_size` early."""
    if buffer_size == 1:
        yield from positions
        return
    buffer: list[int] = []
    for position in positions:
        if len(buffer) < buffer_size:
            buffer.append(position)
            continue
        chosen = int(rng.integers(buffer_size))
        yield buffer[chosen]
        buffer[chosen] = position
    rng.shuffle(buffer)
    yield from buffer


def window_lengths(total: int, batches: int, batch_size: int, rng: np.random.Generator) -> list[int]:
    """Cut a row of whole batches into windows of `batches`, the first of them shorter by chance.

    Windows then end at other samples in each epoch, where shards are as long as windows, too.
    """
    cuts = range(int(rng.integers(1, batches + 1)) * batch_size, total, batches * batch_size)
    return [stop - start for start, stop in pairwise([0, *cuts, total]) if stop > start]


def order_by_patches(
    patches: np.ndarray, batch_size: int, samples: np.random.Generator, batches: np.random.Generator
) -> list[int]:
    """Put the samples of a window in an order in which each batch has about as many patches throughout.

    Args:
        patches: Integer, shape (N,), of each sample; N is a multiple of `batch_size`.
        batch_size: Samples of a batch.
        samples: Shuffles the samples, of which those with equal counts stay shuffled.
        batches: Shuffles the batches.

    Returns:
        Each number from 0 to N - 1 once.
    """
    shuffled = samples.permutation(len(patches))
    by_patches = shuffled[np.argsort(patches[shuffled], kind="stable")]  # (N,)
    return batches.permutation(by_patches.reshape(-1, batch_size)).ravel().tolist()


def passes_begun(cells: np.ndarray, passes: np.ndarray) -> np.ndarray:
    """Return how many passes of its cell have begun in a window before that of each sample.

    Samples that are equal in the number returned are distinct, where those of a window may be copies.

    Args:
        cells: What each sample is drawn from, integer (N,).
        passes: The pass over it in which it is drawn, int64 (N,).
    """
    begun = passes.copy()
    for cell in np.unique(cells):
        begun[cells == cell] -= passes[cells == cell].min()
    return begun
