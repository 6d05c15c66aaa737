"""What transformers makes of a converted folder of the first FG-CLIP, with this package imported."""

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, pipeline
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from fgclip2 import (
    FGClipConfig,
    FGClipImageProcessor,
    FGClipModel,
    FGClipProcessor,
    FGClipTextModel,
    FGClipTokenizer,
    FGClipVisionModel,
)
from tests.checkpoints import load, read_tensors

AUTO_MODELS = ("AutoModel", "AutoModelForCausalLM", "AutoModelForZeroShotImageClassification")
LABELS = ["cat", "a dog on the grass", "红苹果"]


@pytest.fixture(scope="module")
def official(official_fgclip_folder) -> tuple[FGClipModel, FGClipProcessor]:
    """Model and processor of the folder that was converted."""
    return load(official_fgclip_folder)


@torch.no_grad()
def test_auto_classes(official, converted_fgclip_folder, photo):
    model, processor = official
    weights = read_tensors(converted_fgclip_folder)
    for name in AUTO_MODELS:
        loaded = getattr(transformers, name).from_pretrained(converted_fgclip_folder)
        assert type(loaded) is FGClipModel
        state = loaded.state_dict()
        assert state.keys() == weights.keys()
        assert all(torch.equal(tensor, weights[key]) for key, tensor in state.items())
    assert type(AutoConfig.from_pretrained(converted_fgclip_folder)) is FGClipConfig
    auto = AutoProcessor.from_pretrained(converted_fgclip_folder)
    tokenizer = AutoTokenizer.from_pretrained(converted_fgclip_folder)
    image_processor = AutoImageProcessor.from_pretrained(converted_fgclip_folder)
    assert type(auto) is FGClipProcessor
    assert type(tokenizer) is type(auto.tokenizer) is FGClipTokenizer
    assert type(image_processor) is type(auto.image_processor) is FGClipImageProcessor
    expected = processor(text=LABELS, images=[photo])
    for found in (
        auto(text=LABELS, images=[photo]),
        {**tokenizer(LABELS, return_tensors="pt"), **image_processor(photo)},
    ):
        assert torch.equal(found["input_ids"], expected["input_ids"])
        assert torch.equal(torch.as_tensor(found["pixel_values"]), expected["pixel_values"])
    assert torch.equal(loaded(**expected).logits_per_image, model(**expected).logits_per_image)


@pytest.mark.parametrize("tower", [FGClipTextModel, FGClipVisionModel])
def test_towers(tower, converted_fgclip_folder, tmp_path):
    tower.from_pretrained(converted_fgclip_folder).save_pretrained(tmp_path)
    assert type(transformers.AutoModel.from_pretrained(tmp_path)) is tower


@pytest.mark.parametrize("source", ["converted_fgclip_folder", "exported_fgclip_folder"])
@torch.no_grad()
def test_zero_shot_image_classification(source, official, photo, request):
    model, processor = official
    classify = pipeline("zero-shot-image-classification", model=str(request.getfixturevalue(source)))
    results = classify(photo, candidate_labels=LABELS, hypothesis_template="a photo of {}")
    inputs = processor(text=[f"a photo of {label}" for label in LABELS], images=[photo])
    shares = model(**inputs, walk_type="short").logits_per_image[0].softmax(-1).tolist()
    expected = dict(zip(LABELS, shares, strict=True))
    assert {row["label"]: row["score"] for row in results} == pytest.approx(expected, abs=1e-6)
    assert sum(row["score"] for row in results) == pytest.approx(1)


@torch.no_grad()
def test_image_feature_extraction(official, converted_fgclip_folder, photo):
    model, processor = official
    features = pipeline("image-feature-extraction", model=str(converted_fgclip_folder))(photo)
    expected = model(**processor(images=[photo])).image_embeds
    torch.testing.assert_close(torch.tensor(features), expected, rtol=0, atol=1e-6)
