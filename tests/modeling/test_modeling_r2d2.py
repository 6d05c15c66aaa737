"""R2D2: padding, saving and loading, PRD2, and what the model refuses."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from fgclip2 import R2D2Config, R2D2Model, R2D2TextModel, R2D2VisionModel
from fgclip2.modeling.interface import DualEncoder, RegionEncoder
from tests import golden_of_r2d2

INPUTS = golden_of_r2d2.tensors("inputs")
PIXELS, IDS, MASK = INPUTS["pixel_values"][:3], INPUTS["input_ids"][:3], INPUTS["attention_mask"][:3]


@pytest.fixture(scope="module")
def model() -> R2D2Model:
    """The tiny checkpoint; don't change it."""
    return golden_of_r2d2.model()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """Don't write into it."""
    folder = tmp_path_factory.mktemp("r2d2")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def test_offers_what_the_package_asks_of_a_family(model):
    assert isinstance(model, DualEncoder)
    assert not isinstance(model, RegionEncoder)
    assert model.embedding_size == 20
    scale, bias = model.get_score_scale_and_bias()
    assert scale == pytest.approx(1 / model.temp.item())
    assert bias == 0
    features = model.get_role_features("caption", input_ids=IDS, attention_mask=MASK)
    assert torch.equal(features, model.get_text_features(IDS, MASK))
    assert torch.equal(features, model.get_text_features(IDS, MASK, return_dict=True).pooler_output)
    assert torch.equal(
        model.get_image_features(PIXELS), model.get_image_features(PIXELS, return_dict=True).pooler_output
    )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_padding_changes_nothing(folder, attention):
    model = R2D2Model.from_pretrained(folder, attn_implementation=attention)
    images = model.get_image_tokens(PIXELS)
    whole, scores = model.get_text_tokens(IDS, MASK), model.rank_scores(images, model.get_text_tokens(IDS, MASK), MASK)
    length = int(MASK.sum(1).max())
    assert length < IDS.shape[1]
    ids, mask = IDS[:, :length], MASK[:, :length]
    short = model.get_text_tokens(ids, mask)
    kept = mask[..., None].bool()
    torch.testing.assert_close(short * kept, whole[:, :length] * kept, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.rank_scores(images, short, mask), scores, rtol=0, atol=1e-6)
    one = int(MASK[0].sum())
    alone = model.get_text_tokens(IDS[:1, :one])  # without a mask, for nothing is padding
    torch.testing.assert_close(model.rank_scores(images[:1], alone), scores[:1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_again(model, dtype, folder, tmp_path):
    loaded, info = R2D2Model.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    assert not any(info.values())
    assert loaded.text_joint_layer.config._attn_implementation == "sdpa"
    loaded.save_pretrained(tmp_path)
    again = R2D2Model.from_pretrained(tmp_path, dtype="auto")
    assert again.config.to_dict().keys() == loaded.config.to_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.to(dtype)), name
    assert not list(again.buffers())


@pytest.mark.parametrize(("rows", "tokens"), [(90, 90), (60, 60), (None, 84)])
def test_resized_saved_and_loaded_again(rows, tokens, tmp_path):
    model = golden_of_r2d2.model()
    before = model.get_text_features(IDS % 60, MASK)
    model.resize_token_embeddings(rows)
    assert torch.equal(model.get_text_features(IDS % 60, MASK), before)
    model.save_pretrained(tmp_path)
    again, info = R2D2Model.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert again.config.text_config.vocab_size == tokens
    for name, tensor in again.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_loading_initialises_nothing_that_was_loaded(model, folder, tmp_path):
    """Transformers 5 runs `_init_weights` over the whole model when a tensor is missing."""
    weights = load_file(folder / "model.safetensors")
    removed = weights.pop("itm_head.bias")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    state = R2D2Model.from_pretrained(tmp_path).state_dict()
    assert torch.equal(state.pop("itm_head.bias"), torch.zeros_like(removed))
    assert all(torch.equal(tensor, weights[name]) for name, tensor in state.items())


@pytest.mark.parametrize(("kind", "tower"), [(R2D2TextModel, "text_encoder"), (R2D2VisionModel, "visual_encoder")])
def test_towers_of_their_own(model, kind, tower, folder):
    alone, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    for name, tensor in getattr(model, tower).state_dict().items():
        assert torch.equal(alone.state_dict()[name], tensor), name


def test_prd2_has_the_first_stage_only():
    torch.manual_seed(0)
    model = R2D2Model(golden_of_r2d2.config(cross_config={"num_hidden_layers": 0})).eval()
    assert not any("joint" in name or "itm" in name for name in model.state_dict())
    assert model.temp.item() == pytest.approx(0.07)
    assert model(IDS, PIXELS, MASK).logits_per_image.shape == (3, 3)
    with pytest.raises(ValueError, match=r"this model has no cross encoders \(PRD2"):
        model.rank_scores(model.get_image_tokens(PIXELS), model.get_text_tokens(IDS, MASK), MASK)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(), "pass input_ids, pixel_values or both"),
        (
            lambda m: m.get_image_features(PIXELS[..., :24]),
            r"images of 32x24, not 32x32: resize them",
        ),
        (lambda m: m.get_text_features(IDS[0]), r"input_ids has shape \(24,\); allowed: \(texts, 1 to 28 tokens\)"),
        (lambda m: m.get_text_features(IDS.repeat(1, 2)), r"input_ids has shape \(3, 48\); allowed: \(texts, 1 to 28"),
        (
            lambda m: m.match(m.get_image_tokens(PIXELS), m.get_text_tokens(IDS[:2])),
            "image_tokens has 3 rows and text_tokens 2; allowed: as many",
        ),
        (
            lambda m: m.get_text_features(IDS, MASK[:1]),
            r"attention_mask has shape \(1, 24\) and input_ids \(3, 24\); allowed: the same",
        ),
        (
            lambda m: m.match(m.get_image_tokens(PIXELS), m.get_text_tokens(IDS), MASK[:1]),
            r"attention_mask has shape \(1, 24\), and the texts of text_tokens \(3, 24\); allowed: the same",
        ),
        (
            lambda m: m.rank_scores(m.get_image_tokens(PIXELS), m.get_text_tokens(IDS), MASK[:, :1]),
            r"attention_mask has shape \(3, 1\), and the texts of text_tokens \(3, 24\); allowed: the same",
        ),
    ],
)
def test_wrong_inputs(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed_dim": 0}, "`embed_dim` must be a positive integer, got 0"),
        (
            {"max_length": 29},
            "`max_length` must be at most 28, the `max_position_embeddings` .*, got 29",
        ),
        ({"cross_config": {"hidden_size": 32}}, r"`cross_config.hidden_size` must be 24, the width .* got 32"),
        ({"cross_config": {"num_hidden_layers": -1}}, r"must be an integer from 0 to 1000, got -1"),
        ({"cross_config": {"num_hidden_layers": "6"}}, r"must be an integer from 0 to 1000, got '6'"),
        ({"cross_config": {"num_hidden_layers": None}}, r"must be an integer from 0 to 1000, got None"),
        ({"vision_config": 3}, "`vision_config` must be a configuration or a dict of its fields, got 3"),
    ],
)
def test_wrong_sizes(changes, message):
    with pytest.raises(ValueError, match=message):
        golden_of_r2d2.config(**changes)


def test_unknown_preset():
    with pytest.raises(ValueError, match="`name` must be one of 'base', 'large', 'prd2', got 'huge'"):
        R2D2Config.from_preset("huge")


def test_gradient_checkpointing_computes_each_layer_twice():
    model = golden_of_r2d2.model().train()
    model.gradient_checkpointing_enable()
    calls = []
    blocks = [layer.mlp for layer in model.visual_encoder.encoder.layers]
    for part in (model.text_encoder, model.text_joint_layer, model.img_joint_layer):
        blocks += [layer.intermediate for layer in part.encoder.layer]
    for block in blocks:
        block.register_forward_pre_hook(lambda *_: calls.append(1))
    with torch.enable_grad():
        scores = model.rank_scores(model.get_image_tokens(PIXELS), model.get_text_tokens(IDS, MASK), MASK)
        once = len(calls)
        assert once == len(blocks) == 3 + 2 + 2 + 2
        scores.sum().backward()
    assert len(calls) == 2 * once
