"""What bringing an index up to date takes besides the embedding: 1% of the files of a folder have changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fgclip2.embedding.labels import normalised
from fgclip2.search import ImageIndex
from fgclip2.search.scan import scan_folder
from fgclip2.search.store import StoredIndex, write_index

WIDTH = 768
CHANGED_ONE_IN = 100
FILES_PER_FOLDER = 1000
ROUNDS = 3  # of which the median counts


class EmbedderWithoutModel:
    """Gives every image the same vector in no time, so that the time of an update is that of all else."""

    name, revision, embedding_size = "made up", None, WIDTH
    fingerprint = weights_fingerprint = "0" * 64
    max_pixels = 10**8
    processor = SimpleNamespace(patch_budgets=None)

    def describe_vectors(self) -> dict[str, Any]:
        return {"backend": "torch", "precision": "float32", "images": "square"}

    def stream_images(self, images: list[Path], *options: Any, on_error: str) -> Iterator[tuple[int, np.ndarray]]:
        vector = np.eye(1, WIDTH, dtype=np.float32)[0]
        return ((number, vector) for number in range(len(images)))


def measure_update(folder: Path, count: int) -> dict[str, Any]:
    """Index a folder of `count` files, change 1% of them, and bring the index up to date.

    Returns:
        Seconds of CPU time and of the clock of that, of an update where nothing has changed, and of the first search
        after an update, which gathers the vectors; medians.
    """
    embedder: Any = EmbedderWithoutModel()
    paths = [folder / f"{number // FILES_PER_FOLDER:04}" / f"{number:07}.jpg" for number in range(count)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    index_folder = folder / ".fgclip2_index"
    index_folder.mkdir()
    model = {name: getattr(embedder, name) for name in ("name", "revision", "fingerprint", "embedding_size")}
    stored = StoredIndex(model, {"max_num_patches": None, **embedder.describe_vectors()})
    vectors = normalised(np.random.default_rng(0).standard_normal((count, WIDTH), np.float32))
    stored.rows = dict(zip(scan_folder(folder.resolve()).images, vectors, strict=True))
    write_index(index_folder, stored)
    query = vectors[0].copy()
    del stored, vectors

    rounds = []
    for number in range(1, ROUNDS + 1):
        for path in paths[number::CHANGED_ONE_IN]:
            path.write_bytes(b"x" * (1 + number))  # of another size each time
        changed, index = seconds_of(lambda: ImageIndex.build(folder, embedder, show_progress_bar=False))
        assert index.report.updated == len(paths[number::CHANGED_ONE_IN])
        first_search, _ = seconds_of(lambda index=index: index.search(query))
        del index
        unchanged, _ = seconds_of(lambda: ImageIndex.build(folder, embedder, show_progress_bar=False))
        rounds.append((changed, unchanged, first_search))
    changed, unchanged, first_search = np.median(rounds, axis=0).tolist()
    return {
        "count": count,
        "changed": changed,
        "unchanged": unchanged,
        "first_search": first_search,
    }


def seconds_of(work: Any) -> tuple[tuple[float, float], Any]:
    """Return the seconds of CPU time and of the clock that some work takes, and what it returns."""
    start = time.process_time(), time.perf_counter()
    result = work()
    return (time.process_time() - start[0], time.perf_counter() - start[1]), result
