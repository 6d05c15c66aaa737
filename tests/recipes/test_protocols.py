import numpy as np
import pytest
from PIL import Image

from recipes.embedded_checkpoint.protocols import PROTOCOLS, build_protocol_set


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


def test_unknown_protocol(cache, table):
    with pytest.raises(ValueError, match="protocol must be 'clean', 'placed' or 'photo', got 'hard'"):
        build(cache, table, "hard")
