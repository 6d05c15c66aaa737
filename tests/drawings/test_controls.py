from itertools import islice

import numpy as np
import pytest

from fgclip2.drawings.controls import (
    PIXEL_SIDE,
    constant_image_scores,
    fit_text_scorer,
    pixel_features,
    pixel_similarities,
    text_features,
    text_scores,
    training_pictures,
)
from fgclip2.drawings.phrases import expression
from fgclip2.drawings.scene_sets import generate_scenes, scene_builder


def pictures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(count, 42, 42, 3), dtype=np.uint8)


def test_features_are_box_means():
    images = pictures(2, 0)
    features = pixel_features(images)
    expected = images.reshape(2, PIXEL_SIDE, 2, PIXEL_SIDE, 2, 3).mean(axis=(2, 4)) / 255
    assert features.shape == (2, PIXEL_SIDE * PIXEL_SIDE * 3)
    np.testing.assert_allclose(features, expected.reshape(2, -1), atol=1.01 / 255)  # rounded twice


def test_each_concept_scores_by_its_nearest_reference():
    queries, references = pictures(3, 1), pictures(6, 2)
    reference_ids = np.array([7, 7, 8, 9, 9, 9])
    scores = pixel_similarities(queries, references, reference_ids, np.array([9, 7, 8]))
    query, reference = pixel_features(queries), pixel_features(references)
    for row in range(3):
        for column, concept_id in enumerate((9, 7, 8)):
            distances = [((query[row] - reference[k]) ** 2).sum() for k in np.flatnonzero(reference_ids == concept_id)]
            np.testing.assert_allclose(scores[row, column], -min(distances), rtol=1e-4, atol=1e-3)


def test_a_picture_is_nearest_to_itself():
    references = pictures(5, 3)
    scores = pixel_similarities(references, references, np.arange(5), np.arange(5))
    assert scores.argmax(axis=1).tolist() == [0, 1, 2, 3, 4]


def test_a_concept_without_reference_is_never_chosen():
    references = pictures(2, 4)
    scores = pixel_similarities(references, references, np.array([0, 1]), np.array([0, 1, 2]))
    assert np.isneginf(scores[:, 2]).all()


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


def test_training_pictures_are_those_of_training_artists_and_concepts(cache, table):
    pictures, ids = training_pictures(cache, table)
    assert pictures.shape == (len(ids), 64, 64, 3)
    assert set(ids) == set(table.train_ids)
    assert len(ids) == 8 * len(table.train_ids)
    assert (pictures[0, 0, 0] == 255).all()


def test_hard_negatives_of_scenes_give_nothing_away(cache, table):
    """Pairwise over all kinds, in the tiny world of these tests, by a classifier of texts alone."""
    scenes = list(islice(generate_scenes(scene_builder(cache, table, "train"), seed=0), 400))
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
