"""Chinese-CLIP's format, whole and broken."""

import base64
import json
import pickle

import pytest

from fgclip2.benchmarks.readers.chinese_clip import read_chinese_clip
from fgclip2.errors import UnreadableImageError

IMAGES = {1000002: b"\xff\xfe\xfd an image", 7: bytes(range(256)), 42: b"never paired"}


def write(folder, rows, records, split="test"):
    (folder / f"{split}_imgs.tsv").write_bytes(b"\n".join(rows))
    lines = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in records]
    (folder / f"{split}_texts.jsonl").write_text("\n".join(lines), encoding="utf-8")


def row(number, content):
    return b"%d\t%s" % (number, base64.b64encode(content))


def caption(number, text, *images):
    return {"text_id": number, "text": text, "image_ids": list(images)}


def test_images_and_captions_belong_to_several_of_each_other(tmp_path):
    records = [caption(8428, "高级感托特包斜挎", 1000002, 7), caption(8429, "a tote bag", 7), caption(1, "包", 7, 7)]
    write(tmp_path, [row(*item) for item in IMAGES.items()], records, split="valid")
    data = read_chinese_clip(tmp_path, "valid")
    assert [image.read() for image in data.images] == list(IMAGES.values())  # also the one without a caption
    assert data.captions == ["高级感托特包斜挎", "a tote bag", "包"]
    assert data.pairs == [(0, 0), (1, 0), (1, 1), (1, 2)]
    assert not data.problems
    assert str(data.images[1]) == f"{tmp_path / 'valid_imgs.tsv'}:7"
    assert pickle.loads(pickle.dumps(data)) == data


def test_windows_lines_byte_order_mark_and_url_safe_base64(tmp_path):
    content = b"\xfb\xef\xbe\xff" * 3
    rows = [b"\xef\xbb\xbf" + row(1, b"first") + b"\r", b"", b"2\t" + base64.urlsafe_b64encode(content) + b"\r", b""]
    assert b"-" in rows[2]
    write(tmp_path, rows, [caption(0, "一", 1), caption(1, "two", 2)])
    assert [image.read() for image in read_chinese_clip(tmp_path).images] == [b"first", content]


def test_bad_rows_and_lines_become_problems(tmp_path):
    rows = [row(1, b"good"), b"2", b"3\t", b"x\tAAAA", row(1, b"again"), b"5\tAAA"]
    records = [
        caption(0, "好", 1, 99),
        caption(1, "不见了", 99),
        caption(2, " ", 1),
        caption(3, "test captions of MUGE"),
        '{"text_id": 4, "text": "bro',
        {"text": "no ids"},
        {"text": "ids are integers", "image_ids": ["1", True, None]},
        caption(7, "cut off", 5),
    ]
    write(tmp_path, rows, records)
    data = read_chinese_clip(tmp_path)
    assert data.captions == ["好", "cut off"]
    assert data.pairs == [(0, 0), (1, 1)]
    found = [str(problem).replace(f"{tmp_path}/", "") for problem in data.problems]
    image = "it must be the id of an image in test_imgs.tsv"
    assert found[:7] == [
        "test_imgs.tsv:2: the row is b'2'; it must be an id, a tab and an image in Base64",
        "test_imgs.tsv:3: the row is b'3\\t'; it must be an id, a tab and an image in Base64",
        "test_imgs.tsv:4: the image's id is b'x'; it must be an integer",
        "test_imgs.tsv:5: the image's id is 1; it must be an id that no row before has",
        f"test_texts.jsonl:1: image_ids[1] is 99; {image}",
        f"test_texts.jsonl:2: image_ids[0] is 99; {image}",
        "test_texts.jsonl:3: text is ' '; it must be a text that is not blank",
    ]
    assert found[7] == "test_texts.jsonl:4: image_ids is []; it must be a list of at least one"
    assert found[8].startswith("test_texts.jsonl:5: ")
    assert found[9] == "test_texts.jsonl:6: image_ids is missing; it must be a list of at least one"
    assert [problem.split(";")[0] for problem in found[10:]] == [
        "test_texts.jsonl:7: image_ids[0] is '1'",
        "test_texts.jsonl:7: image_ids[1] is True",
        "test_texts.jsonl:7: image_ids[2] is missing",
    ]
    with pytest.raises(UnreadableImageError, match=r"test_imgs\.tsv:5: "):
        data.images[1].read()


def test_a_table_that_is_gone(tmp_path):
    write(tmp_path, [row(1, b"good")], [caption(0, "好", 1)])
    data = read_chinese_clip(tmp_path)
    (tmp_path / "test_imgs.tsv").unlink()
    with pytest.raises(UnreadableImageError, match=r"test_imgs\.tsv:1: .*No such file"):
        data.images[0].read()


def test_files_that_are_missing_or_empty(tmp_path):
    with pytest.raises(ValueError, match=r"has no file test_imgs\.tsv; get it from https://github.com/OFA-Sys/"):
        read_chinese_clip(tmp_path)
    write(tmp_path, [row(1, b"good")], [])
    with pytest.raises(ValueError, match=r"has no file valid_imgs\.tsv"):
        read_chinese_clip(tmp_path, "valid")
    with pytest.raises(ValueError, match=r"test_texts\.jsonl has no record that can be used"):
        read_chinese_clip(tmp_path)
    write(tmp_path, [b"no image"], [caption(0, "好", 1)])
    with pytest.raises(
        ValueError, match=r"test_imgs\.tsv has no record that can be used; the first problem: .*:1: the row"
    ):
        read_chinese_clip(tmp_path)
