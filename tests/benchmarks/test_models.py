"""Other models under the same interface: tiny random ones of each family, and plain functions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutputWithPooling

from fgclip2 import FGClip2Embedder
from fgclip2.benchmarks.models import UNTRAINED, PairEmbedder, configuration_digest, load_model, run_on, text_use
from fgclip2.embedding import Skipped
from fgclip2.errors import UnreadableImageError
from fgclip2.modeling.image_processing_fgclip2 import patch_budget

from ..embedding.test_embedder import draw

TOWER = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TEXT = {**TOWER, "vocab_size": 12, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
SQUARE = {**TOWER, "image_size": 32, "patch_size": 16}
FAMILIES = {
    "CLIP": ({"projection_dim": 8}, TEXT, SQUARE, "CLIP"),
    "MetaClip2": ({"projection_dim": 8}, TEXT, SQUARE, "CLIP"),
    "ChineseCLIP": ({"projection_dim": 8}, {**TEXT, "max_position_embeddings": 80}, SQUARE, "ChineseCLIP"),
    "Siglip": ({}, TEXT, SQUARE, "Siglip"),
    "Siglip2": ({}, TEXT, {**TOWER, "num_patches": 16, "patch_size": 16}, "Siglip2"),
}
TEXTS = ["A black CAT", "一 只 黑 猫", "dog " * 90]


def tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "<eos>", "<unk>", "a", "black", "cat", "dog", "一", "只", "黑", "猫", "CAT"]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def image_processor(family: str):
    name = {"CLIP": "CLIP", "MetaClip2": "CLIP"}.get(family, family)
    options = {"max_num_patches": 4} if family == "Siglip2" else {"size": {"height": 32, "width": 32}}
    if family != "Siglip2":
        options |= {"crop_size": {"height": 32, "width": 32}} if "CLIP" in name else {}
    return getattr(transformers, f"{name}ImageProcessorPil")(**options)


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tmp_path_factory):
    """(folder, family) of a tiny random checkpoint as `save_pretrained` leaves it."""
    family = request.param
    more, text, vision, processor = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(text_config=text, vision_config=vision, **more)
    folder = tmp_path_factory.mktemp(family)
    getattr(transformers, f"{family}Model")(config).save_pretrained(folder)
    processor_class = getattr(transformers, f"{processor}Processor")
    processor_class(image_processor=image_processor(family), tokenizer=tokenizer()).save_pretrained(folder)
    return folder, family


def direct(features):
    features = features.pooler_output if isinstance(features, BaseModelOutputWithPooling) else features
    return torch.nn.functional.normalize(features, dim=-1).detach().numpy()


def test_each_family_gives_what_its_own_classes_give(checkpoint):
    folder, family = checkpoint
    model = load_model(folder, "cpu")
    images = [draw(90, 60, 1), draw(40, 70, 2)]
    own = getattr(transformers, f"{family}Model").from_pretrained(folder).eval()
    inputs = image_processor(family)(images, return_tensors="pt")
    np.testing.assert_allclose(model.encode_images(images), direct(own.get_image_features(**inputs)), atol=1e-6)
    length = {"ChineseCLIP": 52, "CLIP": 77, "MetaClip2": 77}.get(family, 64)
    padded = family.startswith("Siglip")
    texts = [text.lower() for text in TEXTS] if padded else TEXTS
    ids = transformers.AutoProcessor.from_pretrained(folder).tokenizer(  # Siglip2's is always its own
        texts,
        padding="max_length" if padded else True,
        truncation=True,
        max_length=length,
        return_tensors="pt",
        return_attention_mask=not padded,
    )
    assert ids["input_ids"].shape == (3, length)
    np.testing.assert_allclose(model.encode_texts(TEXTS), direct(own.get_text_features(**ids)), atol=1e-6)
    assert model.name == str(folder)
    assert len(model.fingerprint) == 64
    assert run_on(model) == {"device": "cpu", "dtype": "float32"}


def test_a_family_has_a_digest_of_its_preprocessing(checkpoint):
    folder, _ = checkpoint
    model = load_model(folder, "cpu")
    before = configuration_digest(model)
    model.encode_texts(TEXTS)
    model.encode_images([draw(90, 60, 1)])
    assert before == configuration_digest(model) == configuration_digest(load_model(folder, "cpu"))
    assert len(before) == 64
    assert configuration_digest(pair()) is None


def test_only_models_of_many_sizes_take_a_patch_budget(checkpoint):
    folder, family = checkpoint
    model = load_model(folder, "cpu")
    changes = not np.allclose(model.encode_images([draw(160, 90, 3)]), model.encode_images([draw(160, 90, 3)], 16))
    assert changes == (family == "Siglip2")
    assert ("max_num_patches" in model.ignored_settings) != changes
    assert {"walk_type", "lower_case"} <= set(model.ignored_settings)


def test_models_of_many_sizes_give_each_image_its_own_budget_as_fg_clip_2_does(checkpoint):
    folder, family = checkpoint
    images = [draw(160, 90, 1), draw(400, 300, 2), draw(170, 100, 3), draw(240, 250, 4)]
    model = load_model(folder, "cpu")
    model.batch_size = 3
    own = [128, 576, 128, 256]
    assert [patch_budget(image.height, image.width) for image in images] == own
    if family != "Siglip2":
        own = [None] * 4
    expected = [model.encode_images([image], budget)[0] for image, budget in zip(images, own, strict=True)]
    np.testing.assert_allclose(model.encode_images(images, "auto"), expected, atol=1e-6)


def test_texts_that_are_cut_off_are_counted(checkpoint):
    folder, family = checkpoint
    length = {"ChineseCLIP": 52, "CLIP": 77, "MetaClip2": 77}.get(family, 64)
    cut = int(family != "Siglip2")  # whose own tokenizer makes one unknown token of all that these few words don't have
    assert text_use(load_model(folder, "cpu"), TEXTS, "long_caption") == {"count": 3, "tokens": length, "cut": cut}
    assert text_use(pair(), TEXTS, "caption") is None
    embedded = FGClip2Embedder.from_pretrained(device="cpu")
    tokenizer = embedded.processor.tokenizer
    for role, tokens in (("caption", 64), ("region_phrase", 64), ("long_caption", 196)):
        ids = tokenizer(TEXTS, truncation=False, padding=False)["input_ids"]
        cut = sum(len(each) > tokens for each in ids)
        assert text_use(embedded, TEXTS, role) == {"count": 3, "tokens": tokens, "cut": cut}
    assert text_use(embedded, ["一只黑猫" * 200, "a cat " * 300], "long_caption")["cut"] == 2


def test_a_model_without_features_is_refused(tmp_path):
    config = transformers.BertConfig(**TOWER, vocab_size=12)
    transformers.BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a BertModel, which has no image and text features"):
        load_model(tmp_path, "cpu")


def mean_color(images: list[Image.Image], max_num_patches) -> np.ndarray:
    return np.stack([np.asarray(image).reshape(-1, 3).mean(0) for image in images])


def pair() -> PairEmbedder:
    return PairEmbedder(
        mean_color, lambda texts: [[len(text), 1.0, 0.0] for text in texts], "mean colour", batch_size=2
    )


def test_two_functions_are_a_model(tmp_path):
    images = [draw(20, 30, seed) for seed in range(5)]
    vectors = pair().encode_images(images)
    expected = mean_color(images, None)
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-5)
    assert pair().encode_texts(["猫", "a cat", "dog"]).shape == (3, 3)
    assert pair().encode_texts(["猫"])[0, 0] == pytest.approx(0.5**0.5)
    (tmp_path / "坏.png").write_bytes(b"no image")
    mixed = [images[0], tmp_path / "坏.png", images[2]]
    kept, skipped = pair().encode_images(mixed, on_error="skip")
    np.testing.assert_allclose(kept, vectors[[0, 2]])
    assert [type(each) for each in skipped] == [Skipped]
    assert skipped[0].index == 1
    assert "坏.png" in skipped[0].reason
    with pytest.raises(UnreadableImageError, match=r"images\[1\].*坏\.png"):
        pair().encode_images(mixed)


def test_the_untrained_control_has_other_weights_and_the_same_sizes():
    trained, control = FGClip2Embedder.from_pretrained(device="cpu"), load_model(UNTRAINED, "cpu")
    assert control.name == UNTRAINED
    assert control.fingerprint != trained.fingerprint
    assert control.fingerprint == load_model(UNTRAINED, "cpu").fingerprint
    assert control.encode_texts(["一只猫", "a cat"]).shape == trained.encode_texts(["一只猫", "a cat"]).shape


def test_pickled_weights_are_refused(checkpoint, tmp_path):
    """The weights of other families too, whatever they hold."""
    folder, _ = checkpoint
    for file in Path(folder).iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    model = transformers.AutoModel.from_pretrained(folder)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"has no weights in safetensors, and others \(pytorch_model.bin\) are pickles"):
        load_model(tmp_path, "cpu")


def test_the_fingerprint_of_another_family_sees_its_preprocessing_and_vocabulary(checkpoint, tmp_path):
    folder, _ = checkpoint
    before = load_model(folder, "cpu").fingerprint
    assert before == load_model(folder, "cpu").fingerprint
    for file in ("processor_config.json", "tokenizer.json"):
        changed = tmp_path / file
        shutil.copytree(folder, changed)
        name = file if (changed / file).exists() else "preprocessor_config.json"
        content = json.loads((changed / name).read_text(encoding="utf-8"))
        if file == "tokenizer.json":
            vocabulary = content["model"]["vocab"]
            vocabulary["cat"], vocabulary["dog"] = vocabulary["dog"], vocabulary["cat"]
        else:
            content.get("image_processor", content)["image_mean"] = [0.1, 0.2, 0.3]
        (changed / name).write_text(json.dumps(content), encoding="utf-8")
        assert load_model(changed, "cpu").fingerprint != before, file
