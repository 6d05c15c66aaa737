"""FG-OVD in both published formats, and each field wrong in turn."""

import pytest

from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.readers.fg_ovd import read_fg_ovd
from tests.benchmarks.readers.boxed import changed, write_pictures
from tests.data.samples import write_json, write_lines

TRUE = "A dark brown wooden chair with a red cushion."
FALSE = [f"A dark brown wooden chair with a {color} cushion." for color in ("blue", "green", "white", "grey", "pink")]


def line(**changes):
    """As FG-CLIP publishes them; a change to None leaves the key out."""
    complete = {
        "img_path": "val2017/000000000139.jpg",
        "bbox": [10.5, 20, 30, 40],
        "pos_expression": [TRUE],
        "neg_expression": [*FALSE, *(text.replace("dark", "light") for text in FALSE)],
        "category_id": 7,
        "neg_category_ids": list(range(8, 18)),
        "width": 640,
        "height": 426,
        "image_id": 139,
        "sent_id": 3,
        "test_type": "1_attributes",
    } | changes
    return {key: value for key, value in complete.items() if value is not None}


RELEASE = {  # as the authors of FG-OVD publish it
    "images": [
        {
            "id": 139,
            "width": 640,
            "height": 426,
            "coco_url": "http://images.cocodataset.org/val2017/000000000139.jpg",
            "file_name": "val2017/000000000139.jpg",
            "neg_category_ids": [2, 3],
            "not_exhaustive_category_ids": [1],
        }
    ],
    "annotations": [
        {"bbox": [259, 235, 191, 118], "category_id": 1, "neg_category_ids": [2, 3], "image_id": 139, "id": 1052},
        {"bbox": [1, 2, 3, 4], "category_id": 4, "neg_category_ids": [2], "image_id": 139, "id": 1107},
    ],
    "categories": [
        {"name": "A translucent glass bowl.", "id": 1, "synset": "", "frequency": "f", "instance_count": 1},
        {"name": "A transparent glass bowl.", "id": 2},
        {"name": "A opaque glass bowl.", "id": 3},
        {"name": "木桌上的红色塑料杯。", "id": 4},
    ],
}


@pytest.fixture
def images(tmp_path):
    return write_pictures(tmp_path / "coco", "val2017/000000000139.jpg", "train2017/000000000009.jpg")


def test_lines(tmp_path, images):
    chinese = line(
        img_path="train2017/000000000009.jpg",
        pos_expression=["红色的木椅"],
        neg_expression=["蓝色的木椅", "绿色的木椅"],
    )
    path = write_lines(tmp_path / "1_attributes_llava.jsonl", [line(), chinese, line(bbox=[0, 0, 1, 1])])
    data = read_fg_ovd(path, images)
    assert data.images == [
        ImageFile(images / "val2017/000000000139.jpg"),
        ImageFile(images / "train2017/000000000009.jpg"),
    ]
    assert data.boxes == [[(10.5, 20, 40.5, 60), (0, 0, 1, 1)], [(10.5, 20, 40.5, 60)]]
    assert data.texts[0][0] == [TRUE, *line()["neg_expression"]]
    assert data.texts[1] == [["红色的木椅", "蓝色的木椅", "绿色的木椅"]]
    assert (data.items, data.problems) == (3, [])


def test_a_true_text_by_itself(tmp_path, images):
    path = write_lines(tmp_path / "a.jsonl", [line(pos_expression="红色的木椅")])
    assert read_fg_ovd(path, images).texts[0][0][0] == "红色的木椅"


def test_sizes_that_are_not_listed_are_those_of_the_images(tmp_path):
    images = write_pictures(tmp_path / "coco", "val2017/000000000139.jpg", size=(50, 80))
    unsized = {"width": None, "height": None}
    path = write_lines(tmp_path / "a.jsonl", [line(**unsized), line(**unsized, bbox=[10, 20, 45, 40])])
    data = read_fg_ovd(path, images)
    assert data.boxes == [[(10.5, 20, 40.5, 60)]]
    (problem,) = data.problems
    assert str(problem) == f"{path}:2: bbox is [10, 20, 45, 40]; it must be a box within the image, 50 x 80 pixels"
    path = write_json(tmp_path / "a.json", changed(RELEASE, "images", 0, **unsized))
    data = read_fg_ovd(path, images)
    assert data.boxes == [[(1, 2, 4, 6)]]
    assert [problem.source for problem in data.problems] == [f"{path}: annotations[0]"]


