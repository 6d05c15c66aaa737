"""Pipelines of transformers with this package imported, on folders that were saved, exported, and official."""

import copy

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipImageProcessor, SiglipModel, pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.zero_shot_image_classification import ZeroShotImageClassificationPipeline

from fgclip2 import (
    FGClip2ImageProcessor,
    FGClip2Model,
    FGClip2Processor,
    FGClip2VisionModel,
    FGClip2ZeroShotImageClassificationPipeline,
)

TASK = "zero-shot-image-classification"
LABELS = {"en": (["Cat", "dog", "red apple"], "a photo of {}."), "zh": (["猫", "狗", "红苹果"], "一张{}的照片。")}


@pytest.fixture(scope="module")
def model(official_folder) -> FGClip2Model:
    return FGClip2Model.from_pretrained(official_folder)


@pytest.fixture(params=["saved_folder", "exported_folder"])
def folder(request):
    return str(request.getfixturevalue(request.param))


@torch.no_grad()
def probabilities(model, official_folder, texts: list[str], image) -> dict[str, float]:
    """By hand: each text padded to 64 tokens, a sigmoid of its own logit."""
    inputs = FGClip2Processor.from_pretrained(official_folder)(text=texts, images=[image])
    assert inputs["input_ids"].shape[1] == 64
    return dict(zip(texts, model(**inputs).logits_per_image[0].sigmoid().tolist(), strict=True))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_zero_shot_image_classification(language, folder, model, official_folder, photo):
    labels, template = LABELS[language]
    classify = pipeline("zero-shot-image-classification", model=folder)
    results = classify(photo, candidate_labels=labels, hypothesis_template=template)
    texts = [template.format(label) for label in labels]
    expected = probabilities(model, official_folder, texts, photo)
    assert [row["score"] for row in results] == sorted((row["score"] for row in results), reverse=True)
    assert {template.format(row["label"]): row["score"] for row in results} == pytest.approx(expected, abs=1e-6)


def test_a_score_does_not_depend_on_the_other_labels(folder, photo):
    classify = pipeline("zero-shot-image-classification", model=folder)
    alone = classify(photo, candidate_labels=["猫"])[0]["score"]
    together = {row["label"]: row["score"] for row in classify(photo, candidate_labels=["猫", "a much longer label"])}
    assert together["猫"] == pytest.approx(alone, abs=1e-6)
    assert 0 < alone < 1


def test_zero_shot_from_parts_of_an_official_folder(model, official_folder, photo):
    processor = FGClip2Processor.from_pretrained(official_folder)
    classify = pipeline(
        "zero-shot-image-classification",
        model=model,
        tokenizer=processor.tokenizer,
        image_processor=processor.image_processor,
    )
    results = classify(photo, candidate_labels=["猫", "dog"], hypothesis_template="{}")
    expected = probabilities(model, official_folder, ["猫", "dog"], photo)
    assert {row["label"]: row["score"] for row in results} == pytest.approx(expected, abs=1e-6)


def test_image_feature_extraction(folder, model, photo):
    features = pipeline("image-feature-extraction", model=folder)(photo)
    with torch.no_grad():
        expected = model(**FGClip2ImageProcessor()(photo, return_tensors="pt")).image_embeds
    torch.testing.assert_close(torch.tensor(features), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("pool", [True, False])
def test_image_feature_extraction_with_the_vision_tower(pool, model, official_folder, photo):
    tower = FGClip2VisionModel.from_pretrained(official_folder)
    extract = pipeline("image-feature-extraction", model=tower, image_processor=FGClip2ImageProcessor())
    with torch.no_grad():
        outputs = tower(**FGClip2ImageProcessor()(photo, return_tensors="pt"))
    expected = outputs.pooler_output if pool else outputs.last_hidden_state
    torch.testing.assert_close(torch.tensor(extract(photo, pool=pool)), expected, rtol=0, atol=1e-6)
    if pool:
        features = model.get_image_features(**FGClip2ImageProcessor()(photo, return_tensors="pt"))
        torch.testing.assert_close(outputs.pooler_output, features, rtol=0, atol=1e-6)


def test_only_our_models_get_our_pipeline(model, folder, tmp_path, photo):
    """The class that transformers has for the task stays in its registry, and is what runs for other models."""
    assert type(pipeline(TASK, model=folder)) is FGClip2ZeroShotImageClassificationPipeline
    assert "FGClip2" not in str(PIPELINE_REGISTRY.supported_tasks[TASK])
    tower = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    vision = {**tower, "image_size": 32, "patch_size": 16}
    processor = FGClip2Processor.from_pretrained(folder)
    parts = {
        "tokenizer": processor.tokenizer,
        "image_processor": SiglipImageProcessor(size={"height": 32, "width": 32}),
    }
    for config_class, model_class in ((SiglipConfig, SiglipModel), (CLIPConfig, CLIPModel)):
        text = {**tower, "vocab_size": len(processor.tokenizer), "max_position_embeddings": 64, "eos_token_id": 1}
        other = model_class(config_class(text_config=text, vision_config=vision)).eval()
        classify = pipeline(TASK, model=other, **parts)
        assert type(classify) is ZeroShotImageClassificationPipeline
        scores = [row["score"] for row in classify(photo, candidate_labels=["cat", "dog"])]
        assert (sum(scores) == pytest.approx(1)) == (model_class is CLIPModel)  # a softmax, and SigLIP's sigmoid


def test_pipelines_can_be_copied(model, official_folder):
    processor = FGClip2Processor.from_pretrained(official_folder)
    classify = pipeline(TASK, model=model, tokenizer=processor.tokenizer, image_processor=processor.image_processor)
    assert type(copy.copy(classify)) is FGClip2ZeroShotImageClassificationPipeline
