import io

import numpy as np
import pytest
from PIL import Image

from fgclip2.drawings.backgrounds import (
    SHORT_SIDE,
    load_backgrounds,
    procedural_backgrounds,
    pyramid,
    random_crops,
    shrink_photograph,
)


def test_photographs_are_shrunk_to_one_short_side():
    stream = io.BytesIO()
    Image.new("RGB", (1000, 500), (10, 200, 30)).save(stream, format="png")
    pixels = shrink_photograph(stream.getvalue())
    assert pixels.shape == (SHORT_SIDE, 2 * SHORT_SIDE, 3)
    assert (pixels == (10, 200, 30)).all()


def test_pyramid_averages_boxes():
    photo = np.random.default_rng(0).integers(0, 256, size=(48, 50, 3), dtype=np.uint8)
    levels = pyramid(photo)
    assert [level.shape[:2] for level in levels] == [(48, 50), (24, 25), (16, 16), (12, 12), (8, 8)]
    assert (levels[0] == photo).all()
    np.testing.assert_allclose(levels[2][1, 2], photo[3:6, 6:9].mean(axis=(0, 1)), atol=0.51)


def test_crops_are_windows_of_the_photographs(photographs):
    rng = np.random.default_rng(1)
    full_size_only = [[photo] for photo in photographs]
    crops = random_crops(full_size_only, 20, 16, 24, rng)
    assert crops.shape == (20, 16, 24, 3)
    assert crops.dtype == np.uint8
    for crop in crops:
        assert any(contains(photo, window) for photo in photographs for window in (crop, crop[:, ::-1]))


def contains(photo: np.ndarray, window: np.ndarray) -> bool:
    height, width = window.shape[:2]
    starts = np.argwhere((photo[: -height + 1, : -width + 1] == window[0, 0]).all(axis=-1))
    return any((photo[y : y + height, x : x + width] == window).all() for y, x in starts)


def test_crops_are_no_larger_than_the_level(photographs):
    # At 200 pixels only the unshrunk level fits; asking for more than that level has is the caller's error.
    crops = random_crops([pyramid(photographs[0])], 5, 200, 200, np.random.default_rng(0))
    assert crops.shape == (5, 200, 200, 3)


def test_the_same_state_gives_the_same_backgrounds(photographs):
    first, second = (
        (random_crops([pyramid(photographs[0])], 4, 32, 32, rng), procedural_backgrounds(12, 32, 40, rng))
        for rng in (np.random.default_rng(5), np.random.default_rng(5))
    )
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()


def test_procedural_backgrounds_differ_in_kind():
    backgrounds = procedural_backgrounds(60, 32, 48, np.random.default_rng(0))
    assert backgrounds.shape == (60, 32, 48, 3)
    assert backgrounds.dtype == np.uint8
    spread = backgrounds.reshape(60, -1, 3).std(axis=1).max(axis=-1)
    assert (spread == 0).sum() >= 3  # plain
    assert (spread > 20).sum() >= 20  # anything but
    means = backgrounds.reshape(60, -1).mean(axis=1)
    assert means.std() > 20  # dark and bright


def test_splits_are_loaded_by_file(cache):
    assert [len(load_backgrounds(cache, split)) for split in ("train", "validation", "test")] == [7, 7, 13]
    assert len(load_backgrounds(cache, "test", permissive_only=True)) == 2
    with pytest.raises(ValueError, match="split must be 'train', 'validation' or 'test', got 'dev'"):
        load_backgrounds(cache, "dev")


def test_missing_cache_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m fgclip2\.drawings --cache"):
        load_backgrounds(tmp_path, "train")
