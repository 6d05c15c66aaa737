import numpy as np

from recipes.embedded_checkpoint.backgrounds import procedural_backgrounds


def test_the_same_state_gives_the_same_backgrounds():
    first, second = (procedural_backgrounds(12, 32, 40, np.random.default_rng(5)) for _ in range(2))
    assert (first == second).all()


def test_procedural_backgrounds_differ_in_kind():
    backgrounds = procedural_backgrounds(60, 32, 48, np.random.default_rng(0))
    assert backgrounds.shape == (60, 32, 48, 3)
    assert backgrounds.dtype == np.uint8
    spread = backgrounds.reshape(60, -1, 3).std(axis=1).max(axis=-1)
    assert (spread == 0).sum() >= 3  # plain
    assert (spread > 20).sum() >= 20  # anything but
    means = backgrounds.reshape(60, -1).mean(axis=1)
    assert means.std() > 20  # dark and bright
