"""Records, joined data sets, languages, and opening images."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from fgclip2.data.readers import read_finehard
from fgclip2.data.records import InvalidRecordError, Record, concatenate, open_record_image
from fgclip2.errors import UnreadableImageError
from tests.data.samples import item, items, write_json, write_lines


def record_with(image) -> Record:
    return Record(image, "a cat", None, "en", (), "pairs.csv:3")


def encoded(image: Image.Image, image_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def test_joined_data_sets_are_one_after_the_other(tmp_path, images):
    first = read_finehard(write_json(tmp_path / "a.json", items(3)), images)
    second = read_finehard(write_lines(tmp_path / "b.jsonl", items(2)), images)
    joined = concatenate([first, second])
    assert len(joined) == 5
    assert joined.languages.tolist() == [0, 1, 0, 0, 1]
    assert list(joined) == [*first, *second]
    assert joined[-1] == second[1]
    assert joined[np.int64(3)] == second[0]
    assert joined.source(3) == f"{tmp_path / 'b.jsonl'}:1"
    assert concatenate([first]) is first
    assert list(pickle.loads(pickle.dumps(joined))) == list(joined)
    with pytest.raises(IndexError):
        joined[5]
    with pytest.raises(ValueError, match="at least one data set"):
        concatenate([])


def test_errors_of_records_survive_pickling():
    error = pickle.loads(pickle.dumps(InvalidRecordError("a.jsonl:3", "f_path", "missing", "a path")))
    assert str(error) == "a.jsonl:3: f_path is missing; it must be a path"
    assert (error.source, error.field, error.found, error.allowed) == ("a.jsonl:3", "f_path", "missing", "a path")


def test_names_are_shown_on_one_line_and_in_their_order(tmp_path):
    """Names of files come from outside: a line break or a change of direction could show another message."""
    name = "猫\n\u202egnp.\x1b[2J"
    error = InvalidRecordError(f"{name}:3", "f_path", "missing", "a path")
    assert str(error) == r"猫\n\u202egnp.\x1b[2J:3: f_path is missing; it must be a path"
    assert error.source == f"{name}:3"
    with pytest.raises(UnreadableImageError, match=r"^a\.csv:1: .*猫\\n\\u202egnp\.\\x1b\[2J"):
        open_record_image(Record(str(tmp_path / name), "a cat", None, "en", (), "a.csv:1"))


def test_images_open_from_paths_bytes_and_pictures(tmp_path, photo):
    photo.save(tmp_path / "猫.png")
    for image in (str(tmp_path / "猫.png"), encoded(photo), photo):
        opened = open_record_image(record_with(image))
        assert opened.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(opened), np.asarray(photo))


def test_images_are_upright(photo):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert open_record_image(record_with(encoded(photo, "JPEG", exif=exif))).size == photo.size[::-1]


def test_unreadable_images_name_the_record_and_the_path(tmp_path, photo):
    half = encoded(photo)[: len(encoded(photo)) // 2]
    (tmp_path / "坏.png").write_bytes(half)
    with pytest.raises(UnreadableImageError, match=r"pairs\.csv:3: .*坏\.png.*not a readable image"):
        open_record_image(record_with(str(tmp_path / "坏.png")))
    with pytest.raises(UnreadableImageError, match=r"pairs\.csv:3: .*没有\.png.*no such image"):
        open_record_image(record_with(str(tmp_path / "没有.png")))
    for content in (b"no image", b"", half):
        with pytest.raises(UnreadableImageError, match=r"pairs\.csv:3: "):
            open_record_image(record_with(content))


def test_a_data_set_may_repeat_an_image(tmp_path, images):
    dataset = read_finehard(write_json(tmp_path / "a.json", [item(), item("zh")]), images)
    assert dataset[0].image == dataset[1].image
