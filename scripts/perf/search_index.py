"""Speed, memory and recall of searching large indexes, as tables of a page and its Chinese twin.

    python -m scripts.perf.search_index --work FOLDER --output docs/search_performance.md

Every row is measured in a process of its own and kept in FOLDER as JSON, so that an interrupted run goes on where it
was; delete FOLDER to measure anew. A million vectors need 9 GB of disk, 8 GB of memory and half an hour of CPU
time, most of it for the graph.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

# Of one thread, CPU time is what a search takes on an idle machine, whatever else runs on this one. Set before NumPy is
# imported, also in the processes of the rows.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np
from PIL import Image

from fgclip2 import Embedder
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.cutouts import load_cutouts
from fgclip2.drawings.sources import ARTWORK, default_cache
from fgclip2.embedding.labels import normalised
from fgclip2.search import ImageIndex, index
from fgclip2.search.caches import APPROXIMATE, FOLDER, build_cache
from fgclip2.search.scan import ImageFile
from fgclip2.search.store import StoredIndex, read_index, write_index
from fgclip2.streams import chunks

from .index_update import measure_update
from .measuring import added_peak_memory
from .varied_drawings import varied_drawings

WIDTH = 768
CLUSTERS = 2000
QUERIES = 200
BATCH = 100
TOP_K = 10
ROWS_AT_ONCE = 50_000
SIZES = (100_000, 1_000_000)
SECONDS_OF_SINGLE_QUERIES = 10.0
NUMPY = "numpy"  # no cache, as without FAISS
METHODS = (NUMPY, "hnsw", "exact", "ivf")


MARK = "<!-- below: by make perf-index -->"
WORDS = {
    "en": {
        "clustered": "Clustered",
        "drawings": "Drawings",
        "varied": "Drawings, varied",
        "columns": "| cache | built in | disk | opened in | one query | of 100 at once | memory | recall@10 |",
        "update": "Brought up to date, {:,} files",
        "update_columns": "| | CPU time | by the clock |",
        "changed": "1% changed, and found by their size and time",
        "unchanged": "nothing changed",
        "first_search": "first search after it, which gathers the vectors",
    },
    "zh": {
        "clustered": "分簇",
        "drawings": "图画",
        "varied": "图画，有变化",
        "columns": "| 缓存 | 构建 | 磁盘 | 打开 | 单个查询 | 100 个一起 | 内存 | recall@10 |",
        "update": "更新，{:,} 个文件",
        "update_columns": "| | CPU 时间 | 时钟时间 |",
        "changed": "1% 有变化，由大小和时间发现",
        "unchanged": "没有变化",
        "first_search": "之后的第一次搜索，向量此时汇集",
    },
}


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
        spread = generator.standard_normal((rows.stop - start, WIDTH), np.float32) * spectrum
        vectors[rows] = normalised(common + centres[its] + noise * spread)
    return vectors


def drawn(seconds: float, varied: int = 0) -> tuple[np.ndarray, np.ndarray, float]:
    """Embed drawings by the embedded checkpoint, and names to search by.

    Args:
        seconds: Of CPU time, after which no more cut-outs are embedded.
        varied: Embed so many of [`varied_drawings`] instead, however long it takes.

    Returns:
        Vectors of the drawings (N, D), of names of concepts (QUERIES, D), half of them Chinese, and the drawings
        embedded in a second of CPU time.
    """
    cache = default_cache()
    table = load_concepts(cache)
    names = [*table.names_en[: QUERIES // 2], *table.names_zh[: QUERIES // 2]]
    cutouts = np.concatenate([load_cutouts(cache, artist)[1] for artist in ARTWORK])  # (N, 96, 96, 4)
    if varied:
        seconds, total, pictures = math.inf, varied, varied_drawings(cutouts, varied)
    else:
        order = np.random.default_rng(0).permutation(len(cutouts))
        total, pictures = len(order), (Image.fromarray(cutouts[row]) for row in order)
    embedder = Embedder.from_pretrained(device="cpu")
    queries = embedder.encode_texts(names)
    vectors: list[np.ndarray] = []
    start = time.process_time()
    for batch in chunks(pictures, BATCH, total):
        vectors.extend(embedder.encode_images(batch, show_progress_bar=False))
        if time.process_time() - start > seconds:
            break
    return np.stack(vectors), queries, len(vectors) / (time.process_time() - start)


def once(path: Path, measure: Callable[..., dict[str, Any]], *args: Any) -> dict[str, Any]:
    """Return what a file says, or measure it in a process of its own and write the file."""
    if not path.exists():
        # Forked: what a process imports takes longer than many a row. This one only imports, and has no threads.
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
            result = pool.submit(measure, *args).result()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result), encoding="utf-8")
        print(path.stem, result, flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def make_clustered(folder: Path, count: int) -> dict[str, Any]:
    return write_store(folder, clustered(count, 0.6, seed=1), clustered(QUERIES, 0.8, seed=2))


def make_drawn(folder: Path, seconds: float, varied: int = 0) -> dict[str, Any]:
    vectors, queries, rate = drawn(seconds, varied)
    return write_store(folder, vectors, queries) | {"drawings_per_second": rate}


def write_store(folder: Path, vectors: np.ndarray, queries: np.ndarray) -> dict[str, Any]:
    """Write the index of a folder whose pictures are not there, and the vectors to search by beside it."""
    model = {"name": "made up", "revision": None, "fingerprint": "0" * 64, "embedding_size": vectors.shape[1]}
    stored = StoredIndex(model, {"max_num_patches": None})
    stored.rows = {ImageFile(f"{number // 1000:04}/{number:07}.jpg", 1, 1): row for number, row in enumerate(vectors)}
    where = folder / ".fgclip2_index"
    where.mkdir(parents=True)
    np.save(folder / "queries.npy", queries)
    start = time.process_time()
    write_index(where, stored)
    return {
        "count": len(vectors),
        "width": vectors.shape[1],
        "cpu_seconds": time.process_time() - start,
        "bytes": bytes_below(where),
    }


def make_varied(folder: Path, count: int) -> dict[str, Any]:
    return make_drawn(folder, math.inf, count)


def make_cache(folder: Path, kind: str) -> dict[str, Any]:
    where = folder / ".fgclip2_index"
    stored = read_index(where)
    assert stored is not None
    files, vectors = stored.arrays()
    stored.rows.clear()
    start = time.process_time()
    build_cache(where, kind, stored.rows_digest, files, vectors)
    return {
        "cpu_seconds": time.process_time() - start,
        "bytes": bytes_below(where / FOLDER / f"{kind}-{stored.rows_digest}"),
    }


def search(folder: Path, kind: str) -> dict[str, Any]:
    """Open an index by a cache of one kind alone, and search it."""
    if kind == NUMPY:
        sys.modules["faiss"] = None  # type: ignore[assignment]  # as if it were not installed
    index.CACHES = (kind,)
    index.APPROXIMATE = (kind,)
    figures: dict[str, Any] = {}
    queries = np.load(folder / "queries.npy")

    def measure() -> None:
        start = time.process_time()
        opened = ImageIndex.load(folder)
        figures["opening"] = time.process_time() - start
        assert opened.caches == ([] if kind == NUMPY else [kind])

        def find(some: np.ndarray) -> tuple[float, list[list[int]]]:
            start = time.process_time()
            hits = opened.search(some, top_k=TOP_K, approximate=kind in APPROXIMATE)
            return time.process_time() - start, [[int(hit.path.stem) for hit in its] for its in hits]

        find(queries[:1])  # which brings the pages of the cache into memory
        single: list[float] = []
        while len(single) < len(queries) and sum(single) < SECONDS_OF_SINGLE_QUERIES:
            single.append(find(queries[len(single)][None])[0])
        batches = [find(queries[start : start + BATCH]) for start in range(0, len(queries), BATCH)]
        figures["single"] = np.percentile(single, (50, 99)).tolist()
        figures["singles"] = len(single)
        figures["batch"] = np.percentile([seconds / BATCH for seconds, _ in batches], (50, 99)).tolist()
        figures["rows"] = [rows for _, its in batches for rows in its]

    figures["memory"] = added_peak_memory(measure)
    truth = folder / "nearest.json"
    if kind == NUMPY:
        truth.write_text(json.dumps(figures["rows"]))
    expected = json.loads(truth.read_text())
    shared = [len(set(found) & set(its)) / len(its) for found, its in zip(figures.pop("rows"), expected, strict=True)]
    return figures | {"recall": float(np.mean(shared))}


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for vectors, indexes and measured rows")
    parser.add_argument("--output", type=Path, help="page whose tables are replaced, as are its Chinese twin's")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="numbers of clustered vectors")
    parser.add_argument("--drawings", type=float, default=0, help="embed drawings for so many seconds of CPU time")
    parser.add_argument("--varied", type=int, default=0, help="embed so many pictures of drawings, each varied")
    parser.add_argument("--updated", type=int, default=0, help="bring the index of so many files up to date")
    arguments = parser.parse_args()
    rows = arguments.work / "rows"
    update = None
    if arguments.updated:
        name = f"update-{arguments.updated}"
        update = once(rows / f"{name}.json", measure_update, arguments.work / name, arguments.updated)
    data = [(f"clustered-{size}", make_clustered, size) for size in arguments.sizes]
    if arguments.drawings:
        data.append(("drawings", make_drawn, arguments.drawings))
    if arguments.varied:
        data.append((f"varied-{arguments.varied}", make_varied, arguments.varied))
    measured: dict[str, dict[str, Any]] = {}
    for name, make, amount in data:
        folder = arguments.work / name
        measured[name] = {"store": once(rows / f"{name}-store.json", make, folder, amount)}
        for kind in METHODS:
            built = {} if kind == NUMPY else once(rows / f"{name}-{kind}-build.json", make_cache, folder, kind)
            measured[name][kind] = built | once(rows / f"{name}-{kind}-search.json", search, folder, kind)
        if arguments.output:  # after each, so that an interrupted run leaves what it has measured
            write_page(arguments.output, "en", measured, update)
            write_page(arguments.output.with_stem(f"{arguments.output.stem}_zh"), "zh", measured, update)


def write_page(
    path: Path, language: str, measured: dict[str, dict[str, Any]], update: dict[str, Any] | None = None
) -> None:
    """Write a table for each data set, and one of an update, into a page, in place of what stands below its mark."""
    text, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    assert mark, f"{path} has no line {MARK}"
    lines = [text + mark]
    for name, figures in measured.items():
        store, kind_of_data = figures["store"], WORDS[language][name.partition("-")[0]]
        lines += ["", f"## {kind_of_data}, {store['count']:,} x {store['width']}", "", WORDS[language]["columns"]]
        lines += ["|---" * 8 + "|", *(table_line(kind, figures[kind]) for kind in METHODS)]
    if update:
        words = WORDS[language]
        lines += ["", f"## {words['update'].format(update['count'])}", "", words["update_columns"], "|---" * 3 + "|"]
        for name in ("changed", "unchanged", "first_search"):
            cpu, clock = update[name]
            lines.append(f"| {words[name]} | {cpu:.1f} s | {clock:.1f} s |")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def table_line(kind: str, figures: dict[str, Any]) -> str:
    cells = ["NumPy" if kind == NUMPY else f"`{kind}`", "-", "-"]
    if kind != NUMPY:
        cells[1:] = [f"{figures['cpu_seconds']:.0f} s", f"{figures['bytes'] / 1e6:,.0f} MB"]
    cells.append(f"{figures['opening']:.2f} s")
    cells += [f"{1000 * median:.3g} / {1000 * slow:.3g} ms" for median, slow in (figures["single"], figures["batch"])]
    return "| " + " | ".join([*cells, f"{figures['memory'] / 1e6:,.0f} MB", f"{figures['recall']:.3f}"]) + " |"


if __name__ == "__main__":
    main()
