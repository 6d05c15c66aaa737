"""Training files of CCMB: labelled and unlabelled pairs, and captions by an image's id."""

import pytest

from fgclip2.data import read_ccmb, read_flickr30k_cna, read_pairs, write_shards
from fgclip2.data.formats import open_records
from fgclip2.data.readers import Columns
from fgclip2.data.records import InvalidRecordError
from fgclip2.data.shards import ShardedRecords
from fgclip2.data.validation import guess_format
from tests.data.samples import write_lines

ROWS = [
    {"text": "一只猫", "image_path": "/data/r2d2/IQR_IQM_ICR_ICM_images/0.png", "label": 1},
    {"text": "两只狗", "image_path": "1.png", "label": 0},
    {"text": "黑猫坐着", "image_path": r"D:\images\0.png"},
]


def test_pairs_of_ccmb(tmp_path, images):
    path = write_lines(tmp_path / "long_itm_train.json", ROWS)
    assert guess_format(path)[0] == "ccmb"
    records = open_records(str(path), "ccmb", images)
    found = [(record.image, record.short_caption, record.matches, record.language) for record in records]
    assert found == [
        (str(images / "0.png"), "一只猫", True, "zh"),
        (str(images / "1.png"), "两只狗", False, "zh"),
        (str(images / "0.png"), "黑猫坐着", None, "zh"),
    ]
    assert records.source(1) == f"{path}:2"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": 2}, "a.json:1: label is 2; it must be 1 where image and caption match, else 0"),
        ({"label": 1.0}, "a.json:1: label is 1.0; it must be 1 where"),
        ({"text": " "}, "a.json:1: text is ' '; it must be a text that is not blank"),
        ({"image_path": "a/.."}, r"a.json:1: image_path is 'a/\.\.'; it must be a path of an image"),
    ],
)
def test_wrong_pairs(tmp_path, images, row, message):
    records = read_ccmb(write_lines(tmp_path / "a.json", [ROWS[0] | row]), images)
    with pytest.raises(InvalidRecordError, match=message):
        records[0]


def test_captions_by_id(tmp_path, images):
    path = tmp_path / "flickr30k_cna_train.txt"
    path.write_text("0#0\t一只 猫\n\n0#1 黑猫\n1#0\n../1#0\t狗\n", encoding="utf-8")
    records = open_records(str(path), "flickr30k-cna", images)
    assert [(record.image, record.short_caption, record.source) for record in (records[0], records[1])] == [
        (str(images / "0.jpg"), "一只 猫", f"{path}:1"),
        (str(images / "0.jpg"), "黑猫", f"{path}:3"),
    ]
    with pytest.raises(InvalidRecordError, match=":4: the line is '1#0'; it must be an id, # and a number, a tab and"):
        records[2]
    with pytest.raises(InvalidRecordError, match=r":5: the image's id is '\.\./1'; it must be the name of a file"):
        records[3]
    path.write_bytes("0#0\t猫\n0#1\t".encode() + b"\xff")
    with pytest.raises(InvalidRecordError, match=r":2: the record is malformed .* it must be UTF-8"):
        read_flickr30k_cna(path, images)[1]


def test_labels_of_own_pairs_and_shards(tmp_path, images):
    path = tmp_path / "pairs.csv"
    path.write_text("image,caption,fits\n0.png,猫,1\n1.png,cat,0\n0.png,dog,\n", encoding="utf-8")
    records = read_pairs(path, images, Columns(label="fits"))
    assert [record.matches for record in records] == [True, False, None]
    assert [record.matches for record in read_pairs(path, images)] == [None] * 3
    write_shards(records, tmp_path / "shards", 2)
    assert [record.matches for record in ShardedRecords(tmp_path / "shards", 1, shuffle=False)] == [True, False, None]
