"""Adapters that are damaged, or made to harm, through each function that loads one."""

import json
import re
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from fgclip2 import Embedder, FGClip2Model
from fgclip2.training import FGClip2ForTraining
from fgclip2.training.lora import add_lora, load_lora, lora_config, merge_lora, save_lora
from tests.checkpoints import GOLDEN_MODEL

OURS = [load_lora, merge_lora]
LOADERS = [
    *OURS,
    FGClip2Model.from_pretrained,
    AutoModel.from_pretrained,
    lambda folder: FGClip2Model.from_pretrained(GOLDEN_MODEL).load_adapter(folder),
]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    """Don't write into it."""
    model = add_lora(FGClip2ForTraining.from_pretrained(GOLDEN_MODEL, dtype=torch.float32), lora_config(rank=4))
    return save_lora(model, tmp_path_factory.mktemp("adapters") / "adapter")


@pytest.fixture
def folder(adapter, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(adapter, tmp_path / "适配器")


def refused(folder: Path, message: str, loaders: list[Callable[[Path], object]]) -> None:
    for load in loaders:
        start = time.monotonic()
        with pytest.raises(ValueError, match=message):
            load(folder)
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("fields", "rank"),
    [
        ({"r": 10**7}, "10000000"),
        ({"r": -4}, "-4"),
        ({"r": "4"}, "'4'"),
        ({"rank_pattern": {".*fc1": 10**7}}, "10000000"),
    ],
)
def test_ranks_that_are_not_those_of_the_tensors(fields, rank, folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **fields}))
    refused(folder, f"has the rank {rank} in adapter_config.json, but matrices of rank 4", LOADERS)


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000])
def test_a_broken_configuration(content, folder):
    (folder / "adapter_config.json").write_text(content)
    refused(
        folder, r"adapter_config.json is not (a JSON object|JSON in UTF-8)", OURS
    )  # transformers' own loading reads it before ours can


def test_a_base_that_is_not_there(folder):
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/没有/模型"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    for load in (*OURS, Embedder.from_pretrained):
        with pytest.raises(OSError, match="has the base model /没有/模型: there is no such folder; put it there"):
            load(folder)


def test_weights_that_are_not_finite(folder):
    weights = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in weights if "lora_B" in name)
    weights[name][0] = float("nan")
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
    refused(folder, f"has weights that are not finite, e.g. {re.escape(name)}", LOADERS)


def test_a_broken_header(folder):
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 10**9) + b"{}")
    refused(folder, r"adapter_model.safetensors is no whole safetensors file", LOADERS)


def test_pickles(folder):
    (folder / "adapter_model.safetensors").unlink()
    torch.save({}, folder / "adapter_model.bin")
    refused(folder, r"has no adapter_model.safetensors; .*adapter_model.bin is a pickle, which may run code", LOADERS)


def test_a_whole_one_is_loaded(folder):
    for load in LOADERS:
        load(folder)
