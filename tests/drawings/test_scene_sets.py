import json

import numpy as np
import pytest
from PIL import Image

from fgclip2.drawings import scene_sets
from fgclip2.drawings.scene_sets import (
    build_scene_set,
    load_scene_set,
    scene_builder,
)


@pytest.fixture(scope="module")
def scene_set(cache, table):
    return build_scene_set(cache, table, "validation", count=4, seed=3)


def test_a_set_is_a_finehard_folder_in_both_languages(scene_set):
    assert sorted(path.name for path in scene_set.folder.iterdir()) == ["images", "scenes_en.json", "scenes_zh.json"]
    assert len(scene_set) == len(scene_set.records["zh"]) == 4
    for index, (english, chinese) in enumerate(zip(scene_set.records["en"], scene_set.records["zh"], strict=True)):
        assert chinese["is_cn"]
        assert english["f_path"] == chinese["f_path"]
        assert [r["bbox"] for r in english["bbox_info"]] == [r["bbox"] for r in chinese["bbox_info"]]
        assert scene_set.image(index).mode == "RGB"


def test_boxes_are_whole_pixels_of_the_scene(cache, table, scene_set):
    builder = scene_builder(cache, table, "validation")
    scenes = [builder.build(np.random.default_rng([3, number])) for number in range(4)]
    for index, scene in enumerate(scenes):
        assert [tuple(box) for box in scene_set.boxes(index)] == [region.box for region in scene.regions]
        assert scene_set.image(index).size == scene.image.size


def test_a_set_is_read_where_it_was_made(cache, table, scene_set, monkeypatch):
    monkeypatch.setattr(scene_sets, "write_scenes", lambda *args: pytest.fail("made anew"))
    assert build_scene_set(cache, table, "validation", count=4, seed=3).records == scene_set.records
    assert load_scene_set(scene_set.folder).records == scene_set.records


def test_a_set_of_other_code_is_made_anew(cache, table, scene_set, monkeypatch):
    monkeypatch.setattr(scene_sets, "_SOURCES", ("scenes.py",))
    again = build_scene_set(cache, table, "validation", count=4, seed=3)
    assert again.folder != scene_set.folder
    assert again.records == scene_set.records


def test_an_interrupted_set_leaves_nothing(cache, table, monkeypatch):
    def fail(folder, *args):
        (folder / "images").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(scene_sets, "write_scenes", fail)
    before = sorted((cache / "scenes").iterdir()) if (cache / "scenes").exists() else []
    with pytest.raises(KeyboardInterrupt):
        build_scene_set(cache, table, "validation", count=5, seed=9)
    assert sorted((cache / "scenes").iterdir()) == before


def test_a_scene_depends_on_its_number_alone(cache, table):
    more = build_scene_set(cache, table, "train", count=3, seed=0)
    assert more.records["en"][:2] == build_scene_set(cache, table, "train", count=2, seed=0).records["en"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_main_splits_name_no_held_out_concept(cache, table, split):
    scene_set = build_scene_set(cache, table, split, count=6, seed=0)
    texts = json.dumps(list(scene_set.records.values()), ensure_ascii=False)
    assert not any(word in texts for word in ("koala", "考拉", "magnet", "磁铁"))


def test_held_out_concepts_need_enough_of_them(cache, table):
    with pytest.raises(ValueError, match="`cutouts` must have drawings of at least 15 things, got 2"):
        scene_builder(cache, table, "test-held-out-concepts")


def test_held_out_concepts_make_their_own_scenes(cache, table, monkeypatch):
    monkeypatch.setattr(scene_sets, "_EVALUATION_SPLITS", {"few": ("twemoji", "test", True)})
    monkeypatch.setattr("fgclip2.drawings.scenes.MIN_THINGS", 2)
    ids = scene_builder(cache, table, "few")._ids
    assert [table[i].name_en for i in ids] == ["koala", "magnet"]


def test_artists_and_photographs_of_the_splits_are_apart():
    from fgclip2.drawings.splits import ARTIST_SPLITS

    for split, (artist, photographs, _) in scene_sets._EVALUATION_SPLITS.items():
        assert ARTIST_SPLITS[artist] == photographs == split.split("-")[0]


@pytest.mark.parametrize(
    ("split", "count", "message"),
    [
        ("style", 1, "split must be 'train', 'validation', 'test' or 'test-held-out-concepts', got 'style'"),
        ("train", 0, "count must be a positive integer, got 0"),
    ],
)
def test_what_there_is_not(cache, table, split, count, message):
    with pytest.raises(ValueError, match=message):
        build_scene_set(cache, table, split, count, seed=0)


def test_pictures_are_webp(scene_set):
    with Image.open(scene_set.folder / "images" / "00000.webp") as image:
        assert image.format == "WEBP"
