"""Folders in the official layout: every way in gives our classes, their own code never runs, weights arrive bitwise."""

import json
import logging
import shutil
import warnings

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoProcessor, AutoTokenizer
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils.logging import warning_once

from fgclip2 import (
    FGClip2Config,
    FGClip2ImageProcessor,
    FGClip2Model,
    FGClip2Processor,
    FGClip2TextModel,
    FGClip2Tokenizer,
    FGClip2VisionModel,
)

AUTO_MODELS = ("AutoModel", "AutoModelForCausalLM", "AutoModelForZeroShotImageClassification")


@pytest.fixture
def messages(monkeypatch) -> list[str]:
    """Everything at or above WARNING that loading says, through logging or warnings."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    listener = Listener(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("transformers", "fgclip2.modeling.modeling_fgclip2")]
    for logger in loggers:
        logger.addHandler(listener)
    monkeypatch.setattr(warnings, "showwarning", lambda message, *args, **kwargs: heard.append(str(message)))
    warning_once.cache_clear()
    yield heard
    for logger in loggers:
        logger.removeHandler(listener)


def assert_weights(model: torch.nn.Module, folder, prefix: str = "") -> None:
    weights = load_file(folder / "model.safetensors")
    state = model.state_dict()
    assert state.keys() == {name.removeprefix(prefix) for name in weights if name.startswith(prefix)}
    assert all(torch.equal(tensor, weights[prefix + name]) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("cls", "prefix"), [(FGClip2Model, ""), (FGClip2TextModel, "text_model."), (FGClip2VisionModel, "vision_model.")]
)
def test_models(cls, prefix, official_folder):
    model, info = cls.from_pretrained(official_folder, output_loading_info=True)
    assert type(model) is cls
    assert not any(info.values()), info
    assert not model.training
    assert_weights(model, official_folder, prefix)


@pytest.mark.parametrize("name", AUTO_MODELS)
@pytest.mark.parametrize("kwargs", [{}, {"trust_remote_code": True}], ids=["", "trust_remote_code"])
def test_auto_models(name, kwargs, official_folder):
    # The folder's own code raises when it runs.
    model = getattr(transformers, name).from_pretrained(official_folder, **kwargs)
    assert type(model) is FGClip2Model
    assert_weights(model, official_folder)


def test_auto_config(official_folder):
    config = AutoConfig.from_pretrained(official_folder)
    assert type(config) is FGClip2Config
    assert not hasattr(config, "auto_map")


def test_golden_outputs(official_folder, golden_pixels, golden_inputs, golden_outputs):
    model = FGClip2Model.from_pretrained(official_folder)
    with torch.no_grad():
        image = model.get_image_features(**golden_pixels)
        texts = model.get_text_features(golden_inputs["input_ids_short"])
    torch.testing.assert_close(image, golden_outputs["image_features"], rtol=0, atol=1e-5)
    torch.testing.assert_close(texts, golden_outputs["text_features_short"], rtol=0, atol=1e-5)


def test_tokenizer(official_folder):
    tokenizer = FGClip2Tokenizer.from_pretrained(official_folder)
    ids = tokenizer(["A Black Cat", "一只黑猫"], padding=True, return_tensors="pt")
    assert list(ids) == ["input_ids"]
    assert ids["input_ids"].shape == (2, 64)
    assert ids["input_ids"].eq(tokenizer.eos_token_id).sum() == 2
    assert tokenizer("A Black Cat")["input_ids"] == tokenizer("a black cat")["input_ids"]


def test_image_processor_keeps_auto_unless_told_otherwise(official_folder, photo):
    assert json.loads((official_folder / "preprocessor_config.json").read_text())["max_num_patches"] == 256
    assert FGClip2ImageProcessor.from_pretrained(official_folder).max_num_patches == "auto"
    explicit = FGClip2ImageProcessor.from_pretrained(official_folder, max_num_patches=576)
    assert explicit.max_num_patches == 576
    assert explicit(photo)["pixel_values"].shape == (1, 576, 768)
    assert explicit(photo, max_num_patches=256)["pixel_values"].shape == (1, 256, 768)


def test_processor(official_folder, photo):
    processor = FGClip2Processor.from_pretrained(official_folder)
    assert type(processor.tokenizer) is FGClip2Tokenizer
    assert type(processor.image_processor) is FGClip2ImageProcessor
    inputs = processor(text=["a cat", "一只猫"], images=[photo], padding=True)
    assert inputs["input_ids"].shape == (2, 64)
    assert inputs["pixel_values"].shape == (1, 128, 768)  # 160 x 120 pixels have 70 patches of their own
    explicit = FGClip2Processor.from_pretrained(official_folder, max_num_patches=256)
    assert explicit(images=[photo])["pixel_values"].shape == (1, 256, 768)


def test_the_warning_names_folder_and_remedy_once(official_folder, messages):
    for _ in range(2):
        FGClip2Model.from_pretrained(official_folder)
    (message,) = messages
    for part in (str(official_folder), "AutoProcessor", "FGClip2Processor.from_pretrained", "fgclip2 convert"):
        assert part in message


def test_the_warning_comes_through_auto_classes_too(official_folder, messages):
    transformers.AutoModelForCausalLM.from_pretrained(official_folder)
    assert ["fgclip2 convert" in message for message in messages] == [True]


def test_no_warning_for_our_own_folders(saved_folder, exported_folder, messages):
    for folder in (saved_folder, exported_folder):
        FGClip2Model.from_pretrained(folder)
    assert messages == []


@pytest.mark.parametrize("shape", [(), (1,)], ids=["0-dim", "1-dim"])
@pytest.mark.parametrize("cls", [FGClip2Model, FGClip2TextModel, FGClip2VisionModel])
def test_a_training_checkpoint_loads_without_complaint(cls, shape, saved_folder, tmp_path, messages):
    folder = shutil.copytree(saved_folder, tmp_path / "training")
    weights = load_file(folder / "model.safetensors")
    weights |= {name: torch.full(shape, 4.6) for name in ("logit_scale_finegraind", "logit_scale_hardneg")}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    _, info = cls.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    assert messages == []


def test_missing_and_unknown_tensors_are_reported(saved_folder, tmp_path, messages):
    folder = shutil.copytree(saved_folder, tmp_path / "damaged")
    weights = load_file(folder / "model.safetensors")
    del weights["boxtext_head.weight"]
    weights["logit_scale_unknown"] = torch.zeros(1)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    _, info = FGClip2Model.from_pretrained(folder, output_loading_info=True)
    assert set(info["missing_keys"]) == {"boxtext_head.weight"}
    assert set(info["unexpected_keys"]) == {"logit_scale_unknown"}
    assert "boxtext_head.weight" in "".join(messages)


def test_saved_again_auto_classes_load_it(official_folder, saved_folder):
    """Official folder -> loaded by the package -> saved: nothing of the foreign names is left."""
    for path in saved_folder.glob("*.json"):
        assert "auto_map" not in path.read_text(encoding="utf-8"), path.name
    assert not list(saved_folder.glob("*.py"))
    for name in AUTO_MODELS:
        model = getattr(transformers, name).from_pretrained(saved_folder)
        assert type(model) is FGClip2Model
        assert_weights(model, official_folder)
    processor = AutoProcessor.from_pretrained(saved_folder)
    assert type(processor) is FGClip2Processor
    assert type(processor.tokenizer) is type(AutoTokenizer.from_pretrained(saved_folder)) is FGClip2Tokenizer
    image_processor = AutoImageProcessor.from_pretrained(saved_folder)
    assert type(processor.image_processor) is type(image_processor) is FGClip2ImageProcessor
    assert image_processor.max_num_patches == "auto"


def test_a_chosen_patch_budget_survives_saving(official_folder, tmp_path):
    FGClip2Processor.from_pretrained(official_folder, max_num_patches=784).save_pretrained(tmp_path)
    assert FGClip2Processor.from_pretrained(tmp_path).image_processor.max_num_patches == 784
    assert AutoProcessor.from_pretrained(tmp_path).image_processor.max_num_patches == 784
    assert AutoImageProcessor.from_pretrained(tmp_path).max_num_patches == 784


def test_the_calls_of_the_official_quick_start(saved_folder, photo):
    """As the official model card makes them, on a folder that we saved; English and Chinese, 64 and 196 tokens."""
    model = transformers.AutoModelForCausalLM.from_pretrained(saved_folder, trust_remote_code=True)
    tokenizer = AutoTokenizer.from_pretrained(saved_folder)
    image_processor = AutoImageProcessor.from_pretrained(saved_folder)
    pixels = image_processor(images=photo, max_num_patches=256, return_tensors="pt")
    assert pixels["pixel_values"].shape == (1, 256, 768)
    with torch.no_grad():
        image = torch.nn.functional.normalize(model.get_image_features(**pixels), dim=-1)
        for texts, length, walk in (
            (["a cat", "一只猫"], 64, "short"),
            (["a long text about a cat", "一段关于猫的长文字"], 196, "long"),
            (["the cat's ear", "猫的耳朵"], 64, "box"),
        ):
            ids = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            text = torch.nn.functional.normalize(model.get_text_features(**ids, walk_type=walk), dim=-1)
            logits = image @ text.T * model.logit_scale.exp() + model.logit_bias
            assert logits.shape == (1, 2)
            if walk == "long":  # 196 tokens and no walk: as in the English quick start
                assert torch.equal(model.get_text_features(**ids), model.get_text_features(**ids, walk_type="long"))
        assert model.get_image_dense_feature(**pixels).shape == (1, 256, 32)
        regions = model.get_image_region_features(
            **pixels, image_sizes=[(photo.height, photo.width)], region_infos=[[[0, 0, 80, 60]]]
        )
        assert regions[0].shape == (1, 32)
