"""ICM and IQM as published, and each field wrong in turn."""

import pytest

from fgclip2.benchmarks.image_files import ImageFile
from fgclip2.benchmarks.readers.matching import read_matching
from tests.benchmarks.readers.boxed import write_pictures
from tests.data.samples import write_json, write_lines

ROWS = [
    {"text": "一只橘猫趴在窗台上晒太阳", "image_path": "IQR_IQM_ICR_ICM_images/a.jpg", "label": 1},
    {"text": "红色跑车", "image_path": "IQR_IQM_ICR_ICM_images/a.jpg", "label": 0},
    {"text": "红色跑车", "image_path": "IQR_IQM_ICR_ICM_images/b.jpg", "label": 1},
    {"text": "a red sports car", "image_path": "IQR_IQM_ICR_ICM_images/b.jpg", "label": 1},
]


@pytest.fixture
def images(tmp_path):
    return write_pictures(tmp_path / "IQR_IQM_ICR_ICM_images", "a.jpg", "b.jpg")


def test_lines(tmp_path, images):
    data = read_matching(write_lines(tmp_path / "long_itm_val.json", ROWS), images)
    assert data.images == [ImageFile(images / "a.jpg"), ImageFile(images / "b.jpg")]
    assert data.texts == ["一只橘猫趴在窗台上晒太阳", "红色跑车", "a red sports car"]
    assert data.pairs == [(0, 0), (0, 1), (1, 1), (1, 2)]
    assert data.labels == [True, False, True, True]
    assert (data.items, data.problems) == (4, [])


def test_one_list(tmp_path, images):
    assert read_matching(write_json(tmp_path / "a.json", ROWS), images).pairs == [(0, 0), (0, 1), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label": 2}, "label is 2; it must be 0 or 1"),
        ({"label": "1"}, "label is '1'; it must be 0 or 1"),
        ({"label": 0.5}, "label is 0.5; it must be 0 or 1"),
        ({"label": None}, "label is missing; it must be 0 or 1"),
        ({"text": ""}, "text is ''; it must be a text"),
        ({"text": ["红色跑车"]}, "text is ['红色跑车']; it must be a text"),
        ({"image_path": None}, "image_path is missing; it must be a text"),
        ({"image_path": "c.jpg"}, "image_path is 'c.jpg'; it must be an image in "),
        ({"image_path": "../b.jpg"}, "image_path is '../b.jpg'; it must be a safe, unambiguous name"),
    ],
)
def test_wrong_lines_are_left_out_and_named(tmp_path, images, changes, reason):
    path = write_lines(tmp_path / "a.json", [*ROWS[:3], ROWS[3] | changes])
    data = read_matching(path, images)
    assert data.items == 3
    assert data.texts == ["一只橘猫趴在窗台上晒太阳", "红色跑车"]
    (problem,) = data.problems
    assert problem.source == f"{path}:4"
    assert problem.reason.startswith(reason)


def test_files_that_measure_nothing(tmp_path, images):
    with pytest.raises(ValueError, match=r"a\.json: label is 1 in all lines, but both 0 and 1 are needed"):
        read_matching(write_lines(tmp_path / "a.json", ROWS[2:]), images)
    with pytest.raises(
        ValueError, match=r"b\.json has no record that can be used; the first problem: .*: label is mis"
    ):
        read_matching(write_lines(tmp_path / "b.json", [{"text": "红色跑车", "image_path": "a.jpg"}]), images)
    cut = write_json(tmp_path / "c.json", ROWS)
    cut.write_bytes(cut.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"c\.json is not JSON in UTF-8, or is broken or cut off"):
        read_matching(cut, images)
