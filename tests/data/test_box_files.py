"""Boxes of files, and which image each is of."""

import json
from pathlib import Path

import pytest
from PIL import Image

from fgclip2.data.box_files import boxes_of_json, read_boxes
from fgclip2.data.records import InvalidRecordError

INSTANCES = {
    "images": [{"id": 7, "file_name": "街道.png"}, {"id": 9, "file_name": "val/000042.png"}],
    "annotations": [
        {"id": 1, "image_id": 9, "bbox": [2, 4, 10, 8], "category_id": 3},
        {"id": 2, "image_id": 7, "bbox": [0, 0, 5.5, 5], "category_id": 4},
        {"id": 3, "image_id": 9, "bbox": [1, 1, 2, 2], "category_id": 4},
    ],
    "categories": [{"id": 3, "name": "狗"}, {"id": 4, "name": "car"}],
}
DETECTIONS = [
    {"image_id": 42, "category_id": 1, "bbox": [2, 4, 10, 8], "score": 0.75},
    {"image_id": "街道", "category_id": 2, "bbox": [0, 0, 5, 5], "score": 0.5},
]


@pytest.fixture
def images(tmp_path, monkeypatch) -> list[Path]:
    """`街道.png` and `val/000042.png`, 40 x 20 pixels."""
    monkeypatch.chdir(tmp_path)
    Path("val").mkdir()
    paths = [Path("街道.png"), Path("val/000042.png")]
    for path in paths:
        Image.new("RGB", (40, 20), "gray").save(path)
    return paths


def write(name: str, content) -> Path:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def rows(found) -> list[list]:
    return [[box.box for box in of_image] for of_image in found.boxes]


def test_instances_name_their_images(images):
    found = read_boxes(write("instances.json", INSTANCES), images)
    assert found.box_format == "xywh"
    assert rows(found) == [[[0, 0, 5.5, 5]], [[2, 4, 10, 8], [1, 1, 2, 2]]]
    assert [dict(box.details) for box in found.boxes[1]] == [{"id": 1, "category": "狗"}, {"id": 3, "category": "car"}]
    assert found.boxes[1][1].source == "instances.json: annotations[2]"


def test_equal_names_in_several_folders_are_told_apart_by_the_path(images):
    Path("train").mkdir()
    entries = [*INSTANCES["images"], {"id": 11, "file_name": "train/000042.png"}]
    path = write("instances.json", {**INSTANCES, "images": entries})
    assert rows(read_boxes(path, [images[1]])) == [[[2, 4, 10, 8], [1, 1, 2, 2]]]
    with pytest.raises(ValueError, match=r"instances.json has no image '000042.png'; its names are such as '街道.png'"):
        read_boxes(path, [Path("000042.png")])


def test_detections_have_names_as_ids_or_those_of_instances(images):
    found = read_boxes(write("found.json", DETECTIONS), images)
    assert rows(found) == [[[0, 0, 5, 5, 0.5]], [[2, 4, 10, 8, 0.75]]]
    assert dict(found.boxes[0][0].details) == {"category": 2}
    numbered = [{**DETECTIONS[0], "image_id": 7}]  # 7 is no number of a name, but that of 街道.png in the instances
    found = read_boxes(write("found.json", numbered), images, write("instances.json", INSTANCES))
    assert rows(found) == [[[2, 4, 10, 8, 0.75]], []]
    with pytest.raises(ValueError, match=r"image ids such as 7, and none is the name of 街道\.png: give the file"):
        read_boxes(Path("found.json"), images)


def test_a_detector_that_has_found_nothing(images):
    path = write("found.json", [])
    assert rows(read_boxes(path, images)) == [[], []]
    assert rows(read_boxes(path, images[:1], write("instances.json", INSTANCES))) == [[]]


def test_yolo_has_fractions_of_centre_and_size(images):
    write("labels/街道.txt", "3 0.5 0.5 0.25 0.5\n\n0 0.9 0.1 0.2 0.2000001 0.75\n")
    found = read_boxes(Path("labels"), images)
    assert found.box_format == "xyxy"
    assert rows(found) == [[[15, 5, 25, 15], [32, 0, 40, pytest.approx(4), 0.75]], []]
    assert [dict(box.details) for box in found.boxes[0]] == [{"category": 3}, {"category": 0}]
    assert found.boxes[0][1].source == f"{Path('labels/街道.txt')}:3"
    assert rows(read_boxes(Path("labels/街道.txt"), images[:1])) == rows(found)[:1]


