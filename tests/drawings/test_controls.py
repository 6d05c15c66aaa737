import numpy as np

from fgclip2.drawings.controls import PIXEL_SIDE, pixel_features, pixel_similarities, training_pictures


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


def test_training_pictures_are_those_of_training_artists_and_concepts(cache, table):
    pictures, ids = training_pictures(cache, table)
    assert pictures.shape == (len(ids), 64, 64, 3)
    assert set(ids) == set(table.train_ids)
    assert len(ids) == 8 * len(table.train_ids)
    assert (pictures[0, 0, 0] == 255).all()
