"""The training model: its scales, its checkpoints, what gets a gradient."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fgclip2 import FGClip2Config, FGClip2Model
from fgclip2.training.tasks.fgclip2 import INITIAL_TRAINING_SCALE, FGClip2ForTraining

from . import golden


@pytest.fixture
def official_training_checkpoint(tmp_path):
    """With scales of shape (), as the official training script saves them."""
    folder = tmp_path / "official"
    folder.mkdir()
    weights = load_file(golden.GOLDEN / "model" / "model.safetensors")
    weights |= {name: torch.tensor(value) for name, value in golden.SCALES.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text((golden.GOLDEN / "model" / "config.json").read_text())
    return folder


def test_scales_begin_as_released():
    model = FGClip2ForTraining.from_pretrained(golden.GOLDEN / "model")
    for scale in (model.logit_scale_finegraind, model.logit_scale_hardneg):
        assert scale.shape == (1,)
        assert scale.item() == pytest.approx(INITIAL_TRAINING_SCALE) == pytest.approx(4.6052, abs=1e-4)


def test_scales_of_an_official_training_checkpoint_are_reshaped(official_training_checkpoint, tmp_path):
    model = FGClip2ForTraining.from_pretrained(official_training_checkpoint)
    for name, value in golden.SCALES.items():
        torch.testing.assert_close(getattr(model, name).detach(), torch.tensor([value]))
    model.save_pretrained(tmp_path / "ours")
    again, info = FGClip2ForTraining.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for name, parameter in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], parameter), name


def test_shapes_that_do_not_fit_are_an_error(official_training_checkpoint):
    config = json.loads((official_training_checkpoint / "config.json").read_text())
    config["text_config"]["vocab_size"] += 1
    (official_training_checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"shapes do not fit the configuration: .*token_embedding"):
        FGClip2ForTraining.from_pretrained(official_training_checkpoint)


def test_its_checkpoint_is_one_of_the_plain_model(official_training_checkpoint, tmp_path):
    FGClip2ForTraining.from_pretrained(official_training_checkpoint).save_pretrained(tmp_path / "ours")
    _, info = FGClip2Model.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_fresh_model_trains_every_parameter_but_the_unused_probe(attention):
    config = FGClip2Config.from_pretrained(golden.GOLDEN / "model")
    torch.manual_seed(0)
    model = FGClip2ForTraining._from_config(config, attn_implementation=attention)
    outputs = model(**golden.batch(0))
    sum(value.sum() for value in outputs.values()).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {"dense_feature_head.probe"}
    assert not model.dense_feature_head.probe.requires_grad


def test_captions_and_region_texts_share_a_pass_and_stay_what_they_are():
    model, batch = golden.model().eval(), golden.batch(0)
    with torch.no_grad():
        outputs = model(**batch)
        for name, walk in (("short", "short"), ("long", "long"), ("region", "box")):
            expected = model.get_text_features(batch[f"{name}_input_ids"], walk_type=walk)
            expected = torch.nn.functional.normalize(expected, dim=-1)
            torch.testing.assert_close(outputs[f"{name}_text_embeds"], expected, rtol=1e-5, atol=1e-6)


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = golden.model()
        if checkpointing:
            model.gradient_checkpointing_enable()
        outputs = model(**golden.batch(0))
        sum((value * torch.linspace(0, 1, value.shape[-1])).sum() for value in outputs.values()).backward()
        gradients.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)
