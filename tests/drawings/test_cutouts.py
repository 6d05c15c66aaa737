import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from fgclip2.drawings.concepts import ConceptTable
from fgclip2.drawings.cutouts import (
    CUTOUT_SIZE,
    IconSet,
    alpha_box,
    load_cutouts,
    load_training_cutouts,
    match_icons,
    names_of_concepts,
    read_icon_set,
    rendered_drawings,
    write_cutouts,
)
from fgclip2.drawings.splits import artists

from .conftest import make_concept

LEFT_HALF = '<path fill="#f00" d="M0 0h8v16H0z"/>'


def icon_set(icons, aliases=(), names_by_key=()):
    bodies = {name: {"body": LEFT_HALF} for name in icons}
    return IconSet(bodies, dict(aliases), dict(names_by_key), (16, 16))


@pytest.fixture
def small_table() -> ConceptTable:
    return ConceptTable(
        (
            make_concept("cricket", "蟋蟀", key="1f997"),
            make_concept("cricket game", "板球", key="1f3cf"),
            make_concept("bear", "熊", key="1f43b"),
            make_concept("bird", "鸟", key="1f426"),
        )
    )


def matched(table, icons, **options):
    matches = match_icons(table, icons, names_of_concepts(table, []), **options)
    return [(table[concept_id].name_en, icon) for concept_id, icon in matches]


def test_icons_are_found_by_code_point(small_table):
    icons = icon_set(["anything", "else"], names_by_key={"1f43b": "anything", "1f600": "else"})
    assert matched(small_table, icons) == [("bear", "anything")]


def test_icons_are_found_by_current_and_unicode_names(small_table):
    # U+1F43B is BEAR FACE in Unicode, "bear" in CLDR.
    assert matched(small_table, icon_set(["bearface", "Bird"])) == [("bear", "bearface"), ("bird", "Bird")]


def test_icons_are_found_by_names_that_other_sets_use(small_table):
    other = icon_set(["teddy"], aliases={"grizzly": {"parent": "teddy"}}, names_by_key={"1f43b": "teddy"})
    names = names_of_concepts(small_table, [other])
    assert match_icons(small_table, icon_set(["grizzly"]), names) == [(2, "grizzly")]


def test_numbered_variants_are_all_taken(small_table):
    assert matched(small_table, icon_set(["bird-1", "bird-2"])) == [("bird", "bird-1"), ("bird", "bird-2")]


def test_an_alias_does_not_take_the_icon_of_another_concept(small_table):
    # In old sets "cricket" was another name of the game, for the insect had no emoji yet.
    icons = icon_set(["cricket-game"], aliases={"cricket": {"parent": "cricket-game"}})
    assert matched(small_table, icons) == [("cricket game", "cricket-game")]


def test_a_sets_own_names_go_first(small_table):
    icons = icon_set(["bird", "bear"])
    assert matched(small_table, icons, own_names={"bird": "bear"}) == [("bear", "bird")]


def test_rendering_keeps_shape_colour_and_transparency():
    pixels = np.asarray(icon_set(["half"]).render("half"))
    assert pixels.shape == (CUTOUT_SIZE, CUTOUT_SIZE, 4)
    assert (pixels[:, : CUTOUT_SIZE // 2] == (255, 0, 0, 255)).all()
    assert (pixels[:, CUTOUT_SIZE // 2 :, 3] == 0).all()


def test_a_mirrored_alias_is_mirrored():
    icons = icon_set(["left"], aliases={"right": {"parent": "left", "hFlip": True}, "same": {"parent": "left"}})
    left, right, same = (np.asarray(icons.render(name)) for name in ("left", "right", "same"))
    assert (right == left[:, ::-1]).all()
    assert (same == left).all()


def test_a_wide_icon_is_centred():
    wide = IconSet({"wide": {"body": '<path d="M0 0h32v16H0z"/>', "width": 32}}, {}, {}, (16, 16))
    assert alpha_box(np.asarray(wide.render("wide"))) == (0, 24, 96, 72)


def test_icon_packages_are_read(tmp_path):
    icons = {"icons": {"bear": {"body": LEFT_HALF}, "bad": {"body": ""}}, "width": 64, "height": 32}
    files = {"package/icons.json": icons, "package/chars.json": {"2764-fe0f": "bear", "0023": "bear"}}
    with tarfile.open(tmp_path / "set.tgz", "w:gz") as tar:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data := json.dumps(content).encode())
            tar.addfile(member, io.BytesIO(data))
    read = read_icon_set(tmp_path / "set.tgz", skip={"bad"})
    assert list(read.icons) == ["bear"]
    assert read.names_by_key == {"2764": "bear", "23": "bear"}
    assert read.size == (64, 32)


def test_pixel_renders_are_named_by_code_points(small_table):
    stream = io.BytesIO()
    Image.new("RGBA", (256, 256), (0, 255, 0, 255)).save(stream, format="webp", lossless=True)
    files = [("package/assets/1f43b.webp", stream.getvalue()), ("package/assets/1f600.webp", b"unused")]
    ((concept_id, image),) = rendered_drawings(small_table, files)
    assert small_table[concept_id].name_en == "bear"
    assert image.size == (CUTOUT_SIZE, CUTOUT_SIZE)
    assert image.getpixel((5, 5)) == (0, 255, 0, 255)


def test_cutouts_are_sorted_and_blank_ones_left_out(tmp_path):
    (tmp_path / "cutouts").mkdir()
    solid = {number: Image.new("RGBA", (96, 96), (number, 0, 0, 255)) for number in (1, 7)}
    drawings = [(7, solid[7]), (3, Image.new("RGBA", (96, 96))), (1, solid[1])]
    write_cutouts(tmp_path / "cutouts", "noto", drawings)
    ids, rgba = load_cutouts(tmp_path, "noto")
    assert ids.tolist() == [1, 7]
    assert rgba[:, 0, 0, 0].tolist() == [1, 7]
    assert isinstance(rgba, np.memmap)
    assert not rgba.flags.writeable
    assert sorted(path.name for path in (tmp_path / "cutouts").iterdir()) == ["noto.ids.npy", "noto.npy"]


def test_training_cutouts_are_by_training_artists_and_show_no_held_out_concept(cache, table):
    cutouts = load_training_cutouts(cache, table)
    assert list(cutouts) == artists("train")
    for ids, rgba in cutouts.values():
        assert ids.tolist() == table.train_ids.tolist()
        assert (rgba == load_cutouts(cache, "noto")[1][table.train_ids]).all()


def test_unknown_artist_and_missing_cache(tmp_path):
    with pytest.raises(ValueError, match=r"artist must be 'noto', .*'twemoji', got 'apple'"):
        load_cutouts(tmp_path, "apple")
    with pytest.raises(FileNotFoundError, match=r"python -m fgclip2\.drawings --cache"):
        load_cutouts(tmp_path, "noto")


def test_alpha_box():
    rgba = np.zeros((10, 12, 4), dtype=np.uint8)
    rgba[2:5, 3:9, 3] = 200
    rgba[7, 7, 3] = 30  # a faint shadow
    assert alpha_box(rgba) == (3, 2, 9, 5)
    assert alpha_box(rgba, threshold=20) == (3, 2, 9, 8)
    with pytest.raises(ValueError, match="no pixel has alpha above 250"):
        alpha_box(rgba, threshold=250)
