"""The embedder and search with FG-CLIP v1: squares of one size, texts of 77 or 248 tokens, a softmax over labels."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from fgclip2 import Embedder
from fgclip2.embedding.windows import best_windows
from fgclip2.errors import IncompatibleIndexError
from fgclip2.modeling.interface import DualEncoder, DualEncoderProcessor, RegionEncoder
from fgclip2.search import ImageIndex
from tests.checkpoints import official_fgclip_folder
from tests.embedding.test_embedder import draw

__all__ = ["official_fgclip_folder"]

LONG = "a cat and a dog, 一只猫和一只狗, " * 3  # a token for nearly each byte
BOXES = [[10, 20, 60, 50], [0, 0, 100, 70]]


@pytest.fixture(scope="module")
def embedder(official_fgclip_folder) -> Embedder:
    return Embedder.from_pretrained(official_fgclip_folder, device="cpu")


@pytest.fixture
def images() -> list[Image.Image]:
    return [draw(100, 70, 1), draw(30, 90, 2), draw(40, 40, 3)]


def unit(features: torch.Tensor) -> np.ndarray:
    return F.normalize(features, dim=-1).detach().numpy()


def test_the_family_meets_the_protocols(embedder):
    assert isinstance(embedder.model, DualEncoder)
    assert isinstance(embedder.model, RegionEncoder)
    assert isinstance(embedder.processor, DualEncoderProcessor)
    assert embedder.embedding_size == 20


def test_images_are_squares(embedder, images):
    inputs = embedder.processor(images=images)
    assert inputs["pixel_values"].shape == (3, 3, 40, 40)
    expected = unit(embedder.model.get_image_features(**inputs))
    np.testing.assert_allclose(embedder.encode_images(images), expected, atol=1e-6)
    np.testing.assert_allclose(embedder.encode_images(images, batch_size=1), expected, atol=1e-6)


def test_texts_of_more_than_77_tokens_take_the_head_of_long_ones(embedder, caplog):
    texts = ["a cat", LONG, "一只狗"]
    assert [count > 77 for count in embedder.processor.count_tokens(texts)] == [False, True, False]
    walks = ("short", "long", "short")
    expected = [
        unit(embedder.model.get_text_features(embedder.processor(text=[text], walk_type=walk).input_ids, None, walk))[0]
        for text, walk in zip(texts, walks, strict=True)
    ]
    np.testing.assert_allclose(embedder.encode_texts(texts), expected, atol=1e-5)
    as_long = embedder.encode_texts(texts, role="long_caption")
    np.testing.assert_allclose(as_long[1], expected[1], atol=1e-5)
    assert np.abs(as_long[0] - expected[0]).max() > 1e-3
    np.testing.assert_array_equal(embedder.encode_texts("猫", role="region_phrase"), embedder.encode_texts("猫"))
    assert not caplog.records
    embedder.encode_texts(LONG * 9)
    assert [record.getMessage() for record in caplog.records] == ["1 texts have more than 248 tokens and were cut"]


def test_labels_share_one(embedder, images):
    labels = ["cat", "狗", "a photo of a dog"]
    scores = embedder.classify(images, labels)
    cosines = embedder.encode_images(images) @ embedder.encode_texts(labels).T
    scale = embedder.model.logit_scale.exp().item()
    np.testing.assert_allclose(scores, torch.from_numpy(scale * cosines).softmax(-1), atol=1e-5)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-6)
    regions = embedder.classify_regions(images[0], BOXES, labels)
    cosines = embedder.encode_regions(images[0], BOXES) @ embedder.encode_texts(labels, role="region_phrase").T
    np.testing.assert_allclose(regions, torch.from_numpy(100 * cosines).softmax(-1), atol=1e-4)


def test_regions_are_those_of_the_model(embedder, images):
    inputs = embedder.processor(images=images[:1], boxes=[BOXES])
    expected = unit(embedder.model.get_image_region_features(**inputs)[0])
    several = embedder.encode_regions(images, [BOXES, [], [[1, 2, 30, 40]]])
    np.testing.assert_allclose(several[0], expected, atol=1e-5)
    assert [len(vectors) for vectors in several] == [2, 0, 1]


def test_heat_maps_have_the_grid_of_the_square(embedder, images):
    phrases = ["cat", "红色的伞"]
    dense = unit(embedder.model.get_image_dense_feature(**embedder.processor(images=images)))  # (3, 25, 20)
    expected = dense @ embedder.encode_texts(phrases, role="region_phrase").T
    grids = np.stack(embedder.heatmap(images, phrases, resize=False))
    assert grids.shape == (3, 2, 5, 5)
    np.testing.assert_allclose(grids.reshape(3, 2, 25).swapaxes(1, 2), expected, atol=1e-5)
    assert embedder.heatmap(images[1], "猫").shape == (90, 30)
    vectors = embedder.encode_texts(phrases, role="region_phrase")
    streamed = dict(embedder.stream_heatmaps(images, vectors))
    np.testing.assert_allclose(np.stack([streamed[index] for index in range(3)]), grids, atol=1e-6)


def test_phrases_are_found_in_windows_of_the_square(embedder, images):
    phrases = embedder.encode_texts(["一只猫", "a dog"], role="region_phrase")
    dense = embedder.model.get_image_dense_feature(**embedder.processor(images=images)).detach()
    expected = best_windows(dense.unflatten(1, (5, 5)), [torch.from_numpy(phrases)] * 3)
    vectors = embedder.encode_images(images)
    for index, (cosines, boxes, vector) in embedder.stream_windows(images, [phrases] * 3):
        np.testing.assert_allclose(vector, vectors[index], atol=1e-5)
        np.testing.assert_allclose(cosines, expected[index][0], atol=1e-5)
        np.testing.assert_allclose(boxes, expected[index][1] * (images[index].size * 2), atol=1e-3)
    assert {hit.index for hit in embedder.rerank("一只猫和一只狗", images)} == {0, 1, 2}


@pytest.mark.parametrize("method", ["encode_images", "heatmap"])
def test_patch_budgets_are_refused(embedder, images, method):
    arguments = (images[0],) if method == "encode_images" else (images[0], "猫")
    with pytest.raises(ValueError, match="has no patch budgets, its images have one size: leave out max_num_patches"):
        getattr(embedder, method)(*arguments, max_num_patches="auto")


def test_the_fingerprint_sees_where_texts_are_cut(embedder, official_fgclip_folder):
    """Ids are not padded, so those of short texts don't show it."""
    assert Embedder.from_pretrained(official_fgclip_folder, device="cpu").fingerprint == embedder.fingerprint
    found = {embedder.fingerprint}
    for name, value in (("short_length", 70), ("long_length", 200)):
        processor = copy.deepcopy(embedder.processor)
        setattr(processor.tokenizer, name, value)
        found.add(Embedder(embedder.model, processor).fingerprint)
    processor = copy.deepcopy(embedder.processor)
    processor.image_processor.resample = 2
    found.add(Embedder(embedder.model, processor).fingerprint)
    assert len(found) == 4


def test_a_folder_is_searched_in_both_languages(embedder, images, tmp_path, official_fgclip_folder):
    for name, image in zip(("猫", "dog", "树"), images, strict=True):
        image.save(tmp_path / f"{name}.png")
    index = ImageIndex.build(tmp_path, embedder)
    assert index.settings == {"max_num_patches": None, **embedder.describe_vectors()}
    assert index.settings["images"] == "square"
    order = np.argsort(-(embedder.encode_texts(["一只猫", LONG]) @ index.vectors.T), axis=1)
    for query, rows in zip(["一只猫", LONG], order, strict=True):
        assert [hit.path.name for hit in index.search(query, embedder)] == [index.files[row].path for row in rows]
    assert tmp_path / "dog.png" not in [hit.path for hit in index.search(image=tmp_path / "dog.png", embedder=embedder)]
    other = Embedder.from_pretrained(official_fgclip_folder, device="cpu")
    torch.nn.init.zeros_(other.model.text_filip_projection.weight)
    with pytest.raises(IncompatibleIndexError, match="was made by the model"):
        ImageIndex.build(tmp_path, Embedder(other.model, other.processor, name="changed"))
