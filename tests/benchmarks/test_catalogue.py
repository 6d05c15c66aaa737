"""Settings: checked, changed from the command line, and never a head that does not fit."""

import json
from inspect import signature

import pytest
from PIL import Image

from fgclip2.benchmarks.catalogue import BENCHMARKS, COMMON_DIFFERENCES, PRESETS, find_benchmark
from fgclip2.benchmarks.class_names import class_names
from fgclip2.benchmarks.tasks import (
    ClassificationSettings,
    HardNegativeSettings,
    RegionSettings,
    RetrievalSettings,
    as_dict,
    change,
)


def test_values_come_as_text():
    settings = change(RegionSettings(), {"max_num_patches": "256", "crowds": "false", "templates": "none"})
    assert settings == RegionSettings(max_num_patches=256, crowds=False, templates="none")
    assert change(RetrievalSettings(), {"max_num_patches": "auto"}) == RetrievalSettings()


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (
            RetrievalSettings(),
            {"walk": "long"},
            "no setting 'walk'; choose one of max_num_patches, walk_type",
        ),
        (RetrievalSettings(), {"walk_type": "box"}, "walk_type must be 'short' or 'long', got 'box'"),
        (
            RetrievalSettings(),
            {"max_num_patches": "many"},
            "max_num_patches must be 'auto' or a positive integer, got 'many'",
        ),
        (RegionSettings(), {"method": "pool"}, "method must be 'roi' or 'crop', got 'pool'"),
        (RegionSettings(), {"walk_type": "short"}, "no setting 'walk_type'"),
        (RegionSettings(), {"crowds": "yes"}, "crowds must be 'true' or 'false', got 'yes'"),
        (ClassificationSettings(), {"whole_batches_of": "0"}, "whole_batches_of must be a positive integer, got 0"),
        (
            ClassificationSettings(),
            {"whole_batches_of": "many"},
            "whole_batches_of must be a positive integer, got 'many'",
        ),
        (HardNegativeSettings(), {"ties": "half"}, "ties must be 'wrong' or 'right', got 'half'"),
    ],
)
def test_mistakes_name_what_is_allowed(settings, changes, message):
    with pytest.raises(ValueError, match=message):
        change(settings, changes)


def test_regions_meet_the_box_head_and_crops_the_short_one():
    assert as_dict(RegionSettings())["walk_type"] == "box"
    assert as_dict(RegionSettings(method="crop"))["walk_type"] == "short"
    assert as_dict(HardNegativeSettings())["walk_type"] == "box"


def test_every_difference_of_the_presets_is_explained():
    for benchmark in BENCHMARKS.values():
        for preset in PRESETS:
            if benchmark.settings(preset) != benchmark.settings("paper"):
                assert benchmark.differences, benchmark.name
    assert COMMON_DIFFERENCES
    with pytest.raises(ValueError, match="preset must be 'paper', 'released', 'fg-clip-v1' or 'r2d2', got 'best'"):
        find_benchmark("lit-cn").settings("best")
    with pytest.raises(ValueError, match="no benchmark 'lit'; choose one of lit-cn"):
        find_benchmark("lit")


def test_cocos_names_must_be_those_of_the_file(tmp_path):
    """Chinese names are put beside them by their order."""
    names = list(class_names("coco", "en"))
    categories = [{"id": index, "name": name} for index, name in enumerate(names, start=1)]
    image = {"id": 1, "file_name": "1.png", "width": 16, "height": 16}
    content = {"categories": categories, "images": [image]}
    content["annotations"] = [{"id": 1, "image_id": 1, "bbox": [0, 0, 9, 9], "category_id": 2}]
    Image.new("RGB", (16, 16)).save(tmp_path / "1.png")
    benchmark = find_benchmark("coco-boxes")
    (tmp_path / "instances_val2017.json").write_text(json.dumps(content))
    data = benchmark.read(tmp_path, None, benchmark.paper)
    assert data.names["zh"][data.categories[0][0]] == "自行车"
    categories[0]["name"], categories[1]["name"] = names[1], names[0]
    (tmp_path / "instances_val2017.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="category 1 of 80 is 'bicycle'; COCO's is 'person'"):
        benchmark.read(tmp_path, None, benchmark.paper)


@pytest.mark.parametrize(
    ("names", "rules"),
    [
        (("flickr30k-cna", "coco-cn", "flickr30k", "mscoco"), {"equal_captions": "separate"}),
        (("boxclass-cn",), {"lower_case": False, "crop_edges": "whole-sides"}),
        (("coco-boxes", "lvis-boxes"), {"lower_case": True, "crop_edges": "whole-sides"}),
        (("fg-ovd-hard", "fg-ovd-medium", "fg-ovd-easy", "fg-ovd-trivial"), {"ties": "right"}),
    ],
)
def test_both_presets_have_the_rules_of_the_scripts_that_the_published_numbers_are_of(names, rules):
    for name in names:
        for preset in ("paper", "released"):
            settings = find_benchmark(name).settings(preset)
            assert {key: getattr(settings, key) for key in rules} == rules, (name, preset)


def test_imagenet_v2_takes_as_many_patches_as_v1_in_the_released_script():
    v1, v2 = (find_benchmark(name) for name in ("imagenet-1k", "imagenet-v2"))
    assert v1.settings("released").max_num_patches == v2.settings("released").max_num_patches == 1024
    assert v2.settings("released").whole_batches_of == 1  # that of v1 drops the last batch, that of v2 doesn't
    assert v1.settings("paper") == v2.settings("paper")


def test_rules_that_no_script_names_are_as_they_were():
    for name in ("lit-cn", "muge", "icr", "mscoco-karpathy", "coco-cn-written", "xm3600-zh", "docci", "urban-1k"):
        for preset in ("paper", "released"):
            assert find_benchmark(name).settings(preset).equal_captions == "one"


def test_patch_budgets_are_told_of_one_image_at_a_time():
    (budgets,) = COMMON_DIFFERENCES
    assert "which take one image at a time" in budgets
    assert "largest" not in budgets


@pytest.mark.parametrize("follow_links", [False, True])
def test_every_reader_takes_whether_to_follow_links(tmp_path, follow_links):
    """The row's function passes it on; here as a folder of images that is a link."""
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (16, 16)).save(tmp_path / "elsewhere/1.jpg")
    for benchmark in BENCHMARKS.values():
        assert "follow_links" in signature(benchmark.read.reader).parameters, benchmark.name
    folder = tmp_path / "COCO"
    (folder / "annotations").mkdir(parents=True)
    content = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"image_id": 1, "caption": "一片黑"}]}
    (folder / "annotations/captions_val2017.json").write_text(json.dumps(content))
    (folder / "val2017").symlink_to(tmp_path / "elsewhere")
    benchmark = find_benchmark("mscoco")
    if follow_links:
        assert benchmark.read(folder, None, benchmark.paper, follow_links).captions == ["一片黑"]
    else:
        with pytest.raises(ValueError, match=r"val2017 is a link to .*elsewhere, outside .*COCO"):
            benchmark.read(folder, None, benchmark.paper)
    assert benchmark.read(folder, folder / "val2017", benchmark.paper).captions == ["一片黑"]
