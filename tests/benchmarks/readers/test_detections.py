"""What a detector found, in COCO's format of results, and each field wrong in turn."""

import pytest

from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.readers.detections import read_detections
from tests.benchmarks.readers.boxed import COCO, LVIS, changed, write_coco, write_pictures
from tests.data.samples import write_json

RESULTS = [
    {"image_id": 285, "category_id": 90, "bbox": [-3.5, 20, 30, 40], "score": 0.75},
    {"image_id": 632, "category_id": 1, "bbox": [0, 0, 640, 500.5], "score": 0.5},
    {"image_id": 285, "category_id": 1, "bbox": [5, 6, 7, 8], "score": 1},
]


def test_coco(tmp_path):
    """Boxes may reach out of their image; images without ground truth count too."""
    path, images = write_coco(tmp_path)
    data = read_detections(write_json(tmp_path / "results.json", RESULTS), path, images, names={"zh": ["人", "牙刷"]})
    assert data.images == [ImageFile(images / "000000000285.jpg"), ImageFile(images / "000000000632.jpg")]
    assert data.image_ids == [285, 632]
    assert data.boxes == [[(-3.5, 20, 26.5, 60), (5, 6, 12, 14)], [(0, 0, 640, 500.5)]]
    assert data.categories == [[1, 0], [0]]
    assert data.category_ids == [1, 90]
    assert data.scores == [[0.75, 1], [0.5]]
    assert data.names == {"en": ["person", "toothbrush"], "zh": ["人", "牙刷"]}
    assert data.ground_truth == path
    assert (data.items, data.problems) == (3, [])


def test_lvis(tmp_path):
    images = write_pictures(tmp_path, "val2017/000000397133.jpg", "train2017/000000000009.jpg")
    results = [{"image_id": 9, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.25}]
    truth = write_json(tmp_path / "lvis_v1_val.json", LVIS)
    data = read_detections(write_json(tmp_path / "results.json", results), truth, images)
    assert data.names == {"en": ["aerosol can", "bow (weapon)"]}
    assert (data.image_ids, data.categories, data.scores) == ([9], [[1]], [[0.25]])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_id": 5}, "image_id is 5; it must be an id that 'images' has"),
        ({"category_id": 2}, "category_id is 2; it must be an id that 'categories' has"),
        ({"category_id": None}, "category_id is missing; it must be"),
        ({"bbox": [586, 0, 5, 5]}, "bbox is [586, 0, 5, 5]; it must be a box that meets the image, 586 x 640 pixels"),
        ({"bbox": [-5, 0, 5, 5]}, "bbox is [-5, 0, 5, 5]; it must be a box that meets the image"),
        ({"bbox": [1, 2, 3, float("inf")]}, "bbox is [1, 2, 3, inf]; it must be x, y, width, height"),
        ({"bbox": [1, 2, 0, 3]}, "bbox is [1, 2, 0, 3]; it must be"),
        ({"score": None}, "score is missing; it must be a finite number"),
        ({"score": float("nan")}, "score is nan; it must be a finite number"),
        ({"score": "0.5"}, "score is '0.5'; it must be a finite number"),
    ],
)
def test_wrong_results_are_left_out_and_named(tmp_path, changes, reason):
    path, images = write_coco(tmp_path)
    results = write_json(tmp_path / "results.json", [*RESULTS[:2], RESULTS[2] | changes])
    data = read_detections(results, path, images)
    assert data.items == 2
    (problem,) = data.problems
    assert problem.source == f"{results}:3"
    assert problem.reason.startswith(reason)


def test_two_ids_of_one_image(tmp_path):
    path, images = write_coco(tmp_path, changed(COCO, "images", 2, file_name="000000000285.jpg"))
    data = read_detections(write_json(tmp_path / "results.json", RESULTS), path, images)
    assert data.image_ids == [285]
    assert [problem.reason for problem in data.problems] == ["image_id is 632; it must be one id for 000000000285.jpg"]


def test_two_names_of_one_image(tmp_path):
    path, images = write_coco(tmp_path, changed(COCO, "images", 2, file_name="val2017/000000000285.jpg"))
    data = read_detections(write_json(tmp_path / "results.json", RESULTS), path, images)
    assert data.image_ids == [285]
    (problem,) = data.problems
    assert problem.reason == "image_id is 632; it must be one id for val2017/000000000285.jpg"


def test_whole_files(tmp_path):
    path, images = write_coco(tmp_path)
    from_0 = write_json(tmp_path / "a.json", [*RESULTS, RESULTS[0] | {"category_id": 0}])
    with pytest.raises(ValueError, match=r"a\.json:4: category_id is 0, but categories of .*val2017\.json begin at 1"):
        read_detections(from_0, path, images)
    for score in (87.5, -0.1):
        of_other_scale = write_json(tmp_path / "d.json", [*RESULTS, RESULTS[0] | {"score": score}])
        with pytest.raises(ValueError, match=rf"d\.json:4: score is {score}; it must be 0 to 1: divide percentages"):
            read_detections(of_other_scale, path, images)
    with pytest.raises(ValueError, match=r"b\.json has no record that can be used and is empty"):
        read_detections(write_json(tmp_path / "b.json", []), path, images)
    results = write_json(tmp_path / "results.json", RESULTS)
    with pytest.raises(ValueError, match=r"results\.json has no list 'categories', only a list"):
        read_detections(results, results, images)  # the files in each other's place
    with pytest.raises(ValueError, match=r"val2017\.json has no record that can be used; .*: image_id is missing"):
        read_detections(path, path, images)
