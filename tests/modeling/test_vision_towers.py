"""The vision towers of all families inside models of transformers, which ask them for hidden states of any layer."""

import pytest
import torch
from transformers import Lfm2Config, Lfm2VlConfig, LlamaConfig, LlavaConfig
from transformers.models.lfm2_vl.modeling_lfm2_vl import Lfm2VlModel
from transformers.models.llava.modeling_llava import LlavaModel

from fgclip2 import FGClipModel
from tests import golden_of_r2d2, golden_of_v1
from tests.golden_of_v1 import GOLDEN_V1

LANGUAGE_MODEL = {
    "vocab_size": 8,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(params=["fgclip2", "fgclip", "r2d2"])
def tower_and_squares(request, golden_model):
    """A tower, plain square images for it, and how many hidden states come before those of the patches."""
    if request.param == "fgclip2":
        return golden_model.vision_model, torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), 0
    if request.param == "fgclip":
        model = FGClipModel.from_pretrained(GOLDEN_V1 / "model").eval()
        return model.vision_model, golden_of_v1.inputs()["pixel_values"][:2], 1
    return golden_of_r2d2.model().visual_encoder, golden_of_r2d2.tensors("inputs")["pixel_values"][:2], 1


def test_llava_takes_the_patches_of_a_layer(tower_and_squares):
    tower, squares, first = tower_and_squares
    config = LlavaConfig(
        vision_config=tower.config, text_config=LlamaConfig(**LANGUAGE_MODEL), image_token_id=7, vision_feature_layer=-2
    )
    model = LlavaModel(config).eval()
    assert type(model.vision_tower) is type(tower)
    model.vision_tower.load_state_dict(tower.state_dict())
    strategy = "default" if first else "full"  # `default` leaves out the first hidden state of an image
    features = model.get_image_features(squares, vision_feature_select_strategy=strategy).pooler_output

    hidden_states = tower(squares, output_hidden_states=True).hidden_states
    assert len(hidden_states) == tower.config.num_hidden_layers + 1
    torch.testing.assert_close(torch.stack(features), model.multi_modal_projector(hidden_states[-2][:, first:]))


def test_lfm2_vl_takes_images_in_their_own_shapes(golden_model, golden_pixels):
    tower = golden_model.vision_model
    language_model = Lfm2Config(**LANGUAGE_MODEL, layer_types=["full_attention"])
    config = Lfm2VlConfig(vision_config=tower.config, text_config=language_model, image_token_id=7, downsample_factor=1)
    model = Lfm2VlModel(config).eval()
    model.vision_tower.load_state_dict(tower.state_dict())
    features = model.get_image_features(**golden_pixels).pooler_output

    patches = tower(**golden_pixels).last_hidden_state[golden_pixels["pixel_attention_mask"].bool()]  # without padding
    assert len(patches) < golden_pixels["pixel_attention_mask"].numel()
    torch.testing.assert_close(torch.cat(features), model.multi_modal_projector(patches[None, None])[0, 0])


def test_a_tuple_has_the_same_parts(tower_and_squares):
    tower, squares, _ = tower_and_squares
    outputs = tower(squares)
    last_hidden_state, pooled = tower(squares, return_dict=False)
    assert torch.equal(last_hidden_state, outputs.last_hidden_state)
    assert torch.equal(pooled, outputs.pooler_output)
