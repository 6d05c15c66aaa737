"""Speed, memory and recall of searching large indexes, as a table.

    python -m scripts.perf.search_index --work FOLDER --output docs/search_performance.md

Every row is measured in a process of its own and kept in FOLDER as JSON, so that an interrupted run goes on where it
was; delete FOLDER to measure anew. A million vectors need 5 GB of disk, 8 GB of memory and about an hour.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fgclip2.embedding.labels import normalised
from fgclip2.search.caches import FOLDER, KINDS, build_cache
from fgclip2.search.scan import ImageFile
from fgclip2.search.store import StoredIndex, read_index, write_index

from .measuring import in_fresh_process

WIDTH = 768
CLUSTERS = 2000
QUERIES = 1000
ROWS_AT_ONCE = 50_000
SIZES = (100_000, 1_000_000)


def clustered(count: int, noise: float, seed: int) -> np.ndarray:
    """Return vectors (count, WIDTH) like those of a model: in clusters, around a common direction, few of them long.

    Args:
        count: How many.
        noise: How far they are from the centres of their clusters; 1 is as far as these are from one another.
        seed: Another one gives other vectors of the same clusters.
    """
    spectrum = np.arange(1, WIDTH + 1, dtype=np.float32) ** -0.5
    spectrum /= np.linalg.norm(spectrum)
    shape = np.random.default_rng(0)
    common = normalised(shape.normal(size=WIDTH))
    centres = shape.normal(size=(CLUSTERS, WIDTH)).astype(np.float32) * spectrum  # of length 1, about
    generator = np.random.default_rng(seed)
    vectors = np.empty((count, WIDTH), np.float32)
    for start in range(0, count, ROWS_AT_ONCE):
        rows = slice(start, min(start + ROWS_AT_ONCE, count))
        its = generator.integers(0, CLUSTERS, rows.stop - start)
        spread = generator.normal(size=(rows.stop - start, WIDTH)).astype(np.float32) * spectrum
        vectors[rows] = normalised(common + centres[its] + noise * spread)
    return vectors


def once(path: Path, measure: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Return what a file says, or measure it in a process of its own and write the file."""
    if not path.exists():
        result = in_fresh_process(measure, *args)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result), encoding="utf-8")
        print(path.stem, result, flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def make_clustered(folder: Path, count: int) -> dict[str, Any]:
    folder.mkdir(parents=True)
    np.save(folder.parent / f"{folder.name}-queries.npy", clustered(QUERIES, 0.8, seed=2))
    return write_store(folder, clustered(count, 0.6, seed=1))


def write_store(folder: Path, vectors: np.ndarray) -> dict[str, Any]:
    """Write the index of a folder whose pictures are not there."""
    model = {"name": "made up", "revision": None, "fingerprint": "0" * 64, "embedding_size": vectors.shape[1]}
    index = StoredIndex(model, {"max_num_patches": None})
    index.rows = {ImageFile(f"{number // 1000:04}/{number:07}.jpg", 1, 1): row for number, row in enumerate(vectors)}
    where = folder / ".fgclip2_index"
    where.mkdir()
    start = time.perf_counter()
    write_index(where, index)
    return {"seconds": time.perf_counter() - start, "bytes": bytes_below(where)}


def make_cache(folder: Path, kind: str) -> dict[str, Any]:
    where = folder / ".fgclip2_index"
    stored = read_index(where)
    assert stored is not None
    files, vectors = stored.arrays()
    stored.rows.clear()
    start, cpu_start = time.perf_counter(), time.process_time()
    build_cache(where, kind, stored.rows_digest, files, vectors)
    its = where / FOLDER / f"{kind}-{stored.rows_digest}"
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu_start,
        "bytes": bytes_below(its),
    }


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for vectors, indexes and measured rows")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of clustered vectors")
    arguments = parser.parse_args()
    for size in arguments.sizes:
        folder, rows = arguments.work / f"clustered-{size}", arguments.work / "rows"
        once(rows / f"{folder.name}-store.json", make_clustered, folder, size)
        for kind in KINDS:
            once(rows / f"{folder.name}-{kind}-build.json", make_cache, folder, kind)


if __name__ == "__main__":
    main()
