"""Every inference output of the official implementation of FG-CLIP, the first version, within its tolerances."""

import hashlib
import json

import numpy as np
import PIL
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torch.testing import assert_close

from fgclip2 import FGClipImageProcessor, FGClipModel
from fgclip2.modeling.layers import resize_position_table
from tests import golden_of_v1
from tests.golden_of_v1 import DENSE, FEATURES, GOLDEN_V1, LOGITS, OFFICIAL_ARGUMENTS, TABLES

WALKS = ("short", "long", "box")
OTHER_SIZES = ("tall", "square_large")
INPUTS, OUTPUTS, SETTINGS = golden_of_v1.inputs(), golden_of_v1.outputs(), golden_of_v1.settings()
IMAGES = json.loads((GOLDEN_V1 / "images.json").read_text())
PIXELS = INPUTS["pixel_values"]
TEXT_CASES = [name for name in OUTPUTS if name.startswith("text_features_")]


@pytest.fixture(scope="module")
def model() -> FGClipModel:
    """The tiny official checkpoint; don't change it."""
    return FGClipModel.from_pretrained(GOLDEN_V1 / "model").eval()


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def test_state_dict_keys(model):
    keys = json.loads((GOLDEN_V1 / "model" / "state_dict_keys.json").read_text())["keys"]
    assert {name: [list(tensor.shape), "float32"] for name, tensor in model.state_dict().items()} == keys


def test_scales_of_the_checkpoint_are_kept(model):
    scales = [model.logit_scale, model.logit_scale_finegraind, model.logit_scale_hardneg]
    assert [scale.item() for scale in scales] == pytest.approx([3.2, 2.9, 2.4])


def test_vision_tower(model):
    outputs = model.vision_model(PIXELS, output_hidden_states=True)
    assert_close(outputs.last_hidden_state, OUTPUTS["vision_last_hidden_state"], **FEATURES)
    assert_close(outputs.pooler_output, OUTPUTS["vision_pooler_output"], **FEATURES)
    assert len(outputs.hidden_states) == 4
    for index, hidden_states in enumerate(outputs.hidden_states):
        assert_close(hidden_states, OUTPUTS[f"vision_hidden_states_{index}"], **FEATURES)


def test_image_and_dense_features(model):
    assert_close(model.get_image_features(PIXELS), OUTPUTS["image_features"], **FEATURES)
    assert_close(model.get_image_dense_feature(PIXELS), OUTPUTS["dense_features"], **DENSE)
    assert_close(model.get_image_dense_features(PIXELS), OUTPUTS["dense_features"], **DENSE)


