import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fgclip2.drawings.phrases import COLOURS, Description, expression, similar_colours
from fgclip2.drawings.scenes import (
    CANVASES,
    NEGATIVE_KINDS,
    Region,
    Scene,
    SceneBuilder,
    attribute_negatives,
    balanced,
    long_caption,
    scene_record,
    write_scenes,
)

SCENES = 60
DIGEST = "da2791809784452203d4f81a5b01c439915614fd3bfe56851b3bfcf68bf1f8ea"  # of the records of these scenes


@pytest.fixture(scope="module")
def builder(table, drawings, photographs) -> SceneBuilder:
    ids, rgba = drawings
    train = np.isin(ids, table.train_ids)
    return SceneBuilder(table, {"noto": (ids[train], rgba[train])}, photographs)


@pytest.fixture(scope="module")
def scenes(builder):
    return [builder.build(np.random.default_rng([0, number])) for number in range(SCENES)]


def test_too_few_things_for_scenes(table, drawings, photographs):
    ids, rgba = drawings
    with pytest.raises(ValueError, match="`cutouts` must have drawings of at least 15 things, got 8"):
        SceneBuilder(table, {"noto": (ids[:9], rgba[:9])}, photographs)


def each_region(scenes):
    return [(scene, region) for scene in scenes for region in scene.regions]


def test_the_same_state_gives_the_same_scene(builder, scenes):
    again = builder.build(np.random.default_rng([0, 3]))
    assert again.regions == scenes[3].regions
    assert (np.asarray(again.image) == np.asarray(scenes[3].image)).all()


def test_scenes_vary(scenes):
    assert {scene.image.size for scene in scenes} == set(CANVASES)
    assert {len(scene.regions) for scene in scenes} >= {2, 3, 4}
    photographs = sum(scene.background_colour is None for scene in scenes)
    assert 0.4 < photographs / len(scenes) < 0.9


def test_canvases_are_whole_patches_and_few():
    assert all(width % 16 == 0 and height % 16 == 0 and width * height <= 100 * 256 for width, height in CANVASES)


def test_boxes_are_inside_and_apart(scenes):
    for scene in scenes:
        occupied = np.zeros(scene.image.size[::-1], dtype=int)
        for region in scene.regions:
            x1, y1, x2, y2 = region.box
            assert 0 <= x1 < x2 <= scene.image.width
            assert 0 <= y1 < y2 <= scene.image.height
            occupied[y1:y2, x1:x2] += 1
        assert occupied.max() == 1


def test_boxes_are_exact(scenes):
    """On a plain background every pixel that differs lies in a box, and each box is touched on all four sides."""
    plain = [scene for scene in scenes if scene.background_colour is not None]
    assert len(plain) >= 10
    for scene in plain:
        pixels = np.asarray(scene.image).astype(int)
        background = background_of(scene, pixels)
        foreground = np.abs(pixels - background).max(axis=-1) > 10
        outside = foreground.copy()
        for region in scene.regions:
            x1, y1, x2, y2 = region.box
            outside[y1:y2, x1:x2] = False
            inside = foreground[y1:y2, x1:x2]
            assert all(side.any() for side in (inside[:2], inside[-2:], inside[:, :2], inside[:, -2:]))
        assert not outside.any()


def background_of(scene, pixels: np.ndarray) -> np.ndarray:
    free = np.ones(pixels.shape[:2], dtype=bool)
    for region in scene.regions:
        x1, y1, x2, y2 = region.box
        free[y1:y2, x1:x2] = False
    colours = np.unique(pixels[free], axis=0)
    assert len(colours) == 1
    return colours[0]


def test_no_plate_has_the_colour_of_the_background(scenes):
    for scene, region in each_region(scenes):
        assert scene.background_colour is None or region.truth.colour != scene.background_colour


def test_positions_and_relations_hold(scenes):
    for scene, region in each_region(scenes):
        x1, y1, x2, y2 = region.box
        row, column = region.truth.position
        assert row <= 3 * (y1 + y2) / 2 / scene.image.height <= row + 1
        assert column <= 3 * (x1 + x2) / 2 / scene.image.width <= column + 1
        relation, index = region.relation
        other = scene.regions[index].box
        assert region.box != other
        assert {
            "left": x2 <= other[0],
            "right": x1 >= other[2],
            "above": y2 <= other[1],
            "below": y1 >= other[3],
        }[relation]


