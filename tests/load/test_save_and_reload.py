"""Saved and reloaded, weights are bitwise equal and outputs unchanged, however the model is built and in any dtype."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fgclip2 import (
    FGClip2Model,
    FGClip2TextModel,
    FGClip2VisionModel,
    FGClipModel,
    FGClipTextModel,
    FGClipVisionModel,
)
from tests import golden_of_v1
from tests.checkpoints import read_tensors


class Checkpoint(NamedTuple):
    """The tiny official checkpoint of a family, and what to compute with it."""

    model: type[Any]
    folder: Path
    images: dict[str, torch.Tensor]
    texts: dict[str, torch.Tensor]  # by walk

    @torch.no_grad()
    def outputs(self, model: Any) -> list[torch.Tensor]:
        texts = [model.get_text_features(ids, walk_type=walk) for walk, ids in self.texts.items()]
        forward = model(**self.images, input_ids=self.texts["short"])
        dense = model.get_image_dense_feature(**self.images)
        return [*texts, dense, forward.logits_per_image, forward.image_embeds]


@pytest.fixture(scope="module")
def fgclip2(golden_folder, golden_pixels, golden_inputs) -> Checkpoint:
    texts = {walk: golden_inputs[f"input_ids_{walk}"] for walk in ("short", "long", "box")}
    return Checkpoint(FGClip2Model, golden_folder / "model", golden_pixels, texts)


@pytest.fixture(scope="module")
def fgclip() -> Checkpoint:
    inputs = golden_of_v1.inputs()
    texts = {walk: inputs[f"input_ids_{walk}"] for walk in ("short", "long", "box")}
    return Checkpoint(FGClipModel, golden_of_v1.GOLDEN_V1 / "model", {"pixel_values": inputs["pixel_values"]}, texts)


@pytest.fixture
def checkpoint(request) -> Checkpoint:
    return request.getfixturevalue(request.param)


both = pytest.mark.parametrize("checkpoint", ["fgclip2", "fgclip"], indirect=True)


def assert_equal_states(actual: torch.nn.Module, expected: dict[str, torch.Tensor]) -> None:
    state = actual.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor), name


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "options",
    [{}, {"low_cpu_mem_usage": True}, {"device_map": "cpu"}, {"device_map": "auto"}],
    ids=["plain", "low_cpu_mem_usage", "device_map=cpu", "device_map=auto"],
)
def test_reloaded_model_is_equal(dtype, attention, options, checkpoint, tmp_path):
    loading = {"dtype": dtype, "attn_implementation": attention}
    model = checkpoint.model.from_pretrained(checkpoint.folder, **loading)
    before = checkpoint.outputs(model)
    model.save_pretrained(tmp_path)
    again = checkpoint.model.from_pretrained(tmp_path, dtype="auto", attn_implementation=attention, **options)
    assert again.config._attn_implementation == attention
    assert again.text_model.config._attn_implementation == again.vision_model.config._attn_implementation == attention
    assert again.dtype == dtype
    assert_equal_states(again, model.state_dict())
    for actual, expected in zip(checkpoint.outputs(again), before, strict=True):
        assert torch.equal(actual, expected)


@both
@pytest.mark.parametrize("offloaded", ["", "text_model", "vision_model"], ids=["all", "text", "vision"])
def test_weights_offloaded_to_disk_give_the_same(offloaded, checkpoint, tmp_path):
    model = checkpoint.model.from_pretrained(checkpoint.folder)
    before = checkpoint.outputs(model)
    names = [name.partition(".")[0] for name in model.state_dict()]
    places = {name: "disk" if name == offloaded else "cpu" for name in names} if offloaded else {"": "disk"}
    model = checkpoint.model.from_pretrained(checkpoint.folder, device_map=places, offload_folder=tmp_path)
    for actual, expected in zip(checkpoint.outputs(model), before, strict=True):
        assert torch.equal(actual, expected)


def test_pickled_weights_are_refused(golden_model, tmp_path):
    golden_model.config.save_pretrained(tmp_path)
    torch.save(golden_model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        FGClip2Model.from_pretrained(tmp_path)


def test_stored_keys_shapes_and_dtypes_are_the_official_ones(golden_model, golden_folder, tmp_path):
    golden_model.save_pretrained(tmp_path)
    keys = json.loads((golden_folder / "model" / "state_dict_keys.json").read_text())["keys"]
    with safe_open(tmp_path / "model.safetensors", framework="pt") as tensors:
        names = list(tensors.keys())
        shapes = {name: tensors.get_slice(name).get_shape() for name in names}
        assert tensors.metadata()["format"] == "pt"
    assert sorted(names) == sorted(keys)
    assert shapes == {name: key["shape"] for name, key in keys.items()}
    original = load_file(golden_folder / "model" / "model.safetensors")
    assert all(torch.equal(tensor, original[name]) for name, tensor in read_tensors(tmp_path).items())


def test_shards(golden_model, golden_inputs, tmp_path):
    golden_model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    again = FGClip2Model.from_pretrained(tmp_path)
    assert_equal_states(again, golden_model.state_dict())


@both
def test_built_without_the_meta_device(checkpoint):
    loaded = checkpoint.model.from_pretrained(checkpoint.folder)
    model = checkpoint.model(loaded.config).eval()
    model.load_state_dict(loaded.state_dict())
    for actual, expected in zip(checkpoint.outputs(model), checkpoint.outputs(loaded), strict=True):
        assert torch.equal(actual, expected)


@both
def test_built_on_the_meta_device_nothing_but_parameters_is_needed(checkpoint):
    """Buffers and plain tensors made in `__init__` would be garbage here."""
    loaded = checkpoint.model.from_pretrained(checkpoint.folder)
    with torch.device("meta"):
        model = checkpoint.model(loaded.config).eval()
    assert not list(model.buffers())
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    model.load_state_dict(loaded.state_dict())
    for actual, expected in zip(checkpoint.outputs(model), checkpoint.outputs(loaded), strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("checkpoint", "missing"),
    [("fgclip2", "longtext_head.bias"), ("fgclip", "text_model.final_layer_norm.bias")],
    indirect=["checkpoint"],
)
def test_loading_initialises_nothing_that_was_loaded(checkpoint, missing, tmp_path):
    """Transformers 5 runs `_init_weights` over the whole model when a tensor is missing."""
    checkpoint.model.from_pretrained(checkpoint.folder).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    removed = weights.pop(missing)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    state = checkpoint.model.from_pretrained(tmp_path).state_dict()
    assert torch.equal(state.pop(missing), torch.zeros_like(removed))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("checkpoint", "cls", "tower"),
    [
        ("fgclip2", FGClip2TextModel, "text_model"),
        ("fgclip2", FGClip2VisionModel, "vision_model"),
        ("fgclip", FGClipTextModel, "text_model"),
        ("fgclip", FGClipVisionModel, "vision_model"),
    ],
    indirect=["checkpoint"],
)
def test_towers_of_their_own(cls, tower, checkpoint, tmp_path):
    model = checkpoint.model.from_pretrained(checkpoint.folder)
    cls.from_pretrained(checkpoint.folder).save_pretrained(tmp_path)
    again, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert_equal_states(again, getattr(model, tower).state_dict())
    inputs = checkpoint.images if tower == "vision_model" else {"input_ids": checkpoint.texts["short"]}
    with torch.no_grad():
        actual, expected = again(**inputs), getattr(model, tower)(**inputs)
    assert torch.equal(actual.pooler_output, expected.pooler_output)


def test_a_tower_saved_with_the_name_of_its_tower_before_each_key(golden_folder, golden_model, tmp_path):
    """As transformers 4.57 wrote a text tower on its own."""
    FGClip2TextModel.from_pretrained(golden_folder / "model").save_pretrained(tmp_path)
    weights = {f"text_model.{name}": tensor for name, tensor in read_tensors(tmp_path).items()}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    again, info = FGClip2TextModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert_equal_states(again, golden_model.text_model.state_dict())


def test_gradient_checkpointing_computes_each_layer_twice(golden_folder, golden_pixels, golden_inputs):
    model = FGClip2Model.from_pretrained(golden_folder / "model").train()
    model.gradient_checkpointing_enable()
    calls = []
    for tower in (model.text_model, model.vision_model):
        for layer in tower.encoder.layers:
            layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    forward = model(**golden_pixels, input_ids=golden_inputs["input_ids_short"], return_loss=True)
    layers = len(calls)
    assert layers == 2 + 3
    forward.loss.sum().backward()
    assert len(calls) == 2 * layers
