"""What `bench check` names although it can be used: each is a fault that nothing else would tell of."""

import json
import zipfile

import pytest
from PIL import Image

from fgclip2.benchmarks.catalogue import find_benchmark
from fgclip2.benchmarks.checking import check
from fgclip2.benchmarks.tasks import RetrievalData


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), "red").save(path)


def problems(name, folder, **options) -> list[str]:
    return [
        str(problem).replace(f"{folder}/", "") for problem in check(find_benchmark(name), folder, **options).problems
    ]


def write_boxes(folder, ids=(1, 2), image_ids=(1, 2), names=("T恤", "帽子")):
    for number in (1, 2):
        draw(folder / f"{number}.jpg")
    content = {
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "bbox": [0, 0, 9, 9]}
            for number, (image, category) in enumerate(zip(image_ids, ids, strict=True))
        ],
    }
    (folder / "valid_category_data_total_zh.json").write_text(json.dumps(content))
    (folder / "lvis_v1_val.json").write_text(json.dumps(content))


def test_repeated_lines_and_third_columns_of_captions(tmp_path):
    for name in ("1.jpg", "2.jpg"):
        draw(tmp_path / name)
    lines = ["1.jpg\t一只猫", "2.jpg\ta dog", "1.jpg\t一只猫", "2.jpg\t一只狗\t人写的", "", "", "2.jpg\ta cat"]
    (tmp_path / "image_caption_long_cn.txt").write_text("\r\n".join(lines), encoding="utf-8")
    repeated, column = problems("lit-cn", tmp_path)
    file = "image_caption_long_cn.txt"
    assert repeated == f"{file}:3: the line is the same as {file}:1: remove one of them"
    assert column == f"{file}:4: the line has 3 columns, and all after the first are its caption: leave one tab"
    (tmp_path / file).write_text(lines[0], encoding="utf-8")
    assert problems("lit-cn", tmp_path) == []


def test_repeated_lines_and_third_columns_after_an_id(tmp_path):
    draw(tmp_path / "7.jpg")
    lines = ["7#0\t一只猫", "7#1\t猫\t译文", "7#0\t一只猫"]
    (tmp_path / "flickr30k_cna_test.txt").write_text("\n".join(lines), encoding="utf-8")
    column, repeated = problems("flickr30k-cna", tmp_path)
    assert column.startswith("flickr30k_cna_test.txt:2: the line has 3 columns")
    assert repeated.startswith("flickr30k_cna_test.txt:3: the line is the same as ")


def test_repeated_lines_of_json(tmp_path):
    draw(tmp_path / "1.jpg")
    records = [
        {"image_path": "1.jpg", "text": text, "label": label} for text, label in (("猫", 1), ("dog", 0), ("猫", 1))
    ]
    (tmp_path / "long_itm_val.json").write_text("\n".join(map(json.dumps, records)))
    (repeated,) = problems("icm", tmp_path)
    assert repeated.startswith("long_itm_val.json:3: the line is the same as ")


def test_categories_of_one_name(tmp_path):
    write_boxes(tmp_path, names=("帽子", "帽子"))
    (equal,) = problems("boxclass-cn", tmp_path)
    assert equal.endswith(
        "categories 1, 2 are all named '帽子' (zh), so that none is ever right: tell them apart, or make them one"
    )
    write_boxes(tmp_path, names=("T恤", "t恤"))
    assert problems("boxclass-cn", tmp_path) == []  # which keeps the case of names
    (equal,) = problems("lvis-boxes", tmp_path)
    assert "categories 1, 2 are all named 't恤' (en)" in equal


@pytest.mark.parametrize(
    ("wrong", "doubt"),
    [
        ({"ids": (2, 3)}, "all category_ids seem to be shifted by one: subtract 1 from each, and they are all known"),
        ({"image_ids": (0, 1)}, "all image_ids seem to be shifted by one: add 1 to each, and they are all known"),
        ({"image_ids": (2, 3)}, "all image_ids seem to be shifted by one: subtract 1 from each"),
    ],
)
def test_ids_of_boxes_that_are_shifted_by_one(tmp_path, wrong, doubt):
    write_boxes(tmp_path, **wrong)
    unknown, shifted = problems("boxclass-cn", tmp_path)
    assert "it must be an id that" in unknown
    assert shifted.startswith(f"valid_category_data_total_zh.json: {doubt}")


def test_ids_that_fit_neither_way_are_no_shift(tmp_path):
    write_boxes(tmp_path, ids=(1, 3))
    (unknown,) = problems("boxclass-cn", tmp_path)
    assert "category_id is 3; it must be an id that 'categories' has" in unknown


def test_ids_of_captions_and_folders_of_imagenet_that_are_shifted_by_one(tmp_path):
    draw(tmp_path / "val2017/1.jpg")
    draw(tmp_path / "val2017/2.jpg")
    content = {"images": [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2)]}
    content["annotations"] = [{"image_id": number, "caption": "一只猫"} for number in (0, 1)]
    (tmp_path / "captions_val2017.json").write_text(json.dumps(content))
    assert "captions_val2017.json: annotations: all image_ids seem to be shifted by one: add 1 to each" in "\n".join(
        problems("mscoco", tmp_path)
    )
    for number in (1, 1000):
        draw(tmp_path / f"v2/{number}/a.jpeg")
    found = problems("imagenet-v2", tmp_path / "v2")
    assert any("all folder's numbers seem to be shifted by one: subtract 1 from each" in problem for problem in found)


def test_empty_images_are_named_without_opening_any(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("2.jpg", b"")
    draw(tmp_path / "1.jpg")
    (tmp_path / "猫.jpg").write_bytes(b"")
    lines = ["1.jpg\t一只猫", "2.jpg\ta dog", "猫.jpg\t猫"]
    (tmp_path / "image_caption_long_cn.txt").write_text("\n".join(lines), encoding="utf-8")
    expected = ["images.zip:2.jpg: the image is empty: get it again", "猫.jpg: the image is empty: get it again"]
    assert problems("lit-cn", tmp_path) == expected
    assert [problem.split(": ")[0] for problem in problems("lit-cn", tmp_path, opened=True)] == [
        "images.zip:2.jpg",
        "猫.jpg",
    ]


def test_doubts_change_nothing_that_is_measured():
    data = RetrievalData([], ["猫"], [])
    doubted = RetrievalData([], ["猫"], [], doubts=["a.txt:2: the line is the same"])
    assert data.digest() == doubted.digest()
