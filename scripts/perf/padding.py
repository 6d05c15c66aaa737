"""The share of vision tokens that are not padding, on a mix of photos, for each way of choosing batches.

    python -m scripts.perf.padding          for other sizes of the buffer of shards
    python -m scripts.perf --only batches

Sizes of images are all that it takes: nothing is decoded, and the numbers are the same on any machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from fgclip2 import FGClip2Processor, embedded_checkpoint
from fgclip2.data.stream_orders import order_by_patches, window_lengths
from fgclip2.training import FGClip2ForTraining
from fgclip2.training.collator import FGClip2Collator
from fgclip2.training.mixture import Source
from fgclip2.training.patch_counts import useful_share
from fgclip2.training.sampler import BatchOrderSampler, DrawnRecord

from .loader import published_records
from .measuring import Row
from .training import bounded_row

EXPLANATION = """\
Vision tokens that are not padding, in batches of 32 of 8,000 photos in two languages (their sizes are in
`scripts/perf/padding.py`), by `patch_batches`: of records for two processes, of shards in the default buffer of 1,000
samples. A batch as it waits in a loader's queue holds pixels, 44 texts and 4 boxes for each image."""

# Width, height and share in a thousand of photos as data sets of the web have them: most by a few kinds of cameras and
# of editors, 80 in a thousand cut by hand to any shape.
PHOTOS = (
    *((640, 480, 300), (480, 640, 120), (640, 427, 140), (640, 426, 60), (427, 640, 50), (640, 360, 50)),
    *((500, 375, 70), (375, 500, 30), (640, 640, 30), (612, 612, 20), (1024, 768, 20), (768, 1024, 10)),
    *((1024, 683, 10), (1920, 1080, 5), (4032, 3024, 5)),
)
BUDGETS: tuple[int | str, ...] = (256, 1024, "auto")
BATCH_SIZE = 32
BATCHES_IN_BUFFER = (1, 4, 8, 15, 31)
DEFAULT_BUFFER = 15  # batches of one of two languages
LEAST_USEFUL, MOST_GIB = 0.97, 0.4


def photo_mix(count: int = 8000) -> np.ndarray:
    """Return heights and widths of photos, (count, 2)."""
    rng = np.random.default_rng(0)
    known = np.repeat([(height, width) for width, height, _ in PHOTOS], [share for *_, share in PHOTOS], axis=0)
    any_shape = rng.integers(12, 50, (80, 2)) * 16
    return rng.choice(np.concatenate([known, any_shape]), count)


def patches_of_photos(budget: int | str) -> np.ndarray:
    """Return how many patches each photo of the mix has, int32 (8000,)."""
    processor = FGClip2Processor.from_pretrained(embedded_checkpoint())
    sizes, of_records = np.unique(photo_mix(), axis=0, return_inverse=True)
    counts = [FGClip2ForTraining.count_patches(processor, *size, max_num_patches=budget) for size in sizes.tolist()]
    return np.array(counts, np.int32)[of_records.ravel()]


def batches_of_shards(patches: np.ndarray, batches_in_buffer: int, rank: int = 0) -> Iterator[np.ndarray]:
    """Yield the patches of the batches that a rank gets of a stream over shards, (BATCH_SIZE,) each."""
    total, start = len(patches) // BATCH_SIZE * BATCH_SIZE, 0
    for length in window_lengths(total, batches_in_buffer, BATCH_SIZE, np.random.default_rng(0)):
        window = patches[start : start + length]
        of_rank, of_all = np.random.default_rng([start, 1, rank]), np.random.default_rng([start, 0])
        yield from window[order_by_patches(window, BATCH_SIZE, of_rank, of_all)].reshape(-1, BATCH_SIZE)
        start += length


def row_groups(runs: int) -> list[Callable[[], list[Row]]]:
    """The measurements, which are the same in each run."""
    return [*(partial(padding_rows, budget) for budget in BUDGETS), batch_rows]


def padding_rows(budget: int | str) -> list[Row]:
    patches = patches_of_photos(budget)
    languages = (np.arange(len(patches)) % 3 == 0).astype(np.uint8)
    rows = []
    for way, given, bound in (("any", None, None), ("alike", patches, LEAST_USEFUL)):
        sampler = BatchOrderSampler([Source(languages)], BATCH_SIZE, 2, patches=given)
        order = np.array([draw.index for draw in sampler]).reshape(-1, BATCH_SIZE)
        name = f"useful vision tokens of records, {budget} patches, patch_batches={way}"
        rows.append(bounded_row(name, useful_share(patches[batch] for batch in order), bound, ">=", unit=""))
    share = useful_share(batches_of_shards(patches, DEFAULT_BUFFER))
    name = f"useful vision tokens of shards, {budget} patches, patch_batches=alike"
    return [*rows, bounded_row(name, share, LEAST_USEFUL, ">=", unit="")]


def batch_rows(images: int = 32) -> list[Row]:
    collator = FGClip2Collator(FGClip2Processor.from_pretrained(embedded_checkpoint()), max_num_patches=1024)
    with tempfile.TemporaryDirectory() as folder:
        batch = collator([DrawnRecord(record, 0) for record in published_records(Path(folder), images)])
    held = sum(value.nbytes for value in batch.values() if hasattr(value, "nbytes"))
    return [
        bounded_row("batch of 512 images of 1,024 patches", held * 512 / images / 2**30, MOST_GIB, "<=", unit="GiB")
    ]


def main() -> None:
    print("batches of 32 photos, by how many of them a buffer holds:", *BATCHES_IN_BUFFER)
    for budget in BUDGETS:
        patches = patches_of_photos(budget)
        shares = [useful_share(batches_of_shards(patches, batches)) for batches in BATCHES_IN_BUFFER]
        print(budget, *(f"{share:.1%}" for share in shares))


if __name__ == "__main__":
    main()
