"""Folders for transformers.js, run by onnxruntime here; tests/javascript loads one by the library itself."""

import json

import numpy as np
import pytest
import torch

from fgclip2.hub import export_transformers_js

onnx = pytest.importorskip("onnx", reason='needs the extra: pip install "fgclip2[onnx]"')
onnxruntime = pytest.importorskip("onnxruntime", reason='needs the extra: pip install "fgclip2[onnx]"')

pytestmark = pytest.mark.slow

TEXTS = ["A black CAT on a chair.", "一只黑猫坐在椅子上。", "很长的描述，" * 60]


@pytest.fixture(scope="module")
def folder(model, processor, tmp_path_factory):
    return export_transformers_js(model, processor, tmp_path_factory.mktemp("transformers_js") / "模型", square_side=64)


@pytest.fixture(scope="module")
def inputs(processor) -> dict[str, torch.Tensor]:
    ids = processor.tokenize(TEXTS, "caption")["input_ids"]
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "pixel_values": pixels}


@pytest.fixture(scope="module")
def features(model, inputs) -> dict[str, np.ndarray]:
    with torch.no_grad():
        texts = model.get_role_features("caption", inputs["input_ids"])
        images = model.get_image_features(inputs["pixel_values"])
    return {"text_model": texts.numpy(), "vision_model": images.numpy()}


def run(path, **feeds):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {name: np.asarray(value) for name, value in feeds.items()})
    return dict(zip((output.name for output in session.get_outputs()), outputs, strict=True))


def cosines(actual, expected) -> np.ndarray:
    norms = np.linalg.norm(actual, axis=-1) * np.linalg.norm(expected, axis=-1)
    return (actual * expected).sum(-1) / norms


@pytest.mark.parametrize(("suffix", "least"), [("", 0.999999), ("_quantized", 0.99)])
def test_towers_have_the_features_of_torch(folder, inputs, features, suffix, least):
    for name, feed in (("text_model", "input_ids"), ("vision_model", "pixel_values")):
        path = folder / "onnx" / f"{name}{suffix}.onnx"
        onnx.checker.check_model(path)
        actual = run(path, **{feed: inputs[feed]})
        assert actual.keys() == {"pooler_output"}
        assert cosines(actual["pooler_output"], features[name]).min() > least


def test_both_towers_give_the_scores_of_the_model(folder, model, inputs, features):
    actual = run(folder / "onnx" / "model.onnx", **inputs)
    texts, images = (rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in features.values())
    scale, bias = model.get_score_scale_and_bias()
    np.testing.assert_allclose(actual["text_embeds"], texts, atol=1e-5)
    np.testing.assert_allclose(actual["image_embeds"], images, atol=1e-5)
    np.testing.assert_allclose(actual["logits_per_image"], scale * images @ texts.T + bias, atol=1e-4)
    np.testing.assert_array_equal(actual["logits_per_text"], actual["logits_per_image"].T)


def test_a_long_text_that_lost_its_end_gets_it_back(folder, processor, inputs, features):
    """The tokenizer of transformers.js cuts the end token off a text that is too long."""
    ids = inputs["input_ids"].clone()
    assert ids[2, -1] == processor.tokenizer.eos_token_id
    ids[2, -1] = ids[2, -2]
    actual = run(folder / "onnx" / "text_model.onnx", input_ids=ids)["pooler_output"]
    np.testing.assert_allclose(actual, features["text_model"], atol=1e-5)


def test_settings_name_classes_of_the_library(folder):
    config, tokenizer, images = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("config.json", "tokenizer_config.json", "preprocessor_config.json")
    )
    assert config["model_type"] == "siglip"
    assert (tokenizer["tokenizer_class"], tokenizer["model_max_length"]) == ("GemmaTokenizer", 64)
    assert (images["image_processor_type"], images["size"]) == ("SiglipImageProcessor", {"height": 64, "width": 64})
    for path in folder.rglob("*.onnx"):  # where the library looks for weights
        assert path.with_name(f"{path.name}_data").is_file()
