import io

import numpy as np
import pytest
from PIL import Image

from fgclip2.drawings.backgrounds import (
    SHORT_SIDE,
    load_backgrounds,
    paste,
    pyramid,
    random_crops,
    random_square,
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


def test_the_same_state_gives_the_same_crops(photographs):
    first, second = (random_crops([pyramid(photographs[0])], 4, 32, 32, np.random.default_rng(5)) for _ in range(2))
    assert (first == second).all()


def test_squares_are_inside_and_of_all_allowed_sizes():
    rng = np.random.default_rng(0)
    squares = np.array([random_square(100, 80, rng) for _ in range(500)])
    sides = squares[:, 2] - squares[:, 0]
    assert (sides == squares[:, 3] - squares[:, 1]).all()
    assert (sides.min(), sides.max()) == (48, 76)  # 0.6 to 0.95 of 80
    assert squares[:, :2].min() == 0
    assert squares[:, 2].max() == 100
    assert squares[:, 3].max() == 80


def test_pasting_leaves_the_background_alone():
    background = Image.new("RGB", (20, 20), (0, 0, 255))
    image = paste(background, Image.new("RGBA", (96, 96), (255, 0, 0, 255)), (5, 6, 15, 12))
    pixels = np.asarray(image)
    assert (pixels[6:12, 5:15] == (255, 0, 0)).all()
    assert (pixels == (255, 0, 0)).all(axis=-1).sum() == 60
    assert background.getpixel((7, 7)) == (0, 0, 255)


def test_half_transparent_edges_mix_without_darkening():
    cutout = Image.new("RGBA", (96, 96), (0, 0, 0, 0))
    cutout.paste((255, 255, 255, 255), (0, 0, 48, 96))
    image = paste(Image.new("RGB", (33, 33), "white"), cutout, (0, 0, 33, 33))
    assert (np.asarray(image) == 255).all()  # white on white stays white, whatever hides behind transparency


def test_splits_are_loaded_by_file(cache):
    assert [len(load_backgrounds(cache, split)) for split in ("train", "validation", "test")] == [7, 7, 13]
    assert len(load_backgrounds(cache, "test", permissive_only=True)) == 2
    with pytest.raises(ValueError, match="split must be 'train', 'validation' or 'test', got 'dev'"):
        load_backgrounds(cache, "dev")


def test_missing_cache_names_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m fgclip2\.drawings --cache"):
        load_backgrounds(tmp_path, "train")
