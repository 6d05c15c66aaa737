"""Starting from SigLIP 2: the position stretch and the copied heads against the official ones."""

import pytest
import torch
from safetensors.torch import load_file

from fgclip2 import FGClip2Model
from fgclip2.training.initialization import initialize_heads_from_siglip2, stretch_position_embedding

from .test_inference import assert_close


@pytest.fixture(scope="module")
def conversions(golden_folder):
    return load_file(golden_folder / "conversions.safetensors")


@pytest.mark.parametrize("rows", [64, 32, 21])
def test_stretch(conversions, rows):
    stretched = stretch_position_embedding(conversions[f"resize_{rows}.in"])
    for table in ("ori", "res"):
        torch.testing.assert_close(stretched, conversions[f"resize_{rows}.out_{table}"], rtol=1e-6, atol=1e-6)


def test_stretch_of_too_short_a_table():
    with pytest.raises(ValueError, match="at least 21 rows, got 20"):
        stretch_position_embedding(torch.zeros(20, 4))


@torch.no_grad()
def test_features_after_the_three_steps(conversions, golden_folder, golden_inputs, golden_pixels):
    model = FGClip2Model.from_pretrained(golden_folder / "model").eval()
    initialize_heads_from_siglip2(model)
    for walk_type in ("short", "long", "box"):
        features = model.get_text_features(golden_inputs[f"input_ids_{walk_type}"], walk_type=walk_type)
        assert_close(features, conversions[f"from_siglip2.text_features_{walk_type}"])
    assert_close(model.get_image_features(**golden_pixels), conversions["from_siglip2.image_features"])
    assert_close(model.get_image_dense_feature(**golden_pixels), conversions["from_siglip2.dense_features"], 2e-5)


@torch.no_grad()
def test_training_region_features_are_the_normalised_ones(conversions, golden_model, golden_pixels, golden_settings):
    regions = golden_model.get_image_region_features(
        **golden_pixels,
        image_sizes=golden_settings["image_sizes_hw"],
        region_infos=golden_settings["region_boxes_xyxy"],
    )
    features = torch.cat(regions)
    expected = conversions["training_roi_features_normalised"]
    # The official training class divides the zero vectors of zero-area boxes by zero.
    empty = expected.isnan().any(-1)
    assert torch.equal(empty, (features == 0).all(-1))
    assert_close(torch.nn.functional.normalize(features, dim=-1)[~empty], expected[~empty], 2e-5)
