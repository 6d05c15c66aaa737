"""Queries of several parts: their vectors, what they find in an index, and what can't be searched by."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fgclip2 import FGClip2Embedder
from fgclip2.assets import demo_images
from fgclip2.search import CombinedQuery, ImageIndex, Region
from fgclip2.search.queries import combine_vectors
from tests.checkpoints import official_folder, saved_folder

__all__ = ["official_folder", "saved_folder"]


@pytest.fixture(scope="module")
def embedder(saved_folder) -> FGClip2Embedder:
    return FGClip2Embedder.from_pretrained(saved_folder, device="cpu")


@pytest.fixture(scope="module")
def index(embedder, tmp_path_factory) -> ImageIndex:
    folder = tmp_path_factory.mktemp("图片")
    for seed, name in enumerate(["猫.png", "dog.png", "船.png", "car.png", "花.png"]):
        colors = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colors).resize((96, 64), Image.Resampling.BICUBIC).save(folder / name)
    return ImageIndex.build(folder, embedder)


def scores(index: ImageIndex, query, embedder=None) -> dict[str, float]:
    return {hit.path.name: hit.score for hit in index.search(query, embedder, top_k=len(index))}


# Vectors ------------------------------------------------------------------------------------------------------------


def test_a_sum_is_of_unit_vectors_whatever_their_lengths():
    found = combine_vectors(np.array([[10.0, 0], [0, 0.1]]), [3, 4])
    np.testing.assert_allclose(found, [0.6, 0.8], atol=1e-6)
    assert found.dtype == np.float32


def test_without_weights_it_is_the_direction_of_the_mean():
    vectors = np.random.default_rng(0).normal(size=(5, 8))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    mean = unit.mean(0)
    np.testing.assert_allclose(combine_vectors(vectors), mean / np.linalg.norm(mean), atol=1e-6)


@given(
    st.lists(st.floats(-5, 5), min_size=2, max_size=6).filter(lambda weights: max(map(abs, weights)) > 0.01),
    st.floats(1e-30, 1e30),
)
def test_only_ratios_of_weights_count(weights, factor):
    vectors = np.random.default_rng(1).normal(size=(len(weights), 16))
    found = combine_vectors(vectors, weights)
    np.testing.assert_allclose(found, combine_vectors(vectors, [weight * factor for weight in weights]), atol=1e-5)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


def test_parts_that_cancel_out_leave_nothing_to_search_by():
    with pytest.raises(ValueError, match="cancel each other out"):
        combine_vectors(np.array([[1.0, 2], [2, 4]]), [1, -1])


# On an index --------------------------------------------------------------------------------------------------------


def test_a_combined_query_scores_as_its_vectors_do(index, embedder):
    query = CombinedQuery(["一只猫", index.folder / "dog.png", "a cage", index.vectors[0]], weights=[1, 0.5, -0.25, 2])
    texts = embedder.encode_texts(["一只猫", "a cage"])
    image = embedder.encode_images([index.folder / "dog.png"], max_num_patches=index.settings["max_num_patches"])[0]
    total = texts[0] + 0.5 * image - 0.25 * texts[1] + 2 * index.vectors[0]
    expected = index.vectors @ (total / np.linalg.norm(total))
    found = scores(index, query, embedder)
    assert found.keys() == {file.path for file in index.files} - {"dog.png"}  # which is searched by
    for file, score in zip(index.files, expected, strict=True):
        assert file.path == "dog.png" or found[file.path] == pytest.approx(score, abs=1e-5)


def test_several_combined_queries_have_their_own_hits(index, embedder):
    queries = [CombinedQuery(["一只猫", "a cat"]), CombinedQuery([index.vectors[2], index.vectors[3]])]
    first, second = index.search(queries, embedder, top_k=2)
    alone = index.search(queries[0], embedder, top_k=2)
    assert [hit.id for hit in first] == [hit.id for hit in alone]
    # A product of two rows may round otherwise than one of a single row.
    assert [hit.score for hit in first] == pytest.approx([hit.score for hit in alone], abs=1e-6)
    assert {hit.path.name for hit in second} == {index.files[row].path for row in (2, 3)}
    assert [len(first), len(second)] == [2, 2]


def test_vectors_alone_need_no_embedder(index):
    assert index.search(CombinedQuery([index.vectors[1]]))[0].score == pytest.approx(1, abs=1e-5)


def test_a_negative_moves_its_images_down(index):
    plain = CombinedQuery([index.vectors[0] + index.vectors[1]])
    without = CombinedQuery([index.vectors[0] + index.vectors[1], index.vectors[1]], [1, -0.5])
    name = index.files[1].path
    assert scores(index, without)[name] < scores(index, plain)[name]


def test_a_region_is_searched_by_its_pixels_alone(index, embedder):
    image = Image.new("RGB", (200, 120), "white")
    image.paste(Image.open(index.folder / "船.png"), (50, 20))
    found = scores(index, Region(image, (50, 20, 146, 84)), embedder)
    assert max(found, key=found.get) == "船.png"
    assert found["船.png"] == pytest.approx(1, abs=1e-4)
    assert found == scores(index, image.crop((50, 20, 146, 84)), embedder)
    cut = Region(image, (49.6, 19.9, 300, 300))
    assert scores(index, cut, embedder) == scores(index, image.crop((49, 19, 200, 120)), embedder)


def test_the_image_of_a_region_is_left_out_of_its_hits(index, embedder):
    region = Region(index.folder / "猫.png", (0, 0, 40, 40))
    assert "猫.png" not in scores(index, region, embedder)
    assert "猫.png" not in scores(index, CombinedQuery(["一只狗", region]), embedder)


def test_captions_in_both_languages_find_the_bundled_tiger():
    embedder = FGClip2Embedder.from_pretrained(device="cpu")
    paths = sorted((demo_images() / "pictures").glob("t*-twemoji.webp"))
    vectors = embedder.encode_images(paths, show_progress_bar=False)
    names = embedder.encode_texts(["a tiger", "老虎"], show_progress_bar=False)
    best = paths[int(np.argmax(vectors @ combine_vectors(names)))]
    assert "tiger" in best.name


# Errors -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "weights", "message"),
    [
        ([], None, "parts must be a list of one query at least"),
        ("猫", None, "parts must be a list of one query at least, got '猫'"),
        (["猫", "狗"], [1], "there are 1 weights of 2 parts"),
        (["猫", "狗"], [1, float("nan")], r"weights\[1\] must be a finite number, got nan"),
        (["猫", "狗"], [0, 0], "all zero: give one above zero"),
        (["猫", "狗"], [-0.5, 0], r"none above zero: what hits should not be like.*'a photo' \('一张照片'\)"),
    ],
)
def test_combinations_that_say_nothing_are_refused(parts, weights, message):
    with pytest.raises(ValueError, match=message):
        CombinedQuery(parts, weights)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (CombinedQuery(["猫", ""]), "the query '' is empty"),
        (CombinedQuery(["猫", 3]), r"parts\[1\] is a int; allowed: str"),
        (CombinedQuery(["猫", CombinedQuery(["狗"])]), r"parts\[1\] is a CombinedQuery; allowed"),
        (CombinedQuery(["猫", np.zeros(3)]), r"must be \d+ finite values, got shape \(3,\)"),
        (CombinedQuery(["a cat", "a cat"], [1, -1]), "cancel each other out"),
        (CombinedQuery([Path()]), "is a folder: search by one image file"),
        (["猫", CombinedQuery(["狗"])], "the queries are CombinedQuery, str; allowed"),
        (Region(Path("没有.png"), (0, 0, 1, 1)), r"没有\.png: no such image file"),
        (Region(Image.new("RGB", (50, 40)), (60, 0, 70, 9)), r"region\.box.*lies outside its image of 50 x 40 pixels"),
        (Region(Image.new("RGB", (50, 40)), (9, 9, 5, 20)), r"region\.box.*is inverted"),
    ],
)
def test_parts_that_cannot_be_searched_by_are_named(index, embedder, query, message):
    with pytest.raises(ValueError, match=message):
        index.search(query, embedder)


def test_combined_queries_of_texts_are_not_reranked(index, embedder):
    with pytest.raises(ValueError, match="rerank='phrases' needs queries that are texts"):
        index.search(CombinedQuery(["猫"]), embedder, rerank="phrases")
    with pytest.raises(ValueError, match="need an embedder"):
        index.search(CombinedQuery(["猫"]))
