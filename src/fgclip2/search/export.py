"""An index in the formats of other libraries: usearch and LanceDB."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._imports import require
from ..files import new_folder

ROWS_PER_STEP = 8192
TABLE = "images"  # of LanceDB
VECTORS, ENTRIES = "images.usearch", "images.jsonl"


def write_usearch(output: Path, ids: Sequence[str], paths: Sequence[str], vectors: np.ndarray) -> None:
    """Write `images.usearch`, whose keys are row numbers, and `images.jsonl`, whose lines say what each row is of."""
    index = require("usearch.index", "usearch").Index(ndim=vectors.shape[1], metric="ip", dtype="f16")
    with new_folder(output) as folder:
        for start in range(0, len(vectors), ROWS_PER_STEP):
            rows = vectors[start : start + ROWS_PER_STEP]
            index.add(np.arange(start, start + len(rows), dtype=np.uint64), rows)
        index.save(str(folder / VECTORS))
        with (folder / ENTRIES).open("w", encoding="utf-8") as lines:
            for key, (entry, path) in enumerate(zip(ids, paths, strict=True)):
                lines.write(json.dumps({"key": key, "id": entry, "path": path}) + "\n")


def write_lancedb(output: Path, ids: Sequence[str], paths: Sequence[str], vectors: np.ndarray) -> None:
    """Write a database with the table `images`: the columns `id`, `path` and `vector`, float32, without an index."""
    lancedb, pyarrow = require("lancedb", "lancedb"), require("pyarrow", "lancedb")
    width = vectors.shape[1]
    columns = [
        ("id", pyarrow.string()),
        ("path", pyarrow.string()),
        ("vector", pyarrow.list_(pyarrow.float32(), width)),
    ]
    schema = pyarrow.schema(columns)

    def batches() -> Iterator[Any]:
        for start in range(0, len(vectors), ROWS_PER_STEP):
            rows = slice(start, start + ROWS_PER_STEP)
            texts = [pyarrow.array([_valid(text) for text in its[rows]], pyarrow.string()) for its in (ids, paths)]
            values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors[rows].ravel()), width)
            yield pyarrow.record_batch([*texts, values], schema=schema)

    with new_folder(output) as folder:
        reader = pyarrow.RecordBatchReader.from_batches(schema, batches())
        lancedb.connect(str(folder)).create_table(TABLE, reader)


def _valid(text: str) -> str:
    """Return a file name with a mark in place of what is not Unicode, which Arrow has no texts of."""
    return text.encode("utf-8", "replace").decode()


WRITERS: dict[str, Callable[[Path, Sequence[str], Sequence[str], np.ndarray], None]] = {
    "usearch": write_usearch,
    "lancedb": write_lancedb,
}
