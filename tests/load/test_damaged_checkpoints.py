"""Checkpoints that are damaged, or made to harm: each is told from a whole one within seconds, whatever it claims."""

import json
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from fgclip2 import Embedder, FGClip2Model, FGClip2Processor, FGClip2TextModel
from fgclip2.modeling.configuration_fgclip2 import FGClip2Config
from fgclip2.modeling.weights import MAX_HEADER_BYTES
from scripts.perf.measuring import added_peak_memory
from tests.checkpoints import GOLDEN_MODEL

LOADERS = [FGClip2Model.from_pretrained, AutoModel.from_pretrained, Embedder.from_pretrained]


@pytest.fixture
def folder(saved_folder, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(saved_folder, tmp_path / "checkpoint")


def change_config(folder: Path, tower: str, **fields: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config[tower].update(fields)
    (folder / "config.json").write_text(json.dumps(config))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def write_file(path: Path, header: bytes, data: bytes = b"") -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def refused(folder: Path, message: str, kinds: tuple[type[Exception], ...] = (ValueError,)) -> None:
    for load in LOADERS:
        start = time.monotonic()
        with pytest.raises(kinds, match=message):
            load(folder)
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("tower", ["text_config", "vision_config"])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": -1}, "`num_hidden_layers` must be a positive integer, got -1"),
        ({"num_hidden_layers": 200_000}, "`num_hidden_layers` must be at most 1000, got 200000"),
        ({"num_hidden_layers": "2"}, "`num_hidden_layers` must be a positive integer, got '2'"),
        ({"intermediate_size": 10**9}, r"tensors that don't fit its config: .*mlp"),
        ({"intermediate_size": 10**30}, "the sizes in the configuration are no sizes of a model"),
        ({"hidden_act": "system"}, "hidden_act='system'; allowed"),
    ],
)
def test_sizes_that_are_not_those_of_the_weights(tower, fields, message, folder):
    change_config(folder, tower, **fields)
    refused(folder, message)


def test_more_layers_than_the_weights_have(folder):
    change_config(folder, "text_config", num_hidden_layers=500)
    refused(folder, r"is no checkpoint of FGClip2Model: it lacks \d+ weights, e.g. text_model.encoder.layers")


def test_a_configuration_without_weights_is_checked_too():
    with pytest.raises(ValueError, match=r"`vision_config` must be a configuration or a dict of its fields, got \[\]"):
        FGClip2Config(vision_config=[])
    with pytest.raises(ValueError, match="`patch_size` must be a positive integer, got True"):
        FGClip2Config(vision_config={"patch_size": True})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value, folder):
    change_weights(folder, lambda weights: weights["text_model.head.bias"][3].fill_(value))
    refused(folder, "has weights that are not finite, e.g. text_model.head.bias")


def test_values_are_looked_at_without_memory_for_them(tmp_path):
    """Of a table of 100 MB, the rows stay in the file until they are used, though a NaN in the last is found."""
    config = FGClip2Config.from_pretrained(GOLDEN_MODEL)
    config.text_config.vocab_size = 25_000_000 // config.text_config.hidden_size
    model = FGClip2Model(config)
    model.save_pretrained(tmp_path)
    FGClip2Model.from_pretrained(tmp_path)  # what the first of all allocates is no part of it
    assert added_peak_memory(lambda: FGClip2Model.from_pretrained(tmp_path)) < 50e6
    table = "text_model.embeddings.token_embedding.weight"
    change_weights(tmp_path, lambda weights: weights[table][-1].fill_(float("nan")))
    with pytest.raises(ValueError, match=f"has weights that are not finite, e.g. {table}"):
        FGClip2Model.from_pretrained(tmp_path)


def test_weights_that_no_model_has(folder):
    change_weights(folder, lambda weights: weights.update({"额外": torch.zeros(3), "extra": torch.zeros(3)}))
    with pytest.raises(ValueError, match=r"has 2 weights that FG-CLIP 2 has no place for, e.g. extra"):
        Embedder.from_pretrained(folder)


def test_tensors_of_another_shape(folder):
    change_weights(folder, lambda weights: weights.update(logit_bias=torch.zeros(2)))
    refused(folder, r"has 1 tensors that don't fit its config: logit_bias: \(2,\), expected \(1,\)")


def test_a_header_of_a_million_entries(folder):
    entry = '"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    header = "{" + ",".join(entry % number for number in range(1_000_000)) + "}"
    assert len(header) > MAX_HEADER_BYTES
    write_file(folder / "model.safetensors", header.encode())
    refused(folder, "model.safetensors is no whole safetensors file: a header of .* bytes; allowed: up to 4,194,304")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
        b'{"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}',
        '{"a": "\udcff"}'.encode("utf-8", "surrogateescape"),
    ],
)
def test_broken_headers(header, folder):
    write_file(folder / "model.safetensors", header, b"1234")
    refused(folder, "model.safetensors is no whole safetensors file")


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 100])
def test_files_without_a_header(content, folder):
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "model.safetensors is no whole safetensors file")


@pytest.mark.parametrize(
    "index",
    ["[]", "{}", "[" * 100_000, '{"weight_map": {"a": "../model.safetensors"}}', '{"weight_map": {"a": "a.bin"}}'],
)
def test_an_index_that_leads_elsewhere(index, folder):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    torch.save({}, folder / "a.bin")
    (folder / "model.safetensors.index.json").write_text(index)
    refused(folder, r"model.safetensors.index.json (must name .safetensors files in this folder|is not )")


def test_shards_of_a_distributed_checkpoint(folder):
    shutil.copyfile(folder / "model.safetensors", folder / "shard-00001-model-00001-of-00001.safetensors")
    refused(folder, "has shards of a distributed checkpoint")


def test_pickles_are_refused_also_if_they_are_asked_for(folder):
    change = {"use_safetensors": False}
    with pytest.raises(ValueError, match="`use_safetensors` must be True, got False: pickles may run code"):
        FGClip2TextModel.from_pretrained(folder, **change)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    refused(folder, "pytorch_model.bin may run code when loaded, and is never read", (OSError,))


@pytest.mark.parametrize("content", ["[]", "[" * 100_000, "3"])
def test_a_configuration_that_is_no_object(content, folder):
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"the config.json of .* is not a JSON object of settings: get it again"):
        Embedder.from_pretrained(folder)


def test_a_folder_without_a_checkpoint(tmp_path):
    with pytest.raises(OSError, match=f"{tmp_path} has no config.json, so it is no checkpoint"):
        Embedder.from_pretrained(tmp_path)


@pytest.mark.parametrize("load", [Embedder.from_pretrained, FGClip2Processor.from_pretrained])
@pytest.mark.parametrize(
    ("removed", "message"),
    [
        (["tokenizer.json"], "has no tokenizer.json: copy it from where the weights come from"),
        (["processor_config.json", "preprocessor_config.json"], "has no preprocessor_config.json or processor_config"),
    ],
)
def test_a_folder_without_its_processor_is_told_in_one_sentence(load, removed, message, folder):
    for name in removed:
        (folder / name).unlink()
    with pytest.raises(OSError, match=message) as raised:
        load(folder)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("content", ["{", "[]", '{"model": "词"}'])
def test_a_broken_tokenizer_is_named(content, folder):
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=f"the tokenizer or image processor of {folder} can't be read"):
        Embedder.from_pretrained(folder)


def test_other_models_are_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "siglip2"}')
    with pytest.raises(ValueError, match=r"has the model type 'siglip2', and this package has FG-CLIP 2 \(fgclip2\)"):
        Embedder.from_pretrained(tmp_path)
