import numpy as np
import pytest

from fgclip2.drawings.phrases import expression
from fgclip2.drawings.scene_sets import scene_builder
from recipes.scenes.controls import constant_image_scores, fit_text_scorer, text_features, text_scores


def test_text_features():
    assert text_features("A cat", "en") == ["^", "a", "cat", "$", "^ a", "a cat", "cat $"]
    assert text_features("猫", "zh") == ["^", "猫", "$", "^ 猫", "猫 $", "^ 猫 $"]


def groups_of(true_words: list[str], false_words: list[str], count: int, seed: int) -> list[list[str]]:
    """A true text and three false ones, of words drawn at random."""
    rng = np.random.default_rng(seed)
    draw = lambda words: f"the {words[rng.integers(len(words))]}"  # noqa: E731
    return [[draw(true_words), *(draw(false_words) for _ in range(3))] for _ in range(count)]


@pytest.mark.parametrize(
    ("language", "words"), [("en", ["cat", "dog", "cow", "hen"]), ("zh", ["猫", "狗", "牛", "鸡"])]
)
def test_the_text_scorer_finds_what_gives_a_text_away_and_nothing_else(language, words):
    def share_won(true_words, false_words):
        weights = fit_text_scorer(groups_of(true_words, false_words, 800, 0), language)
        scores = text_scores(weights, groups_of(true_words, false_words, 800, 1), language)
        wins = np.where(scores[:, :1] == scores[:, 1:], 0.5, scores[:, :1] > scores[:, 1:])
        return wins.mean()

    assert share_won(words[:2], words[2:]) == 1
    assert share_won(words, words) == pytest.approx(0.5, abs=0.05)


def test_unknown_features_count_nothing():
    assert text_scores({"cat": 2.0}, [["a cat", "a dog"]], "en").tolist() == [[2.0, 0.0]]


def test_a_constant_image_is_the_mean_region():
    texts = np.array([[[1.0, 0.0], [0.0, 1.0]]])
    np.testing.assert_allclose(
        constant_image_scores(texts, np.array([[1.0, 0.0], [0.6, 0.8]])), [[0.8944272, 0.4472136]]
    )


def test_hard_negatives_of_scenes_give_nothing_away(cache, table):
    """Pairwise over all kinds, in the tiny world of these tests, by a classifier of texts alone."""
    builder = scene_builder(cache, table, "train")
    scenes = [builder.build(np.random.default_rng([0, number])) for number in range(200)]
    for language in ("en", "zh"):
        groups = [
            [expression(said, table, language) for said in (region.said, *(n for _, n in region.negatives))]
            for scene in scenes
            for region in scene.regions
        ]
        middle = len(groups) // 2
        scores = text_scores(fit_text_scorer(groups[:middle], language), groups[middle:], language)
        assert (scores[:, :1] > scores[:, 1:]).mean() == pytest.approx(0.5, abs=0.05)
        assert (scores[:, :1] > scores[:, 1:]).all(axis=1).mean() < 0.12
