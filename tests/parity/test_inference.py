"""Every inference output of the official implementation, within 1e-5 of its size (dense and unmasked: 2e-5)."""

import hashlib

import pytest
import torch

WALKS = ("short", "long", "box")


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert actual.shape == expected.shape
    if expected.numel():
        error = (actual - expected).abs().max().item()
        assert error <= tolerance * max(1.0, expected.abs().max().item())


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def test_pixel_values_are_bitwise_those_of_the_official_processor(golden_inputs, golden_settings):
    digest = hashlib.sha256(golden_inputs["pixel_values"].numpy().tobytes()).hexdigest()
    assert digest == golden_settings["pixel_values_sha256"]


def test_state_dict_keys(golden_model, golden_folder):
    import json

    keys = json.loads((golden_folder / "model" / "state_dict_keys.json").read_text())["keys"]
    ours = {name: {"shape": list(t.shape), "dtype": "float32"} for name, t in golden_model.state_dict().items()}
    assert ours == keys


def test_vision_tower(golden_model, golden_pixels, golden_outputs):
    outputs = golden_model.vision_model(**golden_pixels, output_hidden_states=True)
    assert_close(outputs.last_hidden_state, golden_outputs["vision_last_hidden_state"])
    assert_close(outputs.pooler_output, golden_outputs["vision_pooler_output"])
    assert_close(outputs.hidden_states[0], golden_outputs["vision_embeddings"])
    for layer in range(3):
        assert_close(outputs.hidden_states[layer + 1], golden_outputs[f"vision_layer_{layer}"])


def test_position_grids(golden_model, golden_pixels, golden_outputs):
    from fgclip2.modeling.modeling_fgclip2 import position_grids

    table = golden_model.vision_model.embeddings.position_embedding.weight.unflatten(0, (16, 16))
    grids = position_grids(table, golden_pixels["spatial_shapes"], 256)
    assert_close(grids, golden_outputs["vision_resized_position_embeddings"])


def test_image_and_dense_features(golden_model, golden_pixels, golden_outputs):
    assert_close(golden_model.get_image_features(**golden_pixels), golden_outputs["image_features"])
    assert_close(golden_model.get_image_dense_feature(**golden_pixels), golden_outputs["dense_features"], 2e-5)


def test_features_without_a_pixel_mask(golden_model, golden_pixels, golden_outputs):
    pixels = {**golden_pixels, "pixel_attention_mask": None}
    assert_close(golden_model.get_image_features(**pixels), golden_outputs["image_features_no_mask"], 2e-5)
    assert_close(golden_model.get_image_dense_feature(**pixels), golden_outputs["dense_features_no_mask"], 2e-5)


def test_region_features(golden_model, golden_pixels, golden_outputs, golden_settings):
    regions = golden_model.get_image_region_features(
        **golden_pixels,
        image_sizes=golden_settings["image_sizes_hw"],
        region_infos=golden_settings["region_boxes_xyxy"],
    )
    for index, features in enumerate(regions):
        assert_close(features, golden_outputs[f"region_features_{index}"], 2e-5)
        zero_rows = (features == 0).all(-1).nonzero().flatten().tolist()
        assert zero_rows == golden_settings["region_zero_rows"][f"region_features_{index}"]


@pytest.mark.parametrize("walk_type", WALKS)
def test_text_tower(golden_model, golden_inputs, golden_outputs, walk_type):
    ids, mask = golden_inputs[f"input_ids_{walk_type}"], golden_inputs[f"attention_mask_{walk_type}"]
    outputs = golden_model.text_model(ids, walk_type=walk_type)
    assert_close(outputs.last_hidden_state, golden_outputs[f"text_last_hidden_state_{walk_type}"])
    assert_close(outputs.pooler_output, golden_outputs[f"text_pooler_output_{walk_type}"])
    features = golden_model.get_text_features(ids, walk_type=walk_type)
    assert_close(features, golden_outputs[f"text_features_{walk_type}"])
    masked = golden_model.get_text_features(ids, attention_mask=mask, walk_type=walk_type)
    assert_close(masked, golden_outputs[f"text_features_{walk_type}_masked"])


@pytest.mark.parametrize("walk_type", ["short", "box"])
def test_texts_of_other_lengths(golden_model, golden_inputs, golden_outputs, walk_type):
    features = golden_model.get_text_features(golden_inputs["input_ids_varlen"], walk_type=walk_type)
    assert_close(features, golden_outputs[f"text_features_{walk_type}_varlen"])


def test_box_head_on_short_ids(golden_model, golden_inputs, golden_outputs):
    features = golden_model.get_text_features(golden_inputs["input_ids_short"], walk_type="box")
    assert_close(features, golden_outputs["text_features_boxhead_on_short_ids"])


@pytest.mark.parametrize("walk_type", WALKS)
def test_forward_with_loss(golden_model, golden_inputs, golden_pixels, golden_outputs, walk_type):
    ids = golden_inputs[f"input_ids_{walk_type}"][:4]
    outputs = golden_model(input_ids=ids, **golden_pixels, walk_type=walk_type, return_loss=True)
    for name in ("logits_per_image", "logits_per_text", "image_embeds", "text_embeds"):
        assert_close(outputs[name], golden_outputs[f"forward_{walk_type}_{name}"])
    assert_close(outputs.loss.reshape(1), golden_outputs[f"forward_{walk_type}_loss"])


def test_forward_with_more_texts_than_images(golden_model, golden_inputs, golden_pixels, golden_outputs):
    outputs = golden_model(input_ids=golden_inputs["input_ids_box"], **golden_pixels, walk_type="box")
    assert_close(outputs.logits_per_image, golden_outputs["forward_box_nonsquare_logits_per_image"])
    with pytest.raises(ValueError, match="as many texts as images"):
        golden_model(input_ids=golden_inputs["input_ids_box"], **golden_pixels, walk_type="box", return_loss=True)


def test_walk_type_follows_the_length(golden_model, golden_inputs, golden_outputs):
    for walk_type in ("short", "long"):
        features = golden_model.get_text_features(golden_inputs[f"input_ids_{walk_type}"])
        assert_close(features, golden_outputs[f"text_features_{walk_type}"])
