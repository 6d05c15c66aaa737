"""Rows of the Zero corpus: a record of each text, images by their keys, and rows that can't be used."""

import csv
import json
import logging
import pickle
import tarfile

import pytest

from fgclip2.data import InvalidRecordError, read_zero
from fgclip2.data.records import open_record_image
from fgclip2.data.validation import guess_format, validate

ROWS = [
    {
        "Url": "https://a.example/1",
        "Title": "红苹果",
        "Content": "桌上有一个红苹果。旁边是一只猫。",
        "Keywords": "苹果,水果",
        "ImageKey": "0",
        "ImageUrl": "https://a.example/0.png",
        "ImageQuery": "苹果 图片",
    },
    {"Title": "  ", "Content": None, "ImageKey": "1.png", "ImageQuery": "a red car"},
]


def write_lines(path, rows):
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


def texts(records) -> list[tuple[str | None, str | None]]:
    return [(record.short_caption, record.long_caption) for record in records]


def test_each_text_is_a_record_of_the_same_image(tmp_path, images):
    records = pickle.loads(pickle.dumps(read_zero(write_lines(tmp_path / "零.jsonl", ROWS), images)))
    assert texts(records) == [
        ("苹果 图片", None),
        ("红苹果", None),
        (None, "桌上有一个红苹果。旁边是一只猫。"),
        ("a red car", None),
    ]
    assert [record.image for record in records] == [str(images / name) for name in ("0.png", "0.png", "0.png", "1.png")]
    assert [record.language for record in records] == ["zh", "zh", "zh", "en"]
    assert records.languages.tolist() == [1, 1, 1, 0]
    assert [records.source(index).rpartition(":")[2] for index in range(4)] == ["1", "1", "1", "2"]
    chosen = read_zero(tmp_path / "零.jsonl", images, texts=("Keywords", "ImageQuery"), language="zh")
    assert texts(chosen) == [("苹果,水果", None), ("苹果 图片", None), ("a red car", None)]
    assert chosen[2].language == "zh"


def test_tables_and_tar_shards(tmp_path, images):
    shards = tmp_path / "shards"
    shards.mkdir()
    for number, names in enumerate((("0.png",), ("./1.png", "./2.png"))):  # of `tar -C images .`, names begin with ./
        with tarfile.open(shards / f"{number}.tar", "w") as archive:
            for name in names:
                archive.add(images / name, name)
    with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)
    records = read_zero(tmp_path / "rows.csv", shards)
    assert texts(records) == texts(read_zero(write_lines(tmp_path / "rows.jsonl", ROWS), images))
    assert [record.image for record in records] == [
        (images / name).read_bytes() for name in ("0.png",) * 3 + ("1.png",)
    ]
    assert open_record_image(pickle.loads(pickle.dumps(records))[3]).mode == "RGB"
    assert guess_format(tmp_path / "rows.csv") == ("zero", "ImageKey in rows.csv")
    assert guess_format(tmp_path / "rows.jsonl")[0] == "zero"
    (shards / "2.tar").write_bytes((shards / "0.tar").read_bytes())
    with pytest.raises(ValueError, match=r"2\.tar has a second image '0\.png'"):
        read_zero(tmp_path / "rows.csv", shards)
    (shards / "2.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(ValueError, match=r"2\.tar must be a tar file that is not compressed"):
        read_zero(tmp_path / "rows.csv", shards)


def test_rows_that_can_not_be_used_are_named(tmp_path, images, caplog):
    wrong = [
        ({"ImageKey": "9", "Title": "猫"}, r"ImageKey is '9'; it must be the name of an image, .*none is ever fetched"),
        ({"ImageKey": "../0.png", "Title": "猫"}, r"ImageKey is '\.\./0\.png'; it must be a path relative"),
        ({"ImageKey": "https://a.example/0.png", "Title": "猫"}, "ImageKey is .*addresses are not fetched"),
        ({"Title": "猫"}, "ImageKey is missing; it must be a text"),
        ({"ImageKey": "0", "Keywords": "猫"}, "ImageQuery or Title or Content is missing; it must be a text, in at le"),
        ({"ImageKey": "0", "Title": ["猫"]}, r"Title is \['猫'\]; it must be a text"),
        (["猫"], r"the record is \['猫'\]; it must be one JSON object"),
    ]
    path = write_lines(tmp_path / "rows.jsonl", [row for row, _ in wrong] + ROWS[1:])
    with path.open("a", encoding="utf-8") as file:
        file.write('{"ImageKey": "0", ')
    with caplog.at_level(logging.WARNING):
        records = read_zero(path, images)
    assert "1 records are malformed (9)" in caplog.text
    assert len(records) == len(wrong) + 2
    for index, (_, message) in enumerate(wrong):
        with pytest.raises(InvalidRecordError, match=rf"rows\.jsonl:{index + 1}: {message}"):
            records[index]
    assert records[len(wrong)].short_caption == "a red car"
    report = validate(records)
    assert (report.records, report.unusable, report.short_captions) == (9, 8, 1)


def test_what_is_asked_for_is_checked(tmp_path, images):
    path = write_lines(tmp_path / "rows.jsonl", ROWS)
    for wrong in ("Title", (), ("Title", "Title"), ("Text",)):
        with pytest.raises(ValueError, match="texts must be some of ImageQuery, Title, Content, Keywords, each once"):
            read_zero(path, images, texts=wrong)
    (tmp_path / "rows.csv").write_text("ImageKey,Title\n0,猫\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows\.csv:1: the header has no column 'ImageQuery'"):
        read_zero(tmp_path / "rows.csv", images)
    assert texts(read_zero(tmp_path / "rows.csv", images, texts=("Title",))) == [("猫", None)]
