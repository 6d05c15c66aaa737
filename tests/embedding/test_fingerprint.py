"""Fingerprints: equal in every layout of one checkpoint, different where the vectors would differ."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fgclip2 import FGClip2Embedder, FGClip2Model
from fgclip2.embedding import model_fingerprint
from tests.checkpoints import GEMMA_TOKENIZER, exported_folder, official_folder, saved_folder

__all__ = ["exported_folder", "official_folder", "saved_folder"]


@pytest.fixture(scope="module")
def embedder(saved_folder) -> FGClip2Embedder:
    return FGClip2Embedder.from_pretrained(saved_folder, device="cpu")


def test_fingerprint_sees_a_change_in_any_weight(saved_folder, embedder):
    model = FGClip2Model.from_pretrained(saved_folder)
    assert model_fingerprint(model) == embedder.weights_fingerprint
    with torch.no_grad():
        model.text_model.embeddings.token_embedding.weight[7, 3] += 1e-3
    assert model_fingerprint(model) != embedder.weights_fingerprint
    assert FGClip2Embedder(model, embedder.processor).fingerprint != embedder.fingerprint


def reverse_some_ids(folder: Path) -> None:
    """Give rare tokens of a saved checkpoint each other's ids."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    rare = sorted(vocabulary, key=vocabulary.get)[-20:]
    content["model"]["vocab"] = vocabulary | dict(
        zip(rare, [vocabulary[token] for token in reversed(rare)], strict=True)
    )
    file.write_text(json.dumps(content), encoding="utf-8")


def change_json(name: str, *path_and_value: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        *path, key, value = path_and_value
        part = content
        for step in path:
            part = part[step]
        assert part[key] != value
        part[key] = value
        (folder / name).write_text(json.dumps(content), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    "change",
    [
        reverse_some_ids,
        change_json("tokenizer_config.json", "short_length", 63),
        change_json("tokenizer_config.json", "pad_token", "<bos>"),
        change_json("processor_config.json", "image_processor", "image_mean", [0.5, 0.4, 0.5]),
        change_json("processor_config.json", "image_processor", "resample", 3),
        change_json("config.json", "vision_config", "num_attention_heads", 1),
        change_json("config.json", "text_config", "layer_norm_eps", 1e-3),
    ],
    ids=["vocabulary", "length", "padding", "image_mean", "resample", "heads", "epsilon"],
)
def test_fingerprint_sees_all_that_vectors_depend_on_besides_weights(saved_folder, embedder, tmp_path, change):
    folder = tmp_path / "changed"
    shutil.copytree(saved_folder, folder)
    change(folder)
    changed = FGClip2Embedder.from_pretrained(folder, device="cpu")
    assert changed.weights_fingerprint == embedder.weights_fingerprint
    assert changed.fingerprint != embedder.fingerprint


def test_fingerprint_is_the_same_in_every_layout_of_a_checkpoint(official_folder, exported_folder, embedder, tmp_path):
    shutil.copytree(official_folder, tmp_path / "resaved")
    for file in GEMMA_TOKENIZER.with_name("resaved_by_transformers_5_23").iterdir():
        shutil.copyfile(file, tmp_path / "resaved" / file.name)
    for folder in (official_folder, exported_folder, tmp_path / "resaved"):
        assert FGClip2Embedder.from_pretrained(folder, device="cpu").fingerprint == embedder.fingerprint
