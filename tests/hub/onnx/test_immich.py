"""Folders for immich: the steps of its machine-learning service, followed on our files, give our vectors.

Immich is no Python package that tests could install. So its steps are written out here, in its order, with its types.
"""

import json

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from fgclip2 import Embedder
from fgclip2.hub import export_immich

pytest.importorskip("onnx", reason='needs the extra: pip install "fgclip2[onnx]"')
onnxruntime = pytest.importorskip("onnxruntime", reason='needs the extra: pip install "fgclip2[onnx]"')

pytestmark = pytest.mark.slow

TEXTS = ["A black CAT  on a chair.", "一只黑猫坐在椅子上。\n", "Two words", "很长的描述，" * 60]


@pytest.fixture(scope="module")
def folder(model, processor, tmp_path_factory):
    return export_immich(model, processor, tmp_path_factory.mktemp("immich") / "模型")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def textual_of_immich(folder, text: str) -> np.ndarray:
    """Embed a text as immich does."""
    length = read(folder / "config.json")["text_cfg"]["context_length"]
    # Of this file immich reads the padding token only.
    pad_token = read(folder / "textual" / "tokenizer_config.json")["pad_token"]
    tokenizer = Tokenizer.from_file(str(folder / "textual" / "tokenizer.json"))
    # Every text is padded, and cut, to the length of the model.
    tokenizer.enable_padding(length=length, pad_token=pad_token, pad_id=tokenizer.token_to_id(pad_token))
    tokenizer.enable_truncation(max_length=length)
    # White space becomes single blanks. Upper case stays: lower-casing is up to tokenizer.json.
    text = " ".join(text.split())
    tokens = {"text": np.array([tokenizer.encode(text).ids], np.int32)}
    # One text at a time; the first row of the first output is the vector, as it is.
    return onnxruntime.InferenceSession(folder / "textual" / "model.onnx").run(None, tokens)[0][0]


def visual_of_immich(folder, image: Image.Image) -> np.ndarray:
    """Embed a picture as immich does."""
    settings = read(folder / "visual" / "preprocess_cfg.json")
    side = settings["size"][0]
    # "squash" is a plain resize; without this setting immich would cut a square out of the middle.
    assert settings["resize_mode"] == "squash"
    image = image.convert("RGB").resize((side, side), Image.Resampling[settings["interpolation"].upper()])
    pixels = np.asarray(image, np.float32) / 255.0
    mean, std = (np.array(settings[name], np.float32) for name in ("mean", "std"))
    pixels = pixels * (1.0 / std) - mean / std  # (S, S, 3)
    inputs = {"image": pixels.transpose(2, 0, 1)[None]}  # (1, 3, S, S)
    return onnxruntime.InferenceSession(folder / "visual" / "model.onnx").run(None, inputs)[0][0]


def test_texts_have_our_vectors(folder, model, processor):
    expected = Embedder(model, processor).encode_texts([" ".join(text.split()) for text in TEXTS], role="caption")
    actual = [textual_of_immich(folder, text) for text in TEXTS]
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_pictures_have_the_vectors_of_their_squares(folder, model, processor, photo):
    embedder = Embedder(model, processor)
    square = photo.resize((96, 96), Image.Resampling.BILINEAR)  # whose 36 patches are the budget of this processor
    np.testing.assert_allclose(visual_of_immich(folder, photo), embedder.encode_images(square), rtol=0, atol=1e-5)
    assert np.abs(visual_of_immich(folder, photo) - embedder.encode_images(photo)).max() > 1e-3  # another vector


def test_weights_lie_beside_the_graphs(folder):
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "config.json",
        "textual/model.data",
        "textual/model.onnx",
        "textual/tokenizer.json",
        "textual/tokenizer_config.json",
        "visual/model.data",
        "visual/model.onnx",
        "visual/preprocess_cfg.json",
    }
