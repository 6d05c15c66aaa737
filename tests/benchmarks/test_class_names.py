import json
from collections import Counter
from pathlib import Path

import pytest

import fgclip2.benchmarks
from fgclip2.benchmarks.class_names import class_names, imagenet_folders, templates

DATA = Path(fgclip2.benchmarks.__file__).parent / "data"


@pytest.mark.parametrize(
    ("name", "language", "count", "known"),
    [
        ("imagenet", "en", 1000, {0: "tench", 1: "goldfish", 282: "tiger cat", 817: "sports car", 999: "toilet paper"}),
        ("imagenet", "zh", 1000, {0: "丁鲷", 1: "金鱼", 282: "山猫", 817: "跑车", 999: "卫生纸"}),
        ("coco", "en", 80, {0: "person", 9: "traffic light", 22: "zebra", 53: "pizza", 79: "toothbrush"}),
        ("coco", "zh", 80, {0: "人", 9: "红绿灯", 22: "斑马", 53: "披萨", 79: "牙刷"}),
    ],
)
def test_names_are_complete_and_in_order(name, language, count, known):
    names = class_names(name, language)
    assert len(names) == count
    assert {index: names[index] for index in known} == known
    assert all(text and text == text.strip() for text in names)


def test_the_names_that_two_classes_share_are_those_of_the_sources():
    shared = {
        (name, language): [text for text, count in Counter(class_names(name, language)).items() if count > 1]
        for name in ("imagenet", "coco")
        for language in ("en", "zh")
    }
    assert shared == {
        ("imagenet", "en"): ["missile", "sunglasses"],
        ("imagenet", "zh"): ["太阳镜"],
        ("coco", "en"): [],
        ("coco", "zh"): [],
    }


@pytest.mark.parametrize(("language", "known"), [("en", "a photo of a {}."), ("zh", "一张{}的照片。")])
def test_templates_have_one_place_for_the_name(language, known):
    found = templates("imagenet", language)
    assert len(found) == 80
    assert known in found
    assert all(template.count("{}") == 1 and template.format("猫 cat").count("猫 cat") == 1 for template in found)


@pytest.mark.parametrize(
    ("function", "name", "language", "message"),
    [
        (class_names, "imagenet-21k", "zh", r"^name must be 'imagenet' or 'coco', got 'imagenet-21k'$"),
        (class_names, "../coco", "en", r"^name must be 'imagenet' or 'coco', got '../coco'$"),
        (class_names, "coco", "fr", r"^language must be 'en' or 'zh', got 'fr'$"),
        (templates, "coco", "en", r"^name must be 'imagenet', got 'coco'$"),
        (templates, "imagenet", "cn", r"^language must be 'en' or 'zh', got 'cn'$"),
    ],
)
def test_an_unknown_name_or_language_is_named(function, name, language, message):
    with pytest.raises(ValueError, match=message):
        function(name, language)


def test_imagenets_folders_are_in_the_order_of_its_names():
    folders = imagenet_folders()
    assert len(set(folders)) == 1000
    assert list(folders) == sorted(folders)
    names = dict(zip(folders, class_names("imagenet", "en"), strict=True))
    assert [names[each] for each in ("n01440764", "n02123159", "n04285008", "n15075141")] == [
        "tench",
        "tiger cat",
        "sports car",
        "toilet paper",
    ]


@pytest.mark.parametrize("file", ["imagenet.json", "coco.json"])
def test_each_list_has_its_source_and_licence(file):
    content = json.loads((DATA / file).read_text(encoding="utf-8"))
    assert set(content["names"]) == {"en", "zh"}
    assert set(content["sources"]) == {*content["names"], *({"folders"} & set(content))}
    assert all(source["licence"] and source["origin"] for source in content["sources"].values())
