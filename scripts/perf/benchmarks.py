"""What benchmarks save: images encoded once for all their boxes, and similarities that are never all in memory."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from fgclip2 import FGClip2Config, FGClip2Embedder, FGClip2Model, embedded_checkpoint
from fgclip2.metrics import pair_ranks
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor

from .measuring import Row, added_peak_memory, in_fresh_process, seconds_in_turn

EXPLANATION = (
    "Base size, random weights, CPU. The reference of boxes runs the whole image through the model again for each of\n"
    "its boxes, in batches of as many images. Ranks are of 2,000 queries among more and more candidates of 64 values."
)
IMAGES, BOXES = 2, 12
QUERIES, CANDIDATES, WIDTH = 2_000, (10_000, 100_000, 1_000_000), 64


def row_groups(runs: int) -> list[Callable[[], list[Row]]]:
    """The measurements, quick ones first."""
    return [rank_rows, lambda: box_rows(max(2, runs // 3))]


def box_rows(runs: int) -> list[Row]:
    """Boxes per second, of images with 12 boxes each."""
    torch.manual_seed(0)
    embedder = FGClip2Embedder(FGClip2Model(FGClip2Config()), FGClip2Processor.from_pretrained(embedded_checkpoint()))
    rng = np.random.default_rng(0)
    images = [_encoded(rng) for _ in range(IMAGES)]
    boxes = [[_box(rng) for _ in range(BOXES)] for _ in images]

    def once() -> object:
        return embedder.encode_regions(images, boxes, max_num_patches=256, batch_size=IMAGES)

    def for_each_box() -> object:
        repeated = [image for image in images for _ in range(BOXES)]
        alone = [[box] for its in boxes for box in its]
        return embedder.encode_regions(repeated, alone, max_num_patches=256, batch_size=IMAGES)

    np.testing.assert_allclose(np.concatenate(once()), np.concatenate(for_each_box()), atol=1e-4)  # type: ignore[arg-type]
    ratio = statistics.median(slow / fast for fast, slow in seconds_in_turn(once, for_each_box, runs))
    name = f"{BOXES} boxes per image / the image again for each box, boxes per second"
    return [Row(name, ratio, "x", ">= 8", ratio >= 8)]


def rank_rows() -> list[Row]:
    """Memory of ranks among more and more candidates."""
    added = [in_fresh_process(memory_of_ranks, count) for count in CANDIDATES]
    sizes = " / ".join(f"{max(size, 0) / 1e6:.0f}" for size in added)
    counts = " / ".join(f"{count:,}" for count in CANDIDATES)
    matrix = QUERIES * CANDIDATES[-1] * 4 / 1e9
    note = f"{sizes} MB among {counts} candidates (all similarities of the last: {matrix:.0f} GB)"
    most = max(added) / 1e6
    return [
        Row("ranks, added memory", None, "", note=note),
        Row("ranks, largest added memory", most, "MB", "<= 100", most <= 100),
    ]


def memory_of_ranks(candidates: int) -> int:
    """Bytes added by the ranks of 2,000 queries."""
    torch.manual_seed(0)
    embeds = torch.nn.functional.normalize(torch.randn(candidates, WIDTH), dim=-1)
    pairs = torch.arange(QUERIES)[:, None].repeat(1, 2)
    pair_ranks(embeds[:2000], embeds[:5000], pairs[:2000])  # what the first call of all allocates is no part of it
    return added_peak_memory(lambda: pair_ranks(embeds[:QUERIES], embeds, pairs))


def _encoded(rng: np.random.Generator) -> bytes:
    image = Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8))
    content = io.BytesIO()
    image.save(content, "JPEG")
    return content.getvalue()


def _box(rng: np.random.Generator) -> list[float]:
    x, y, width, height = *rng.uniform(0, 150, 2), *rng.uniform(20, 100, 2)
    return [x, y, x + width, y + height]
