"""Retrieval, with numbers known by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip2.benchmarks.encoding import Encoder
from fgclip2.benchmarks.models import PairEmbedder
from fgclip2.benchmarks.tasks import RetrievalData, RetrievalSettings, retrieval

from .colors import mean_colors, values


def test_retrieval_with_several_captions_and_several_images(encoder, picture):
    images = [picture("红.png", "红"), picture("green.png", "green"), picture("red2.png", "red")]
    # The last caption is of both red images; "blue" is wrong for the green one.
    captions = ["一片红", "green", "something blue", "red"]
    data = RetrievalData(images, captions, [(0, 0), (1, 1), (1, 2), (2, 3), (0, 3)])
    scores = retrieval.evaluate(data, encoder, RetrievalSettings(), "zh")
    # Image 2's caption ties with "一片红", which is not its own. All others rank first.
    assert scores.per_item["image_to_text/rank"].tolist() == [1, 1, 2]
    # "一片红" ties with image 2; "something blue" is as far from all three.
    assert scores.per_item["text_to_image/rank"].tolist() == [2, 1, 3, 1]
    got = values(scores)
    assert got["image_to_text/recall@1"] == pytest.approx(2 / 3)
    assert got["text_to_image/recall@1"] == pytest.approx(1 / 2)
    assert got["text_to_image/recall@5"] == 1
    assert got["text_to_image/mean_rank"] == pytest.approx(7 / 4)
    assert got["text_to_image/median_rank"] == pytest.approx(1.5)
    assert got["image_to_text/mean_recall"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    low, high = scores.metrics["text_to_image/recall@1"].interval()
    assert 0 <= low < 0.5 < high <= 1


def test_images_with_equal_captions_are_not_to_be_told_apart_by_them(encoder, picture):
    """As search queries and captions of COCO are; by captions each has its own image to find."""
    images = [picture("a.png", "red"), picture("b.png", "red", "yellow"), picture("c.png", "green")]
    data = RetrievalData(images, ["red", " Red", "green", "blue"], [(0, 0), (1, 1), (2, 2), (1, 3)])
    scores = retrieval.evaluate(data, encoder, RetrievalSettings(), "en")
    assert scores.per_item["image_to_text/rank"].tolist() == [1, 1, 1]
    assert scores.per_item["text_to_image/rank"].tolist()[:3] == [1, 2, 1]


def test_retrieval_leaves_unreadable_images_out_with_their_captions(encoder, picture, broken):
    images = [picture("a.png", "red"), broken, picture("b.png", "blue"), picture("c.png", "green")]
    captions = ["红", "黄", "blue", "蓝", "a green thing of no image"]
    # 黄 is of the broken image alone; 蓝 is of the broken one and of b; c has no caption.
    data = RetrievalData(images, captions, [(0, 0), (1, 1), (2, 2), (1, 3), (2, 3)])
    scores = retrieval.evaluate(data, encoder, RetrievalSettings(), "zh")
    assert scores.per_item["image_to_text/rank"].tolist() == [1, 0, 1, 0]
    assert scores.per_item["text_to_image/rank"].tolist() == [1, 0, 1, 1, 0]
    assert scores.metrics["image_to_text/recall@1"].count == 2
    assert scores.metrics["text_to_image/recall@1"].count == 3
    assert [problem.source for problem in scores.left_out] == [str(broken)]


def test_numbers_are_the_same_within_a_training_runs_autocast(encoder, picture):
    """Of which the model is part, the comparison of its embeddings is not."""
    colors = np.random.default_rng(0).integers(1, 255, (300, 3))
    many = PairEmbedder(mean_colors, lambda texts: np.array([colors[int(text)] for text in texts]), "many")
    images = []
    for index, color in enumerate(colors):
        image = picture(f"{index}.png", "red")
        Image.new("RGB", (2, 2), tuple(map(int, color))).save(image.path)
        images.append(image)
    data = RetrievalData(images, [str(index) for index in range(300)], [(index, index) for index in range(300)])
    plain = Encoder(many, show_progress_bar=False)
    expected = retrieval.evaluate(data, plain, RetrievalSettings(), "en").per_item["image_to_text/rank"]
    with torch.autocast("cpu", torch.bfloat16):
        got = retrieval.evaluate(data, plain, RetrievalSettings(), "en").per_item["image_to_text/rank"]
    np.testing.assert_array_equal(got, expected)
    assert got.min() == 1


@pytest.mark.parametrize(("equal_captions", "ranks"), [("one", [1, 1, 2]), ("separate", [2, 1, 3])])
def test_equal_captions_are_one_candidate_or_stay_separate(encoder, picture, equal_captions, ranks):
    """As the official scripts have it that take several captions an image: separate, the later of equal ones first."""
    images = [picture("a.png", "red"), picture("b.png", "red"), picture("黄.png", "yellow")]
    captions = ["红", "blue", "红", "blue", "green", "green"]
    data = RetrievalData(images, captions, [(number // 2, number) for number in range(6)])
    scores = retrieval.evaluate(data, encoder, RetrievalSettings(equal_captions=equal_captions), "zh")
    # Separate: of the two 红 the second comes first, so the first image has rank 2. To yellow 红 is as near as green,
    # so its own captions tie with one wrong candidate or with two.
    assert scores.per_item["image_to_text/rank"].tolist() == ranks
    # As queries captions are separate either way: 红 finds two red images, green the yellow one alone.
    assert scores.per_item["text_to_image/rank"].tolist()[::2] == [2, 2, 1]


@pytest.mark.parametrize(("lower_case", "ranks"), [(True, [1, 1]), (False, [2, 2])])
def test_captions_that_differ_in_case_are_equal_only_where_texts_are_lower_cased(encoder, picture, lower_case, ranks):
    data = RetrievalData(
        [picture("a.png", "red"), picture("b.png", "红")], ["iPhone 红", "IPHONE 红"], [(0, 0), (1, 1)]
    )
    scores = retrieval.evaluate(data, encoder, RetrievalSettings(lower_case=lower_case), "zh")
    assert scores.per_item["image_to_text/rank"].tolist() == ranks