def test_an_edge_outside_the_image_stays_for_the_embedder_to_judge(images):
    found = read_boxes(write("a.txt", "0 0.1 0.5 0.4 0.5"), images[:1])
    assert rows(found) == [[[pytest.approx(-4), 5, pytest.approx(12), 15]]]


def test_the_boxes_of_an_image_that_cannot_be_read_are_not_guessed(images):
    images[0].write_bytes(b"not a picture")
    assert rows(read_boxes(write("a.txt", "0 0.5 0.5 0.2 0.2"), images[:1])) == [[]]


@pytest.mark.parametrize("content", [[[1, 2, 3, 4]], {"boxes": [[1, 2, 3, 4]]}])
def test_a_plain_list_is_of_one_image(images, content):
    found = boxes_of_json(content, "boxes", images[:1])
    assert (rows(found), found.box_format, found.boxes[0][0].source) == ([[[1, 2, 3, 4]]], None, None)
    with pytest.raises(ValueError, match="boxes is one list of boxes, and there are 2 images: give COCO's"):
        boxes_of_json(content, "boxes", images)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("3 120 80 60 40", "'3 120 80 60 40'"),  # pixels
        ("3 0.5 0.5 0.2", "'3 0.5 0.5 0.2'"),
        ("3 0.1 0.1 0.2 0.1 0.2 0.2", "'3 0.1 0.1 0.2 0.1 0.2 0.2'"),  # a polygon
        ("狗 0.5 0.5 0.2 0.2", "'狗 0.5 0.5 0.2 0.2'"),
        ("nan 0.5 0.5 0.2 0.2", "'nan 0.5"),
        ("3 0.5 0.5 1e999 0.2", "'3 0.5 0.5 1e999"),
    ],
)
def test_lines_that_yolo_does_not_have(images, line, found):
    path = write("标注.txt", f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(InvalidRecordError, match=r"标注.txt:2: the line is .*fractions from 0 to 1") as error:
        read_boxes(path, images[:1])
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"box": []}, "there must be a list of boxes"),
        ("3", "there must be a list of boxes"),
        ({**INSTANCES, "annotations": {}}, "annotations must be a list"),
        ({**INSTANCES, "images": None}, "has no list `images`"),
        ({**INSTANCES, "images": []}, "has no image '街道.png'"),
        ({**INSTANCES, "annotations": [3]}, r"annotations\[0\]: the record is 3"),
        ({**INSTANCES, "annotations": [{"image_id": [7]}]}, r"annotations\[0\]: image_id is \[7\]"),
        ({**INSTANCES, "annotations": [{"image_id": 7, "bbox": [1, 2, 3]}]}, r"annotations\[0\]: bbox is \[1, 2, 3\]"),
        ({**INSTANCES, "annotations": [{"image_id": 7, "bbox": [1, 2, 3, 10**400]}]}, r"annotations\[0\]: bbox is"),
        ([{**DETECTIONS[1], "score": 87.5}], r"\[0\]: score is 87.5; it must be a number from 0 to 1"),
        ([{**DETECTIONS[1], "category_id": {}}], r"\[0\]: category_id is {}"),
        ([{**DETECTIONS[1], "bbox": None}], r"\[0\]: bbox is missing; it must be x, y, width, height"),
    ],
)
def test_files_that_cannot_be_used(images, content, message):
    with pytest.raises(ValueError, match=message):
        read_boxes(write("框.json", content), images[:1])


def test_arguments_that_do_not_fit(images):
    labels = write("labels/a.txt", "0 0.5 0.5 0.1 0.1").parent
    with pytest.raises(ValueError, match=r"labels has no 街道.txt, nor a file of the name of any other"):
        read_boxes(labels, images)
    with pytest.raises(ValueError, match=r"labels: 2 images would have their boxes in 街道.txt"):
        read_boxes(labels, [images[0], Path("val/街道.jpg")])
    with pytest.raises(ValueError, match=r"a.txt is of one image, and there are 2: give the folder"):
        read_boxes(labels / "a.txt", images)
    for path in (labels, write("plain.json", [[1, 2, 3, 4]])):
        with pytest.raises(ValueError, match=r"have (no )?image ids: leave out the file"):
            read_boxes(path, images[:1], "instances.json")
    Path("wide.txt").write_bytes("0 0.5".encode("utf-16"))
    with pytest.raises(ValueError, match=r"wide.txt is not UTF-8 text; a line must be `class x_center"):
        read_boxes("wide.txt", images[:1])
