"""FG-CLIP, the first version, without torch: squares of one size, texts of any length."""

import numpy as np
import pytest
from PIL import Image

from fgclip2 import Embedder, FGClipModel, FGClipProcessor
from fgclip2.hub import export_onnx
from fgclip2_onnx import OnnxEmbedder


@pytest.mark.slow
def test_the_first_version_gives_what_torch_gives(converted_fgclip_folder, tmp_path):
    model = FGClipModel.from_pretrained(converted_fgclip_folder)
    processor = FGClipProcessor.from_pretrained(converted_fgclip_folder)
    by_torch = Embedder(model, processor)
    by_onnx = OnnxEmbedder.from_pretrained(export_onnx(model, processor, tmp_path / "图", compared_items=0))
    beside = Embedder.from_pretrained(tmp_path / "图", backend="onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    images, boxes = [Image.fromarray(pixels), Image.fromarray(pixels[:50, :30])], [[[5, 5, 60, 40.5]], []]
    texts = ["A black CAT", "一只黑猫", "two dogs and a red bowl " * 30, ""]
    for embedder in (by_onnx, beside):
        assert embedder.fingerprint == by_torch.fingerprint
        assert embedder.describe_vectors() == {"backend": "onnx", "precision": "fp32", "images": "square"}
        for role in ("auto", "region_phrase"):
            expected = by_torch.encode_texts(texts, role=role)
            np.testing.assert_allclose(embedder.encode_texts(texts, role=role), expected, atol=2e-6)
        np.testing.assert_allclose(embedder.encode_images(images), by_torch.encode_images(images), atol=2e-6)
        for ours, expected in (
            *zip(embedder.encode_regions(images, boxes), by_torch.encode_regions(images, boxes), strict=True),
            *zip(embedder.heatmap(images, texts[:2]), by_torch.heatmap(images, texts[:2]), strict=True),
        ):
            np.testing.assert_allclose(ours, expected, atol=2e-6)
        with pytest.raises(ValueError, match=r"FG-CLIP.* has no patch budgets"):
            embedder.encode_images(images, 256)
    for role in processor.text_roles:
        ids = by_onnx.processor.tokenize(texts, role)["input_ids"]
        assert np.array_equal(ids, processor.tokenize(texts, role)["input_ids"])
    assert by_onnx.processor.count_tokens(texts) == processor.count_tokens(texts)
    prepared = by_onnx.processor.prepare_image(images[0])["pixel_values"]
    assert np.array_equal(prepared, processor.prepare_image(images[0])["pixel_values"])
