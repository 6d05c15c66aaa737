"""Each format gives back the vectors, and all but .npy the names."""

import json

import numpy as np
import pytest
from safetensors import safe_open

from fgclip2.embedding.vector_files import write_vectors

NAMES = ["照片/黑猫.png", "dog.png", "\udcff.png"]  # the last as the system gives a name that is not Unicode
VECTORS = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
FACTS = {"kind": "image", "model": "模型", "fingerprint": "0"}


def test_npz(tmp_path):
    write_vectors(tmp_path / "v.npz", NAMES, list(VECTORS), FACTS)
    with np.load(tmp_path / "v.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["embeddings"], VECTORS)
        assert file["names"].tolist() == NAMES
        assert {name: str(file[name]) for name in FACTS} == FACTS


def test_npy(tmp_path):
    write_vectors(tmp_path / "v.npy", NAMES, list(VECTORS), FACTS)
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy", allow_pickle=False), VECTORS)


def test_safetensors(tmp_path):
    write_vectors(tmp_path / "v.safetensors", NAMES, list(VECTORS), FACTS)
    with safe_open(tmp_path / "v.safetensors", framework="np") as file:
        np.testing.assert_array_equal(file.get_tensor("embeddings"), VECTORS)
        assert json.loads(file.metadata()["names"]) == NAMES
        assert FACTS.items() <= file.metadata().items()


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_vectors(tmp_path / "v.parquet", NAMES, list(VECTORS), FACTS)
    table = parquet.read_table(tmp_path / "v.parquet")
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy(zero_copy_only=False)), VECTORS)
    assert table["image"].to_pylist() == [*NAMES[:2], "\\udcff.png"]
    assert table.schema.metadata[b"model"].decode() == "模型"


def test_json_lines(tmp_path):
    write_vectors(tmp_path / "v.jsonl", NAMES, list(VECTORS), FACTS)
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["image"] for row in rows][:2] == NAMES[:2]
    np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], np.float32), VECTORS)