def test_objects_of_a_scene_can_be_told_apart(table, scenes):
    for scene in scenes:
        ids = [region.truth.concept_id for region in scene.regions]
        assert len(set(ids)) == len(ids)
        assert not table.near_synonyms[np.ix_(ids, ids)].any()


def test_siblings_often_share_a_scene(table, scenes):
    shared = sum(
        table[first.truth.concept_id].subgroup == table[second.truth.concept_id].subgroup
        for scene in scenes
        for first, second in zip(scene.regions, scene.regions[1:], strict=False)
    )
    assert shared >= 0.3 * sum(len(scene.regions) - 1 for scene in scenes)


def test_expressions_say_only_what_holds(scenes):
    for _, region in each_region(scenes):
        said, truth = region.said, region.truth
        assert said.concept_id == truth.concept_id
        assert (said.colour, said.shape) == (truth.colour, truth.shape)
        assert said.size == (None if truth.size == "medium" else truth.size)
        assert said.position in (None, truth.position)


def test_negatives_are_ten_and_each_false_in_one_thing(table, scenes):
    field_of = {"object": "concept_id", "swap": "concept_id", "color": "colour", "bind-color": "colour"}
    for scene, region in each_region(scenes):
        assert len(region.negatives) == 10
        others = [other for other in scene.regions if other is not region]
        worn = {other.truth.colour for other in others}
        present = {other.truth.concept_id for other in others}
        for kind, negative in region.negatives:
            field = field_of.get(kind, kind)
            value = getattr(negative, field)
            assert value != getattr(region.truth, field)
            assert replace(negative, **{field: getattr(region.said, field)}) == region.said
            if kind in ("object", "swap"):
                assert not table.near_synonyms[value, region.truth.concept_id]
                assert (value in present) == (kind == "swap")
            if kind in ("color", "bind-color"):
                assert value not in similar_colours(region.truth.colour)
                assert (value in worn) == (kind == "bind-color")
            if kind == "position":
                assert value == tuple(2 - part for part in region.truth.position)
    assert {kind for _, region in each_region(scenes) for kind, _ in region.negatives} == set(NEGATIVE_KINDS)


def test_negative_texts_differ_in_both_languages(table, scenes):
    for _, region in each_region(scenes):
        for language in ("en", "zh"):
            texts = [expression(said, table, language) for said in [region.said, *(n for _, n in region.negatives)]]
            assert len(set(texts)) == 11


def test_a_similar_colour_of_another_plate_is_no_negative():
    said = Description(1, colour="cyan", shape="round")
    negatives = attribute_negatives(said, [Description(2, colour="blue", shape="round")], np.random.default_rng(0))
    assert negatives["bind-color"] == []
    assert not {"cyan", "blue", "green"} & {negative.colour for negative in negatives["color"]}


def test_small_objects_are_as_many_as_large_ones(builder):
    """Large ones must not be dropped where they don't fit, else "small" would be the likelier word."""
    sizes = [
        region.truth.size
        for number in range(150)
        for region in builder.build(np.random.default_rng([7, number])).regions
    ]
    small, large = sizes.count("small"), sizes.count("large")
    assert abs(small - large) < 3 * np.sqrt(small + large)


def test_at_most_two_objects_of_a_scene_are_small_or_large(scenes):
    sizes = [[region.truth.size for region in scene.regions] for scene in scenes]
    assert max(max(of_scene.count("small"), of_scene.count("large")) for of_scene in sizes) == 2


def test_balanced_rows_sum_to_one_and_keep_zeros():
    affinity = np.ones((6, 6)) - np.eye(6)
    affinity[0, 1] = affinity[1, 0] = 9
    affinity[2, 3] = affinity[3, 2] = 0
    shares = balanced(affinity)
    np.testing.assert_allclose(shares, shares.T)
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=1e-5)
    assert ((shares == 0) == (affinity == 0)).all()


def test_object_negatives_are_balanced_mostly_kin_and_no_look_alikes(table, builder):
    shares = builder._negative_shares()
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=0.01)
    row = {table[concept_id].name_en: index for index, concept_id in enumerate(table.train_ids)}
    assert shares[row["dog"], row["guide dog"]] == 0
    assert shares[row["axe"], row["hammer"]] == 0  # no word shows it
    assert shares[row["axe"], row["key"]] > shares[row["axe"], row["bread"]]


