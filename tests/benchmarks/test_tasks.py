"""Each kind of benchmark on data whose numbers are known by hand: a model that sees colours and reads their names."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip2.benchmarks import classification, hard_negatives, matching, region_classification, retrieval
from fgclip2.benchmarks.catalogue import find_benchmark
from fgclip2.benchmarks.checking import check
from fgclip2.benchmarks.data_sets import (
    ClassificationData,
    HardNegativeData,
    MatchingData,
    RegionData,
    RetrievalData,
)
from fgclip2.benchmarks.encoding import Encoder
from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.models import PairEmbedder
from fgclip2.benchmarks.scores import accuracies, mean
from fgclip2.benchmarks.settings import (
    ClassificationSettings,
    HardNegativeSettings,
    MatchingSettings,
    RegionSettings,
    RetrievalSettings,
)

from ..data.samples import write_json

COLORS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "红": (255, 0, 0),
    "绿": (0, 255, 0),
    "蓝": (0, 0, 255),
    "黄": (255, 255, 0),
}


def mean_colors(images: list[Image.Image], max_num_patches) -> np.ndarray:
    return np.stack([np.asarray(image).reshape(-1, 3).mean(0) for image in images])


def named_colors(texts: list[str]) -> np.ndarray:
    """The colour that a text names last."""
    return np.array([COLORS[max(COLORS, key=text.rfind)] for text in texts], dtype=np.float64)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(PairEmbedder(mean_colors, named_colors, "colours"), show_progress_bar=False)


@pytest.fixture
def picture(tmp_path):
    """Make an image of one colour, or of a left and a right one."""

    def make(name: str, *colors: str) -> ImageFile:
        image = Image.new("RGB", (32, 16), COLORS[colors[0]])
        image.paste(COLORS[colors[-1]], (16, 0, 32, 16))
        image.save(tmp_path / name)
        return ImageFile(tmp_path / name)

    return make


@pytest.fixture
def broken(tmp_path) -> ImageFile:
    (tmp_path / "坏.png").write_bytes(b"broken")
    return ImageFile(tmp_path / "坏.png")


def values(scores) -> dict[str, float]:
    return {name: estimate.value for name, estimate in scores.metrics.items()}


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


def test_intervals_where_nothing_is_wrong(encoder, picture):
    """Not of no width, but for the rank in the middle."""
    images = [picture(f"{color}.png", color) for color in ("red", "green", "blue", "yellow")]
    data = RetrievalData(images, ["红", "绿", "blue", "yellow"], [(index, index) for index in range(4)])
    metrics = retrieval.evaluate(data, encoder, RetrievalSettings(), "zh").metrics
    for name in ("recall@1", "mean_recall"):
        assert metrics[f"image_to_text/{name}"].interval() == pytest.approx((0.025 ** (1 / 4), 1))
    for name in ("mean_rank", "median_rank"):
        assert metrics[f"text_to_image/{name}"].interval() == (1, 1)
    matched = MatchingData(images, ["红", "绿"], [(0, 0), (0, 1), (1, 1), (2, 0)], [True, False, True, False])
    metrics = matching.evaluate(matched, encoder, MatchingSettings(), "zh").metrics
    assert metrics["auc"].value == 1
    assert metrics["auc"].interval() is None
    assert metrics["accuracy"].interval() == pytest.approx((0.025 ** (1 / 3), 1))
    classes = ClassificationData(images, [0, 1, 2, 3], {"zh": ["红", "绿", "蓝", "黄"]})
    metrics = classification.evaluate(classes, encoder, ClassificationSettings(templates="none"), "zh").metrics
    assert metrics["top1"].interval() == pytest.approx((0.025 ** (1 / 4), 1))
    assert metrics["top1_macro"].value == 1
    assert metrics["top1_macro"].interval() is None


def test_a_share_whose_resamples_agree_has_no_interval():
    """Of one image, or where each query is right at 10 alone; of ranks it has one."""
    assert mean(np.array([True, False]), np.zeros(2, int)).interval() is None
    assert mean(np.full(30, 1 / 3), np.arange(30)).interval() is None
    assert mean(np.full(30, 2), np.arange(30)).interval() == (2, 2)


def test_the_interval_of_a_mean_over_classes_is_about_its_value():
    """A hundred boxes of one class are right; of half of fifty classes the only box is wrong."""
    ranks = np.array([1] * 100 + [1, 9] * 25)
    estimates = accuracies(ranks, np.array([0] * 100 + list(range(1, 51))), np.arange(150))
    assert estimates["top1_macro"].value == pytest.approx(26 / 51)
    low, high = estimates["top1_macro"].interval()
    assert low < 26 / 51 < high
    ranks[100:] = 9  # resamples differ in the number of classes alone
    estimates = accuracies(ranks, np.array([0] * 100 + list(range(1, 51))), np.arange(150))
    assert estimates["top1_macro"].value == pytest.approx(1 / 51)
    assert estimates["top1_macro"].interval() is None


def test_checking_says_of_an_image_what_a_run_says(encoder, picture, broken, tmp_path):
    """Which is not the address of a buffer."""
    picture("a.png", "red")
    content = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": broken.path.name}],
        "annotations": [{"image_id": each, "bbox": [0, 0, 9, 9], "category_id": 1} for each in (1, 2)],
        "categories": [{"id": 1, "name": "红"}],
    }
    write_json(tmp_path / "valid_category_data_total_zh.json", content)
    benchmark = find_benchmark("boxclass-cn")
    (problem,) = check(benchmark, tmp_path, opened=True).problems
    data = benchmark.read(tmp_path, None, benchmark.paper)
    settings = RegionSettings(method="crop", templates="none")
    assert region_classification.evaluate(data, encoder, settings, "zh").left_out == [problem]
    assert str(problem) == f"{broken}: 6 bytes of no known image format"


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


def test_nothing_readable_is_an_error(encoder, broken):
    with pytest.raises(
        ValueError, match=r"no image can be used; 1 can't be read: .*坏\.png: 6 bytes of no known image"
    ):
        retrieval.evaluate(RetrievalData([broken], ["红"], [(0, 0)]), encoder, RetrievalSettings(), "zh")
    regions = RegionData([broken], [[(0, 0, 1, 1)]], [[0]], {"zh": ["红"]})
    with pytest.raises(ValueError, match="no image can be used"):
        region_classification.evaluate(regions, encoder, RegionSettings(method="crop"), "zh")


LEFT, RIGHT = (0.0, 0.0, 16.0, 16.0), (16.0, 0.0, 32.0, 16.0)


@pytest.mark.parametrize(("language", "names"), [("en", ["red", "green", "blue"]), ("zh", ["红", "绿", "蓝"])])
def test_boxes_are_classified_by_what_is_in_them(encoder, picture, broken, language, names):
    images = [picture("a.png", "red", "green"), broken, picture("b.png", "blue")]
    # The second box of the first image is labelled wrongly: green, called blue.
    data = RegionData(images, [[LEFT, RIGHT], [LEFT], [RIGHT]], [[0, 2], [1], [2]], {language: names})
    settings = RegionSettings(method="crop", templates="none")
    scores = region_classification.evaluate(data, encoder, settings, language)
    assert scores.per_item["rank"].tolist() == [1, 3, 0, 1]
    got = values(scores)
    assert got["top1"] == pytest.approx(2 / 3)
    assert got["top5"] == 1
    assert got["top1_macro"] == pytest.approx((1 + 1 / 2) / 2)
    assert len(scores.left_out) == 1


def test_hard_negatives_and_both_rules_of_ties(encoder, picture):
    images = [picture("a.png", "red", "green"), picture("b.png", "blue")]
    texts = [[["红", "蓝", "绿"], ["green", "绿"]], [["yellow", "blue"]]]
    data = HardNegativeData(images, [[LEFT, RIGHT], [LEFT]], texts)
    for ties, won in (("wrong", [1, 0, 0]), ("right", [1, 1, 0])):
        scores = hard_negatives.evaluate(data, encoder, HardNegativeSettings(method="crop", ties=ties), "zh")
        assert scores.per_item["won"].tolist() == won
        assert values(scores) == {"hard_negative_accuracy": pytest.approx(sum(won) / 3)}


def test_matching(encoder, picture, broken):
    images = [picture("a.png", "red"), picture("b.png", "green"), broken]
    data = MatchingData(
        images, ["红", "绿", "yellow"], [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0)], [True, False, True, True, True]
    )
    scores = matching.evaluate(data, encoder, MatchingSettings(), "zh")
    np.testing.assert_allclose(scores.per_item["cosine"], [1, 0, 1, 0.5**0.5, np.nan], atol=1e-6)
    assert values(scores) == {"auc": 1, "accuracy": 1}
    swapped = dataclasses.replace(data, labels=[True, True, True, False, True])
    got = values(matching.evaluate(swapped, encoder, MatchingSettings(), "zh"))
    assert got["auc"] == pytest.approx(2 / 3)
    assert got["accuracy"] == pytest.approx(3 / 4)


def test_matching_of_pairs_that_are_all_alike_is_an_error(encoder, picture, broken):
    data = MatchingData([picture("a.png", "red"), broken], ["红", "green"], [(0, 0), (1, 1)], [True, False])
    with pytest.raises(ValueError, match=r"label is 1 in all 1 pairs left; allowed: .*1 images can't be read: .*坏"):
        matching.evaluate(data, encoder, MatchingSettings(), "zh")


def test_classes_in_templates(encoder, picture, broken):
    images = [picture("a.png", "red"), picture("b.png", "green"), broken, picture("c.png", "green")]
    names = {"en": ["red", "green"], "zh": ["红", "绿"]}
    data = ClassificationData(images, [0, 1, 0, 0], names)
    for language in names:
        for templates in ("none", "imagenet"):
            scores = classification.evaluate(data, encoder, ClassificationSettings(templates=templates), language)
            assert scores.per_item["rank"].tolist() == [1, 1, 0, 2]
            assert values(scores)["top1_macro"] == pytest.approx((1 / 2 + 1) / 2)


def test_images_after_the_last_whole_batch_do_not_count_if_so_set(encoder, picture):
    images = [picture(f"{index}.png", "red") for index in range(5)]
    data = ClassificationData(images, [0, 0, 0, 1, 1], {"en": ["red", "green"], "zh": ["红", "绿"]})
    settings = ClassificationSettings(templates="none", whole_batches_of=2)
    scores = classification.evaluate(data, encoder, settings, "zh")
    assert scores.per_item["rank"].tolist() == [1, 1, 1, 2, 0]
    assert scores.metrics["top1"].value == pytest.approx(3 / 4)


def test_fewer_images_than_a_whole_batch_are_an_error(encoder, picture):
    data = ClassificationData([picture("a.png", "red")], [0], {"en": ["red"]})
    with pytest.raises(ValueError, match="1 images are no whole batch; whole_batches_of=128"):
        classification.evaluate(data, encoder, ClassificationSettings(whole_batches_of=128), "en")


def test_matching_where_the_best_is_to_say_that_none_match(encoder, picture):
    images = [picture("a.png", "red"), picture("b.png", "yellow")]
    data = MatchingData(images, ["红", "黄", "blue"], [(0, 0), (0, 1), (1, 0), (1, 2)], [False, False, False, True])
    got = values(matching.evaluate(data, encoder, MatchingSettings(), "zh"))
    assert got["accuracy"] == pytest.approx(3 / 4)
    assert got["auc"] == 0


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
