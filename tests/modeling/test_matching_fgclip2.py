"""FG-CLIP 2 with a ranking stage: before training, padding, what a pair depends on, saving, and what is refused."""

import pytest
import torch
import torch.nn.functional as F

from fgclip2 import FGClip2ForImageTextMatching, FGClip2MatchingConfig, FGClip2Model, FGClip2TextModel
from tests.conftest import tiny_config

SIZES = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
IDS = torch.tensor([[5, 6, 7, 1, *[0] * 60], [8, 9, 1, *[0] * 61], [9, 5, 4, 3, 2, 1, *[0] * 58]])


@pytest.fixture(scope="module")
def dual_encoder() -> FGClip2Model:
    torch.manual_seed(0)
    return FGClip2Model(tiny_config()).eval()


@pytest.fixture(scope="module")
def model(dual_encoder) -> FGClip2ForImageTextMatching:
    """With a stage that says something; don't change it."""
    torch.manual_seed(1)
    model = FGClip2ForImageTextMatching.from_dual_encoder(dual_encoder, SIZES)
    torch.nn.init.normal_(model.cross_encoder.head.weight)
    return model


@pytest.fixture(scope="module")
def images() -> dict[str, torch.Tensor]:
    """Three images, of 4, 6 and 2 patches."""
    grids = torch.tensor([[2, 2], [2, 3], [1, 2]])
    mask = (torch.arange(6) < grids.prod(1)[:, None]).int()
    pixels = torch.rand(3, 6, 768, generator=torch.Generator().manual_seed(2)) * mask[..., None]
    return {"pixel_values": pixels, "pixel_attention_mask": mask, "spatial_shapes": grids}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def test_an_untrained_stage_gives_the_probabilities_of_the_dual_encoder(dual_encoder, images):
    model = FGClip2ForImageTextMatching.from_dual_encoder(dual_encoder, SIZES)
    logits = dual_encoder(input_ids=IDS, **images).logits_per_image.diag()
    image_tokens, text_tokens = model.get_image_tokens(**images), model.get_text_tokens(IDS)
    torch.testing.assert_close(model.rank_scores(image_tokens, text_tokens), logits)
    torch.testing.assert_close(model.match_probability(image_tokens, text_tokens), logits.sigmoid())
    assert model.text_model.head.weight is dual_encoder.text_model.head.weight


def test_a_trained_stage_adds_to_the_logits_of_the_dual_encoder(model, dual_encoder, images):
    image_tokens, text_tokens = model.get_image_tokens(**images), model.get_text_tokens(IDS)
    added = model.cross_encoder(image_tokens, text_tokens)
    assert added.abs().min() > 1e-3
    logits = dual_encoder(input_ids=IDS, **images).logits_per_image.diag()
    torch.testing.assert_close(model.match(image_tokens, text_tokens), logits + added)


@pytest.mark.parametrize("walk_type", ["short", "long", "box"])
def test_the_first_row_of_tokens_is_the_embedding(model, images, walk_type):
    ids = F.pad(IDS, (0, 132)) if walk_type == "long" else IDS
    text_tokens = model.get_text_tokens(ids, walk_type=walk_type)
    assert text_tokens.shape == (3, 1 + ids.shape[1], model.embedding_size)
    torch.testing.assert_close(text_tokens[:, 0], model.get_text_features(ids, walk_type=walk_type))
    assert torch.equal((text_tokens[:, 1:] != 0).any(-1), ids != 0)
    features, image_tokens = model.get_image_features_and_tokens(**images)
    torch.testing.assert_close(features, model.get_image_features(**images))
    assert torch.equal(image_tokens[:, 0], features)
    assert torch.equal((image_tokens[:, 1:] != 0).any(-1), images["pixel_attention_mask"].bool())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_changes_no_score(dual_encoder, model, images, attention):
    other = FGClip2ForImageTextMatching.from_dual_encoder(dual_encoder, SIZES)
    other.set_attn_implementation(attention)
    other.load_state_dict(model.state_dict())
    image_tokens, text_tokens = model.get_image_tokens(**images), model.get_text_tokens(IDS)
    scores = other.rank_scores(image_tokens, text_tokens)
    for row in range(3):
        image = image_tokens[row : row + 1, : 1 + images["pixel_attention_mask"][row].sum()]
        text = text_tokens[row : row + 1, : 1 + (IDS[row] != 0).sum()]
        torch.testing.assert_close(other.rank_scores(image, text), scores[row : row + 1])
    without_padding = other.rank_scores(image_tokens[:, :7], text_tokens[:, :7])
    torch.testing.assert_close(without_padding, scores)
    mask = (text_tokens != 0).any(-1)
    mask[2, 4:] = False
    cut = other.rank_scores(image_tokens, text_tokens, mask)
    torch.testing.assert_close(cut[:2], scores[:2])
    assert not torch.isclose(cut[2], scores[2])


def test_a_score_depends_on_every_patch_and_every_token_of_its_own_pair(model, images):
    image_tokens, text_tokens = model.get_image_tokens(**images), model.get_text_tokens(IDS)
    with torch.enable_grad():
        image_tokens.requires_grad_()
        text_tokens.requires_grad_()
        model.rank_scores(image_tokens, text_tokens)[1].backward()
    for tokens in (image_tokens, text_tokens):
        is_token = (tokens != 0).any(-1)
        assert torch.equal((tokens.grad != 0).any(-1)[1], is_token[1])
        assert not tokens.grad[[0, 2]].any()


def test_a_folder_has_the_dual_encoder_too(model, dual_encoder, images, tmp_path):
    model.save_pretrained(tmp_path)
    loaded, info = FGClip2ForImageTextMatching.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert isinstance(loaded.config, FGClip2MatchingConfig)
    assert loaded.config.cross_config.hidden_size == SIZES["hidden_size"]
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    alone, info = FGClip2Model.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert torch.equal(alone.get_image_features(**images), dual_encoder.get_image_features(**images))
    tower = FGClip2TextModel.from_pretrained(tmp_path)
    assert torch.equal(tower(IDS).pooler_output, dual_encoder.text_model(IDS).pooler_output)


def test_refuses_what_is_no_stage_and_what_are_no_pairs(model, dual_encoder, images, tmp_path):
    dual_encoder.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"lacks cross_encoder\.head\.weight"):
        FGClip2ForImageTextMatching.from_pretrained(tmp_path)
    image_tokens, text_tokens = model.get_image_tokens(**images), model.get_text_tokens(IDS)
    with pytest.raises(ValueError, match="image_tokens has 2 rows and text_tokens 3"):
        model.match(image_tokens[:2], text_tokens)
    with pytest.raises(ValueError, match=r"attention_mask has shape \(3, 64\)"):
        model.match(image_tokens, text_tokens, IDS != 0)
    with pytest.raises(ValueError, match="`num_attention_heads` must be a positive integer, got 0"):
        FGClip2MatchingConfig(cross_config={"num_attention_heads": 0})
