"""Files of vectors and the names of what they are of: numpy, safetensors, JSON lines, Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from .._imports import require
from ..files import replacing


def write_vectors(path: Path, names: Sequence[str], vectors: Sequence[np.ndarray], facts: dict[str, str]) -> None:
    """Write a file whole or not at all, in the format of its suffix.

    Args:
        path: `.npz` has the arrays `embeddings`, `names` and those of `facts`; `.npy` the vectors only; `.safetensors`
            the tensor `embeddings`, with `facts` and `names`, as JSON, in the metadata; `.parquet` the columns
            `embedding` and what the vectors are of, with `facts` in the metadata; else see [`json_lines`].
        names: Name of what each vector is of.
        vectors: Float32 (D,) of each.
        facts: `kind` (what the vectors are of, e.g. `"image"`) and other strings about all of them.

    Raises:
        ImportError: The file is to be Parquet, and pyarrow is not installed.
        ValueError: It is to be safetensors, and the names are longer than these have room for.
    """
    matrix = np.stack(vectors)  # (N, D)
    with replacing(path) as unfinished:
        if path.suffix == ".npy":
            with unfinished.open("wb") as file:
                np.save(file, matrix)
        elif path.suffix == ".npz":
            with unfinished.open("wb") as file:
                np.savez(file, embeddings=matrix, names=np.array(names), **facts)  # type: ignore[arg-type]
        elif path.suffix == ".safetensors":
            try:
                save_file({"embeddings": matrix}, unfinished, {**facts, "names": json.dumps(names)})
            except SafetensorError as error:
                raise ValueError(f"{path}: the names are too long for a safetensors file: choose .npz") from error
        elif path.suffix == ".parquet":
            pyarrow, parquet = require("pyarrow", "parquet"), require("pyarrow.parquet", "parquet")
            valid = [name.encode("utf-8", "backslashreplace").decode() for name in names]  # file names need not be
            rows = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(matrix.ravel()), matrix.shape[1])
            parquet.write_table(pyarrow.table({facts["kind"]: valid, "embedding": rows}, metadata=facts), unfinished)
        else:
            with unfinished.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(f"{line}\n" for line in json_lines(facts["kind"], names, vectors))


def json_lines(kind: str, names: Sequence[str], vectors: Sequence[np.ndarray]) -> Iterator[str]:
    """Yield a JSON object for each vector: its name under `kind`, and its numbers as `embedding`."""
    for name, vector in zip(names, vectors, strict=True):
        yield json.dumps({kind: name, "embedding": vector.tolist()}, ensure_ascii=False)
