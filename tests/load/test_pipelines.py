"""Pipelines of transformers with this package imported, on folders that were saved, exported, and official."""

import pytest
import torch
from transformers import pipeline

from fgclip2 import FGClip2ImageProcessor, FGClip2Model, FGClip2Processor, FGClip2VisionModel

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


def test_other_models_keep_their_pipeline(photo):
    """The class takes the place of the stock one for every model: for others it must do what that did."""
    from transformers import SiglipConfig, SiglipModel

    from fgclip2.modeling.pipeline_fgclip2 import FGClip2ZeroShotImageClassificationPipeline

    tower = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    siglip = SiglipModel(SiglipConfig(text_config=tower, vision_config={**tower, "image_size": 32, "patch_size": 16}))
    stock = FGClip2ZeroShotImageClassificationPipeline.__mro__[1]
    logits = {"logits": torch.tensor([[1.0, -2.0, 0.5]]), "candidate_labels": ["a", "b", "c"]}
    ours, theirs = (cls.__new__(cls) for cls in (FGClip2ZeroShotImageClassificationPipeline, stock))
    for instance in (ours, theirs):
        instance.model, instance.framework = siglip, "pt"
    assert ours.postprocess(dict(logits)) == theirs.postprocess(dict(logits))