@pytest.mark.parametrize("size", OTHER_SIZES)
def test_images_of_other_sizes(model, size):
    pixels = INPUTS[f"pixel_values_{size}"]
    embeddings = model.vision_model.embeddings
    grid = [side // embeddings.patch_size for side in pixels.shape[2:]]
    table = resize_position_table(embeddings.position_embedding.weight, *grid)
    assert_close(table, OUTPUTS[f"position_table_{size}"], **TABLES)
    features = model.get_image_features(pixels, interpolate_pos_encoding=True)
    assert_close(features, OUTPUTS[f"image_features_{size}"], **FEATURES)
    dense = model.get_image_dense_features(pixels, interpolate_pos_encoding=True)
    assert_close(dense, OUTPUTS[f"dense_features_{size}"], **DENSE)


def test_region_features_of_boxes_in_patches(model):
    boxes = [INPUTS[f"region_boxes_grid_{index}"] for index in range(4)]
    features = model.get_image_box_roi_features(PIXELS, boxes)
    assert_close(features, OUTPUTS["region_features"], **FEATURES)
    assert (features == 0).all(-1).nonzero().flatten().tolist() == SETTINGS["zero_rows_of_region_features"]
    features = model.get_image_box_roi_features(PIXELS, INPUTS["region_boxes_k5"])
    assert_close(features, OUTPUTS["region_features_k5"], **FEATURES)


def test_region_features_of_boxes_in_pixels(model):
    """Of images three times as wide as the model's, and twice as high."""
    to_pixels = torch.tensor([120 / 5, 80 / 5, 120 / 5, 80 / 5])
    boxes = [(INPUTS[f"region_boxes_grid_{index}"] * to_pixels).tolist() for index in range(4)]
    features = model.get_image_region_features(PIXELS, image_sizes=[(80, 120)] * 4, region_infos=boxes)
    assert [len(regions) for regions in features] == [5, 4, 0, 6]
    assert_close(torch.cat(features), OUTPUTS["region_features"], **FEATURES)


@pytest.mark.parametrize("name", TEXT_CASES)
def test_text_features(model, name):
    walk, _, ids = name.removeprefix("text_features_").partition(".")
    is_masked, walk = walk.endswith("_masked"), walk.removesuffix("_masked")
    mask = INPUTS[f"attention_mask_{ids.removeprefix('ids_')}"] if is_masked else None
    features = model.get_text_features(INPUTS[f"input_{ids}"], mask, **OFFICIAL_ARGUMENTS[walk])
    assert_close(features, OUTPUTS[name], **FEATURES)
    if walk in WALKS:
        assert_close(model.get_text_features(INPUTS[f"input_{ids}"], mask, walk), OUTPUTS[name], **FEATURES)


@pytest.mark.parametrize("walk", WALKS)
def test_text_tower_and_logits(model, walk):
    ids = INPUTS[f"input_ids_{walk}"]
    outputs = model.text_model(ids, walk_type=walk)
    assert_close(outputs.last_hidden_state[:, :8], OUTPUTS[f"text_last_hidden_state_{walk}_first8"], **FEATURES)
    assert_close(outputs.pooler_output, OUTPUTS[f"text_pooler_output_{walk}"], **FEATURES)
    logits = model(input_ids=ids, pixel_values=PIXELS, walk_type=walk).logits_per_image
    assert_close(logits, OUTPUTS[f"readme_logits_per_image_{walk}"], **LOGITS)


def test_forward_as_on_the_hub(model):
    outputs = model(input_ids=INPUTS["input_ids_long"], pixel_values=PIXELS, return_loss=True)
    for name in ("text_embeds", "image_embeds"):
        assert_close(outputs[name], OUTPUTS[f"hub_forward_longids_{name}"], **FEATURES)
    for name in ("logits_per_image", "logits_per_text"):
        assert_close(outputs[name], OUTPUTS[f"hub_forward_longids_{name}"], **LOGITS)
    assert_close(outputs.loss.reshape(1), OUTPUTS["hub_forward_longids_loss"], **LOGITS)


def sha256(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.mark.parametrize("case", IMAGES["cases"], ids=lambda case: f"{case['source']}@{case['size']}")
def test_pixel_values(case):
    """Equal to the bit with Pillow 13; other releases may be one level of 256 off."""
    side = case["size"]
    size = {"height": side, "width": side}
    source = Image.open(GOLDEN_V1 / "images" / case["source"])
    (pixels,) = FGClipImageProcessor(size=size)([source], return_tensors="np")["pixel_values"]
    assert pixels.shape == (3, side, side)
    if PIL.__version__ == IMAGES["pillow"]:
        assert sha256(np.asarray(source.convert("RGB").resize((side, side)))) == case["sha256_of_squashed_uint8_hwc"]
        assert sha256(pixels) == case["sha256_of_pixel_values"]
        return
    rows = load_file(GOLDEN_V1 / "image_samples.safetensors")[f"{case['source'][4]}@{side}.rows"]
    one_level = 1 / 255 / min(FGClipImageProcessor().image_std)
    assert np.abs(pixels[:, [0, side // 2, side - 1]] - rows).max() <= one_level + 1e-6


def test_every_value_of_thevalue_table():
    expected = load_file(GOLDEN_V1 / "image_samples.safetensors")["lut_u8_to_float32"]
    assert np.array_equal(FGClipImageProcessor().value_table(), expected)
