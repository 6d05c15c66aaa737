"""Heat map pictures: colours ordered from blue to red, sizes of the image. Phrases: frames, numbers and fonts."""

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageColor

from fgclip2 import visualization
from fgclip2.visualization import PHRASE_COLORS, colorize, overlay_heatmap, overlay_phrases


class Found(NamedTuple):
    text: str
    box: tuple[float, float, float, float]
    cosine: float


@pytest.fixture(scope="module")
def chinese_font(tmp_path_factory) -> Path:
    """A font that has 猫, 红 and 色 as filled squares, and nothing else but a blank and the digits."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(100, isTTF=True)
    pen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen
    characters = " 猫红色.0123456789"
    names = {ord(character): f"u{ord(character):04X}" for character in characters}
    glyphs = {}
    for name, side in ((".notdef", 40), *((name, 0 if code == ord(" ") else 80) for code, name in names.items())):
        square = pen(None)
        if side:
            square.moveTo((5, 0))
            for corner in ((5, side), (5 + side, side), (5 + side, 0)):
                square.lineTo(corner)
            square.closePath()
        glyphs[name] = square.glyph()
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(names)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (100, 5)))
    builder.setupHorizontalHeader(ascent=90, descent=-10)
    builder.setupNameTable({"familyName": "Test", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=90, usWinAscent=90, usWinDescent=10)
    builder.setupPost()
    path = tmp_path_factory.mktemp("字体") / "wqy-microhei.ttc"
    builder.save(path)
    return path


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


def has_color(picture: Image.Image, color: str, box: tuple[int, int, int, int]) -> bool:
    pixels = np.asarray(picture.crop(box)).reshape(-1, 3)
    return bool((pixels == ImageColor.getrgb(color)).all(axis=1).any())


def test_each_phrase_has_a_frame_of_its_colour_at_its_box():
    image = Image.new("RGB", (600, 400), (128, 128, 128))
    phrases = [Found("a taxi", (100, 50, 200, 150), 0.3), Found("a dog", (400, 250, 500, 350), 0.2)]
    picture = overlay_phrases(image, phrases, legend=False)
    assert picture.size == image.size
    for phrase, color, other in zip(phrases, PHRASE_COLORS, reversed(PHRASE_COLORS[:2]), strict=False):
        x1, y1, x2, y2 = phrase.box
        for edge in ((x1, y1, x2, y1 + 2), (x1, y2 - 2, x2, y2), (x1, y1, x1 + 2, y2), (x2 - 2, y1, x2, y2)):
            assert has_color(picture, color, edge)
        assert not has_color(picture, other, (x1 - 5, y1 - 5, x2 + 5, y2 + 5))
        middle = ((x1 + x2) // 2, (y1 + y2) // 2)
        assert picture.getpixel(middle) == (128, 128, 128)
    np.testing.assert_array_equal(np.asarray(overlay_phrases(image, [])), np.asarray(image))


def test_phrases_with_one_window_are_both_seen():
    image = Image.new("RGB", (600, 400), (128, 128, 128))
    box = (100, 50, 300, 250)
    picture = overlay_phrases(image, [Found("a", box, 0.3), Found("b", box, 0.2)], legend=False)
    for color in PHRASE_COLORS[:2]:
        assert has_color(picture, color, (100, 240, 300, 250))


def test_small_images_are_enlarged_and_long_phrases_take_several_lines():
    image = Image.new("RGB", (120, 60), (128, 128, 128))
    short = overlay_phrases(image, [Found("a taxi", (10, 10, 50, 50), 0.3)])
    assert short.width == visualization.NARROWEST_PICTURE
    assert short.height > 240
    assert has_color(short, PHRASE_COLORS[0], (40, 40, 200, 44))
    assert has_color(short, PHRASE_COLORS[0], (0, 240, 60, short.height))
    long = overlay_phrases(image, [Found("a very long phrase about a taxi " * 4, (10, 10, 50, 50), 0.3)])
    assert long.height > short.height


def test_texts_that_no_font_has_are_numbers_and_a_warning(monkeypatch):
    monkeypatch.setattr(visualization, "_CHINESE_FONTS", {"there-is-no-such-font.ttc": 0})
    image = Image.new("RGB", (480, 100))
    box = (0, 0, 50, 50)
    with pytest.warns(UserWarning, match="no font was found that has '红色', so phrases with these are numbers only"):
        mixed = overlay_phrases(image, [Found("a dog", box, 0.3), Found("红色", box, 0.2)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = overlay_phrases(image, [Found("a dog", box, 0.3), Found("", box, 0.2)])
    np.testing.assert_array_equal(np.asarray(mixed), np.asarray(plain))


def test_an_installed_font_with_chinese_characters_is_found(chinese_font, monkeypatch):
    image, phrases = Image.new("RGB", (480, 100)), [Found("红色猫", (0, 0, 50, 50), 0.25)]
    asked = overlay_phrases(image, phrases, font=chinese_font)
    monkeypatch.setattr(visualization, "_CHINESE_FONTS", {"there-is-no-such-font.ttc": 0, str(chinese_font): 0})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = overlay_phrases(image, phrases)
    np.testing.assert_array_equal(np.asarray(asked), np.asarray(found))
    with pytest.raises(ValueError, match=r"wqy-microhei\.ttc' lacks 'adog': give one that has these characters"):
        overlay_phrases(image, [Found("a dog", (0, 0, 50, 50), 0.25)], font=chinese_font)


def test_what_can_not_be_drawn_is_named(tmp_path):
    image = Image.new("RGB", (480, 100))
    with pytest.raises(ValueError, match=r"phrases\[1\].box must be x1 < x2 and y1 < y2 in pixels, got \(5, 0, 5, 9\)"):
        overlay_phrases(image, [Found("猫", (0, 0, 5, 5), 0.1), Found("狗", (5, 0, 5, 9), 0.1)])
    (tmp_path / "字.ttf").write_bytes(b"no font")
    with pytest.raises(ValueError, match=r"字\.ttf' can't be read"):
        overlay_phrases(image, [Found("a", (0, 0, 5, 5), 0.1)], font=tmp_path / "字.ttf")
