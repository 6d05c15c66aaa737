"""Saved and reloaded, weights are bitwise equal and outputs unchanged, however the model is built and in any dtype."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fgclip2 import FGClip2Model, FGClip2TextModel, FGClip2VisionModel
from tests.checkpoints import read_tensors


@torch.no_grad()
def outputs(model: FGClip2Model, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    pixels = {name: inputs[name] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes")}
    texts = [model.get_text_features(inputs[f"input_ids_{walk}"], walk_type=walk) for walk in ("short", "long", "box")]
    forward = model(**pixels, input_ids=inputs["input_ids_short"])
    return [*texts, model.get_image_dense_feature(**pixels), forward.logits_per_image, forward.image_embeds]


def assert_equal_states(actual: torch.nn.Module, expected: dict[str, torch.Tensor]) -> None:
    state = actual.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "options",
    [{}, {"low_cpu_mem_usage": True}, {"device_map": "cpu"}, {"device_map": "auto"}],
    ids=["plain", "low_cpu_mem_usage", "device_map=cpu", "device_map=auto"],
)
def test_reloaded_model_is_equal(dtype, attention, options, golden_folder, golden_inputs, tmp_path):
    model = FGClip2Model.from_pretrained(golden_folder / "model", dtype=dtype, attn_implementation=attention)
    before = outputs(model, golden_inputs)
    model.save_pretrained(tmp_path)
    again = FGClip2Model.from_pretrained(tmp_path, dtype="auto", attn_implementation=attention, **options)
    assert again.config._attn_implementation == attention
    assert again.text_model.config._attn_implementation == again.vision_model.config._attn_implementation == attention
    assert again.dtype == dtype
    assert_equal_states(again, model.state_dict())
    for actual, expected in zip(outputs(again, golden_inputs), before, strict=True):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("offloaded", ["", "text_model", "vision_model"], ids=["all", "text", "vision"])
def test_weights_offloaded_to_disk_give_the_same(offloaded, golden_folder, golden_inputs, tmp_path):
    before = outputs(FGClip2Model.from_pretrained(golden_folder / "model"), golden_inputs)
    names = [name for name, _ in FGClip2Model.from_pretrained(golden_folder / "model").named_children()]
    names += ["logit_scale", "logit_bias"]
    places = {name: "disk" if name == offloaded else "cpu" for name in names} if offloaded else {"": "disk"}
    model = FGClip2Model.from_pretrained(golden_folder / "model", device_map=places, offload_folder=tmp_path)
    for actual, expected in zip(outputs(model, golden_inputs), before, strict=True):
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


def test_built_without_the_meta_device(golden_model, golden_inputs):
    model = FGClip2Model(golden_model.config).eval()
    model.load_state_dict(golden_model.state_dict())
    for actual, expected in zip(outputs(model, golden_inputs), outputs(golden_model, golden_inputs), strict=True):
        assert torch.equal(actual, expected)


def test_built_on_the_meta_device_nothing_but_parameters_is_needed(golden_model, golden_inputs):
    """Buffers and plain tensors made in `__init__` would be garbage here."""
    with torch.device("meta"):
        model = FGClip2Model(golden_model.config).eval()
    assert not list(model.buffers())
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    model.load_state_dict(golden_model.state_dict())
    for actual, expected in zip(outputs(model, golden_inputs), outputs(golden_model, golden_inputs), strict=True):
        assert torch.equal(actual, expected)


def test_loading_initialises_nothing_that_was_loaded(golden_model, tmp_path):
    """Transformers 5 runs `_init_weights` over the whole model when a tensor is missing."""
    golden_model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    removed = weights.pop("longtext_head.bias")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    state = FGClip2Model.from_pretrained(tmp_path).state_dict()
    assert torch.equal(state.pop("longtext_head.bias"), torch.zeros_like(removed))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in state.items())


@pytest.mark.parametrize(("cls", "tower"), [(FGClip2TextModel, "text_model"), (FGClip2VisionModel, "vision_model")])
def test_towers_of_their_own(cls, tower, golden_model, golden_folder, golden_inputs, golden_pixels, tmp_path):
    model = cls.from_pretrained(golden_folder / "model")
    model.save_pretrained(tmp_path)
    again, info = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert_equal_states(again, getattr(golden_model, tower).state_dict())
    inputs = golden_pixels if tower == "vision_model" else {"input_ids": golden_inputs["input_ids_short"]}
    with torch.no_grad():
        actual, expected = again(**inputs), getattr(golden_model, tower)(**inputs)
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