def test_the_authors_release(tmp_path, images):
    data = read_fg_ovd(write_json(tmp_path / "1_attributes.json", RELEASE), images)
    assert data.images == [ImageFile(images / "val2017/000000000139.jpg")]
    assert data.boxes == [[(259, 235, 450, 353), (1, 2, 4, 6)]]
    assert data.texts == [
        [
            ["A translucent glass bowl.", "A transparent glass bowl.", "A opaque glass bowl."],
            ["木桌上的红色塑料杯。", "A transparent glass bowl."],
        ]
    ]
    assert (data.items, data.problems) == (2, [])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"img_path": None}, "img_path is missing; it must be a text"),
        ({"img_path": "val2017/1.jpg"}, "the image is 'val2017/1.jpg'; it must be an image in "),
        ({"img_path": "/etc/../passwd"}, "the image is '/etc/../passwd'; it must be a safe, unambiguous name"),
        ({"bbox": [10, 20, 700, 40]}, "bbox is [10, 20, 700, 40]; it must be a box within the image, 640 x 426 pixels"),
        ({"bbox": [10, 20, 0, 40]}, "bbox is [10, 20, 0, 40]; it must be x, y, width, height"),
        ({"bbox": "10"}, "bbox is '10'; it must be"),
        ({"pos_expression": []}, "pos_expression is []; it must be a text"),
        ({"pos_expression": ["a", "b"]}, "pos_expression is ['a', 'b']; it must be a text"),
        ({"pos_expression": " "}, "pos_expression is ' '; it must be a text"),
        ({"neg_expression": None}, "neg_expression is missing; it must be a list of at least one"),
        ({"neg_expression": []}, "neg_expression is []; it must be a list of at least one"),
        ({"neg_expression": ["蓝色的木椅", 3]}, "neg_expression is 3; it must be a text"),
        ({"width": -1}, "width is -1; it must be a positive whole number"),
    ],
)
def test_wrong_lines_are_left_out_and_named(tmp_path, images, changes, reason):
    path = write_lines(tmp_path / "a.jsonl", [line(), line(**changes)])
    data = read_fg_ovd(path, images)
    assert data.items == 1
    (problem,) = data.problems
    assert problem.source == f"{path}:2"
    assert problem.reason.startswith(reason)


def test_lines_that_are_no_json(tmp_path, images):
    path = write_lines(tmp_path / "a.jsonl", ["{", line(), "", b"\xff", [1]])
    data = read_fg_ovd(path, images)
    assert data.items == 1
    assert [problem.source for problem in data.problems] == [f"{path}:{number}" for number in (1, 4, 5)]
    assert data.problems[0].reason.startswith("the line is broken (")
    assert data.problems[2].reason == "the record is a list; it must be one JSON object"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"neg_category_ids": [2, 9]}, "neg_category_ids is 9; it must be an id that 'categories' has"),
        ({"neg_category_ids": []}, "neg_category_ids is []; it must be a list of at least one"),
        ({"category_id": None}, "category_id is missing; it must be"),
        ({"image_id": 5}, "image_id is 5; it must be"),
        ({"bbox": [1, 2, 3]}, "bbox is [1, 2, 3]; it must be"),
    ],
)
def test_wrong_annotations_are_left_out_and_named(tmp_path, images, changes, reason):
    path = write_json(tmp_path / "a.json", changed(RELEASE, "annotations", 0, **changes))
    data = read_fg_ovd(path, images)
    assert data.boxes == [[(1, 2, 4, 6)]]
    (problem,) = data.problems
    assert problem.source == f"{path}: annotations[0]"
    assert problem.reason.startswith(reason)


def test_files_of_another_kind(tmp_path, images):
    with pytest.raises(ValueError, match=r"a\.txt: unknown suffix '\.txt'; it must be \.jsonl or \.json"):
        read_fg_ovd(write_lines(tmp_path / "a.txt", [line()]), images)
    with pytest.raises(ValueError, match=r"a\.json has no list 'categories'"):
        read_fg_ovd(write_lines(tmp_path / "a.json", [line()]), images)
    with pytest.raises(ValueError, match=r"has no record that can be used; the first problem: .*:1: pos_expression is"):
        read_fg_ovd(write_json(tmp_path / "b.jsonl", RELEASE), images)
    with pytest.raises(ValueError, match=r"c\.jsonl has no record that can be used and is empty"):
        read_fg_ovd(write_lines(tmp_path / "c.jsonl", []), images)
    with pytest.raises(ValueError, match=r"nowhere\.jsonl: no such file"):
        read_fg_ovd(tmp_path / "nowhere.jsonl", images)