def test_attribute_negatives_vary_only_what_is_said(table):
    rng = np.random.default_rng(0)
    bare = attribute_negatives(Description(1, position=(1, 1)), [Description(3, "small", "red", "round")], rng)
    assert {kind for kind, found in bare.items() if found} == {"swap"}
    said = Description(1, "small", "red", "round", (0, 2))
    others = [Description(3, "medium", "blue", "square"), Description(4, "large", "red", "round")]
    negatives = attribute_negatives(said, others, rng)
    assert [negative.concept_id for negative in negatives["swap"]] == [3, 4]
    assert [negative.colour for negative in negatives["bind-color"]] == ["blue"]
    assert {negative.colour for negative in negatives["color"]} == set(COLOURS) - {"red", "orange", "brown", "blue"}
    assert [negative.shape for negative in negatives["shape"]] == ["square"]
    assert [negative.size for negative in negatives["size"]] == ["large"]
    assert [negative.position for negative in negatives["position"]] == [(2, 0)]


def test_no_text_names_a_held_out_concept(table, scenes):
    held_out = [table[concept_id] for concept_id in np.flatnonzero(table.is_held_out)]
    texts = json.dumps([scene_record(s, table, lang, "") for s in scenes for lang in ("en", "zh")], ensure_ascii=False)
    assert not any(concept.name_en in texts or concept.name_zh in texts for concept in held_out)
    assert "hammer" in texts
    assert "锤子" in texts


@pytest.mark.parametrize("language", ["en", "zh"])
def test_records_are_as_in_finehard(table, scenes, language):
    for scene in scenes[:10]:
        record = scene_record(scene, table, language, "images/x.webp")
        assert record["f_path"] == "images/x.webp"
        assert record.get("is_cn", False) == (language == "zh")
        names = [table[region.truth.concept_id].name(language) for region in scene.regions]
        assert all(name in record["caption"] and name in record["short_caption"] for name in names)
        for entry, region, name in zip(record["bbox_info"], scene.regions, names, strict=True):
            width, height = scene.image.size
            np.testing.assert_allclose(np.multiply(entry["bbox"], [width, height, width, height]), region.box)
            assert entry["category"] == name
            assert name in entry["short_expr"]
            assert len(entry["long_expr"]) > len(entry["short_expr"])
            assert entry["flag_short_neg"] == 1
            assert list(entry["short_expr_negs"]) == list(entry["neg_kinds"]) == [str(n) for n in range(10)]


def test_written_scenes_are_numbered_and_in_both_languages(tmp_path, builder):
    write_scenes(tmp_path, builder, count=3, seed=1)
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["00000.webp", "00001.webp", "00002.webp"]
    english, chinese = (json.loads((tmp_path / f"scenes_{lang}.json").read_text("utf-8")) for lang in ("en", "zh"))
    assert [row["f_path"] for row in english] == [row["f_path"] for row in chinese]
    assert [len(row["bbox_info"]) for row in english] == [len(row["bbox_info"]) for row in chinese]


def test_the_largest_is_named_only_where_it_clearly_leads(table):
    def caption(second_box):
        axe, egg = (Description(table.names_en.index(name), "medium", position=(1, 1)) for name in ("axe", "egg"))
        regions = (
            Region((70, 70, 130, 130), axe, axe, (), ("right", 1)),
            Region(second_box, egg, egg, (), ("left", 0)),
        )
        return long_caption(Scene(Image.new("RGB", (160, 160)), None, regions), table, "en")

    assert caption((0, 0, 40, 50)).endswith("Nothing is larger than the axe.")
    assert "larger" not in caption((0, 0, 60, 55))  # nearly as large
    assert "larger" not in caption((0, 0, 66, 20))  # less in area, but longer


def test_scenes_are_those_of_the_stored_results(table, scenes):
    """The results in docs/bundled_benchmark are of the scenes that this code makes: a change of one makes them void."""
    records = [scene_record(scene, table, language, "") for scene in scenes for language in ("en", "zh")]
    digest = hashlib.sha256(json.dumps(records, ensure_ascii=False).encode()).hexdigest()
    assert digest == DIGEST
