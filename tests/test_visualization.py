"""Heat map pictures: colours ordered from blue to red, sizes of the image."""

import numpy as np
import pytest
from PIL import Image

from fgclip2.visualization import colorize, overlay_heatmap


def test_colours_run_from_blue_to_red():
    colors = colorize(np.linspace(0, 1, 101)).astype(int)
    redness = colors[:, 0] - colors[:, 2]
    assert redness[0] < -50
    assert redness[-1] > 50
    assert (np.abs(np.diff(colors, axis=0)) <= 11).all()  # no jump between neighbours


def test_a_given_scale_makes_maps_comparable():
    low, high = np.zeros((2, 3)), np.ones((2, 3))
    np.testing.assert_array_equal(colorize(low), colorize(high))  # flat maps are all low
    np.testing.assert_array_equal(colorize(low, 0, 1), colorize(np.array([[0.0] * 3] * 2)))
    assert (colorize(high, 0, 1)[..., 0] > colorize(low, 0, 1)[..., 0]).all()
    np.testing.assert_array_equal(colorize(np.array([-5.0, 9.0]), 0, 1), colorize(np.array([0.0, 1.0]), 0, 1))


def test_overlay_has_the_size_of_the_image_and_the_colours_of_the_map():
    image = Image.new("RGB", (40, 20), (128, 128, 128))
    heat = np.array([[0.0, 1.0]])
    pixels = np.asarray(overlay_heatmap(image, heat, opacity=1)).astype(int)
    assert pixels.shape == (20, 40, 3)
    assert pixels[10, 0, 2] > pixels[10, 0, 0]
    assert pixels[10, 39, 0] > pixels[10, 39, 2]
    np.testing.assert_array_equal(np.asarray(overlay_heatmap(image, heat, opacity=0)), np.asarray(image))


@pytest.mark.parametrize(
    ("heat", "opacity", "message"),
    [
        (np.zeros(3), 0.5, r"shape \(3,\)"),
        (np.zeros((0, 4)), 0.5, r"shape \(0, 4\)"),
        (np.zeros((2, 2)), 1.5, "opacity=1.5"),
    ],
)
def test_wrong_arguments_are_named(heat, opacity, message):
    with pytest.raises(ValueError, match=message):
        overlay_heatmap(Image.new("RGB", (4, 4)), heat, opacity)
