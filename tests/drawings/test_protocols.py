import numpy as np
import pytest
from PIL import Image

from fgclip2.drawings.protocols import PROTOCOLS, build_protocol_set, paste, random_square


def build(cache, table, protocol, **options):
    return build_protocol_set(cache, table, "twemoji", protocol, canvas=64, **options)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_picture_of_each_thing(cache, table, protocol):
    pictures = build(cache, table, protocol)
    assert pictures.concept_ids.tolist() == table.thing_ids.tolist()  # held-out ones too, no smile
    assert pictures.pixels.shape == (len(table.thing_ids), 64, 64, 3)
    assert (pictures.pixels == build(cache, table, protocol).pixels).all()


def test_another_seed_moves_the_drawings(cache, table):
    assert (build(cache, table, "placed").pixels != build(cache, table, "placed", seed=1).pixels).any()


def test_clean_drawings_fill_a_white_canvas(cache, table, drawings):
    pictures = build(cache, table, "clean")
    first = pictures.concept_ids[0]
    whole = Image.fromarray(drawings[1][first]).resize((64, 64), Image.Resampling.LANCZOS)
    expected = Image.new("RGB", (64, 64), "white")
    expected.paste(whole, mask=whole)
    assert (pictures.pixels[0] == np.asarray(expected)).all()


def test_photo_has_the_same_place_as_placed(cache, table):
    placed, photo = build(cache, table, "placed").pixels, build(cache, table, "photo").pixels
    colours = np.array([(13 * concept_id, 99, 201) for concept_id in table.thing_ids])[:, None, None]  # as drawn
    in_placed, in_photo = (np.abs(pixels - colours).max(axis=-1) <= 2 for pixels in (placed, photo))
    assert in_placed.any(axis=(1, 2)).all()
    assert (in_placed & ~in_photo).sum() < 0.03 * in_placed.sum()  # smooth edges differ
    assert (in_photo & ~in_placed).sum() < 0.05 * in_placed.sum()  # and the photograph may have the colour
    assert (photo == 255).all(axis=-1).mean() < 0.01  # no white left


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


def test_unknown_protocol(cache, table):
    with pytest.raises(ValueError, match="no protocol 'hard'; there are clean, placed, photo"):
        build(cache, table, "hard")
