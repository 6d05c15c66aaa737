"""The embedder and search with R2D2: images and captions; regions, dense features and long captions are lacking."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fgclip2 import Embedder, FGClip2Embedder
from fgclip2.search import ImageIndex
from tests.checkpoints import load, official_r2d2_folder

__all__ = ["official_r2d2_folder"]

TEXTS = ["红猫", "一只黑狗在草地上跑" * 5, "a red dog"]


@pytest.fixture(scope="module")
def embedder(official_r2d2_folder) -> Embedder:
    return Embedder.from_pretrained(official_r2d2_folder, device="cpu")


@torch.no_grad()
def test_vectors_are_those_of_the_model(embedder, official_r2d2_folder, photo):
    model, processor = load(official_r2d2_folder)
    outputs = model(**processor(text=TEXTS, images=[photo]))
    np.testing.assert_allclose(embedder.encode_images([photo]), outputs.image_embeds.numpy(), atol=2e-6)
    np.testing.assert_allclose(embedder.encode_texts(TEXTS), outputs.text_embeds.numpy(), atol=2e-6)
    assert embedder.encode_texts(TEXTS, role="caption").shape == (3, 20)
    assert repr(embedder).endswith("R2D2, D=20, cpu, float32)")
    shares = embedder.classify(photo, ["红", "黑"], templates="{}")
    expected = F.softmax(model(**processor(text=["红", "黑"], images=[photo])).logits_per_image, -1)[0]
    np.testing.assert_allclose(shares, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e, image: e.encode_regions(image, [[0, 0, 5, 5]]), "R2D2 has no regions"),
        (lambda e, image: e.heatmap(image, "红"), "R2D2 has no dense features"),
        (lambda e, image: e.encode_texts("红", role="long_caption"), "role must be 'auto' or 'caption'"),
        (lambda e, image: e.encode_images(image, 256), "R2D2 has no patch budgets"),
    ],
)
def test_what_is_lacking_is_said(embedder, photo, call, message):
    with pytest.raises(ValueError, match=message):
        call(embedder, photo)


def test_not_one_of_another_family(official_r2d2_folder):
    with pytest.raises(ValueError, match=r"is a R2D2 checkpoint .*FGClip2Embedder can't run: use Embedder"):
        FGClip2Embedder.from_pretrained(official_r2d2_folder)


def test_search(embedder, photo, tmp_path):
    for name, image in (("first", photo), ("second", photo.rotate(180))):
        image.save(tmp_path / f"{name}.png")
    index = ImageIndex.build(tmp_path, embedder)
    hits = index.search("红猫", embedder, top_k=2)
    vectors = embedder.encode_images([tmp_path / "first.png", tmp_path / "second.png"])
    best = ["first", "second"][int((vectors @ embedder.encode_texts("红猫")).argmax())]
    assert hits[0].path.stem == best
