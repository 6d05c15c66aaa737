"""Random crops, flips and colours: what they leave of an image, and which captions forbid a flip."""

import numpy as np
import pytest
from PIL import Image

from fgclip2.training.augmentation import AREAS, OPERATIONS, RATIOS, apply_operation, augment, draw_crop


@pytest.fixture
def sides() -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (60, 60), "blue")
    image.paste("red", (0, 0, 30, 60))
    return image


def share_mirrored(image: Image.Image, caption: str, mirrors_sides: bool) -> float:
    mirrored = 0
    for seed in range(60):
        pixels = np.asarray(augment(image, caption, 16, np.random.default_rng(seed), mirrors_sides), dtype=int)
        blue_minus_red = pixels[..., 2] - pixels[..., 0]  # of (16, 16, 3)
        # A crop of nearly one colour, equalized, may have none left: it counts as not mirrored.
        mirrored += blue_minus_red[5:11, :5].mean() > 50 + blue_minus_red[5:11, -5:].mean()
    return mirrored / 60


@pytest.mark.parametrize(
    "caption", ["左边一只狗", "狗在猫右边", "a dog on the Left", "to the right of it", "狗在left侧"]
)
def test_no_flip_under_a_caption_of_left_or_right(sides, caption):
    assert share_mirrored(sides, caption, mirrors_sides=False) == 0
    assert 0.3 < share_mirrored(sides, caption, mirrors_sides=True) < 0.7


@pytest.mark.parametrize("caption", ["一只狗", "bright leftovers"])
def test_other_captions_allow_it(sides, caption):
    assert 0.3 < share_mirrored(sides, caption, mirrors_sides=False) < 0.7


def test_the_result_follows_from_the_generator(sides):
    first, again, other = (augment(sides, "狗", 16, np.random.default_rng(seed), False).tobytes() for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(("width", "height"), [(100, 80), (1, 1), (3, 400)])
def test_crops_are_inside_and_as_large_as_they_may_be(width, height):
    rng = np.random.default_rng(0)
    for _ in range(50):
        left, top, right, bottom = draw_crop(width, height, rng)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        if (width, height) == (100, 80):
            wide, high = right - left, bottom - top
            assert AREAS[0] - 0.02 <= wide * high / (width * height) <= AREAS[1]
            assert RATIOS[0] - 0.03 <= wide / high <= RATIOS[1] + 0.03


def test_operations_by_hand():
    image = Image.new("RGB", (20, 20))
    image.paste("white", (10, 10, 11, 11))
    for operation in OPERATIONS:
        assert apply_operation(image, operation, 1).size == (20, 20)
    for operation in ("identity", "brightness", "sharpness", "auto contrast"):  # of strength 5: nothing
        assert apply_operation(image, operation, 1).tobytes() == image.tobytes(), operation
    moved = np.asarray(apply_operation(image, "translate x", 1))
    assert moved[10, 5].tolist() == [255, 255, 255]  # five pixels to the left
    assert moved[10, 19].tolist() == [128, 128, 128]
    assert np.asarray(apply_operation(image, "translate y", -1))[15, 10].tolist() == [255, 255, 255]
    turned = np.asarray(apply_operation(Image.new("RGB", (21, 21), "white"), "rotate", 1))
    assert turned[0, 0].tolist() == [128, 128, 128]
    assert turned[10, 10].tolist() == [255, 255, 255]
    sheared = np.asarray(apply_operation(image, "shear x", 1))
    assert sheared[10, 8].max() > 100  # 0.15 of ten rows, to the left
