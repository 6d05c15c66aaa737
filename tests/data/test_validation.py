"""The whole data set is read in spite of errors; every kind of them is found and counted."""

import json
from pathlib import Path

import pytest

import fgclip2.data
from fgclip2.data.readers import read_finehard, read_image_folder, read_pairs
from fgclip2.data.shard_files import list_shards
from fgclip2.data.shard_writing import write_shards
from fgclip2.data.validation import guess_format, validate
from tests.data.samples import NEGATIVES, item, items, region, write_images, write_json, write_lines
from tests.data.test_shard_files import png, write_tar


def found(report) -> list[tuple[str, str]]:
    return [(problem.source.rpartition("/")[2], problem.field) for problem in report.problems]


def test_counts(tmp_path, images):
    rows = [
        item(caption=None),
        item("zh", short_caption=None, bbox_info=[region("zh"), region("zh", flag_short_neg=0, long_expr=None)]),
        item("zh", "1.png", bbox_info=None),
    ]
    report = validate(read_finehard(write_json(tmp_path / "a.json", rows), images), "open")
    assert report.problems == []
    assert {name: value for name, value in report.as_dict().items() if not name.startswith("problems")} == {
        "records": 3,
        "unusable": 0,
        "languages": {"en": 1, "zh": 2},
        "short_captions": 2,
        "long_captions": 2,
        "with_regions": 2,
        "regions": 3,
        "long_region_texts": 2,
        "regions_with_hard_negatives": 2,
        "hard_negatives": 20,
        "repeated_images": 1,
    }


def test_all_is_read_in_spite_of_errors(tmp_path, images):
    (images / "1.png").write_bytes((images / "1.png").read_bytes()[:60])
    same = region("zh", short_expr_negs=[NEGATIVES["zh"], " 红色的苹果"])
    rows = [
        item(),
        "{",
        item("zh", bbox_info=[region("zh"), region("zh", bbox=[0, 0, 2, 2])]),
        item(path="missing.png"),
        item("zh", "1.png"),
        item("zh", bbox_info=[region("zh"), same]),
        item(path="missing.png", bbox_info=[region(short_expr_negs=["Red  Apple"])]),
        item(caption=5),
    ]
    dataset = read_finehard(write_lines(tmp_path / "a.jsonl", rows), images)
    wrong = [("a.jsonl:2", "the record"), ("a.jsonl:3", "bbox_info[1].bbox")]
    negatives = [("a.jsonl:6", "regions[1].hard_negatives[1]"), ("a.jsonl:7", "regions[0].hard_negatives[0]")]
    missing = [("a.jsonl:4", "the image"), ("a.jsonl:7", "the image")]
    for images_checked, expected in (
        ("none", [*wrong, *negatives, ("a.jsonl:8", "caption")]),
        ("exists", [*wrong, missing[0], negatives[0], missing[1], negatives[1], ("a.jsonl:8", "caption")]),
    ):
        report = validate(dataset, images_checked, threads=3)
        assert found(report) == expected
        assert report.records == 8
        assert report.unusable == len({source for source, _ in expected})
    report = validate(dataset, "open")
    assert ("a.jsonl:5", "the image") in found(report)
    assert "1.png" in next(problem.found for problem in report.problems if problem.source.endswith(":5"))
    assert report.problems_by_field == {
        "the image": 3,
        "regions[].hard_negatives[]": 2,
        "the record": 1,
        "bbox_info[].bbox": 1,
        "caption": 1,
    }
    assert report.languages == {"en": 3, "zh": 2}
    assert str(report.problems[-1]).endswith("a.jsonl:8: caption is 5; it must be a text that is not blank")


def test_names_too_long_for_a_file_are_missing_images(tmp_path, images):
    report = validate(read_finehard(write_json(tmp_path / "a.json", [item(path="猫" * 200 + ".png")]), images))
    assert found(report) == [("a.json:1", "the image")]


@pytest.mark.parametrize("with_index", [True, False])
def test_shards(tmp_path, images, with_index):
    dataset = read_finehard(write_json(tmp_path / "a.json", items(4)), images)
    folder = tmp_path / "shards"
    write_shards(dataset, folder, samples_per_shard=2)
    broken = folder / "000001.tar"
    broken.write_bytes(broken.read_bytes()[:-9000])
    write_tar(folder / "000002.tar", {"0.png": png()[:40], "0.txt": "猫".encode(), "1.png": png(), "1.txt": b" "})
    index = json.loads((folder / "index.json").read_text())
    index["shards"].append({"name": "000002.tar", "samples": 3})
    (folder / "index.json").write_text(json.dumps(index))
    if not with_index:
        (folder / "index.json").unlink()
    report = validate(list_shards(folder, count=False), "open")
    expected = [("000001.tar", "the shard"), ("000002.tar:0", "the image"), ("000002.tar:1", "short_caption")]
    assert found(report) == [*expected, *([("000002.tar", "the shard")] * with_index)]
    assert report.records == 4  # the cut shard has none whole
    assert report.unusable == 2
    assert validate(list_shards(folder, count=False), "none", language="zh").languages["en"] == 0


def test_wrong_arguments(tmp_path, images):
    dataset = read_finehard(write_json(tmp_path / "a.json", [item()]), images)
    with pytest.raises(ValueError, match="images must be 'none', 'exists' or 'open', got 'all'"):
        validate(dataset, "all")
    with pytest.raises(ValueError, match="threads must be a positive integer, got 0"):
        validate(dataset, threads=0)


def test_formats_are_guessed_from_the_files(tmp_path, images):
    fine = write_json(tmp_path / "fine.json", items(2))
    pairs = write_lines(tmp_path / "pairs.jsonl", [{"image": "0.png", "caption": "猫"}])
    (tmp_path / "a.tsv").write_text("image\tcaption\n0.png\t猫\n", encoding="utf-8")
    (tmp_path / "many").mkdir()
    write_json(tmp_path / "many/a.json", items(2))
    write_images(tmp_path / "labelled/猫", 1)
    write_shards(read_finehard(fine, images), tmp_path / "shards")
    (tmp_path / "compact").mkdir()
    index = json.loads((tmp_path / "shards/index.json").read_text(encoding="utf-8"))
    (tmp_path / "compact/index.json").write_text(json.dumps(index), encoding="utf-8")
    for name, layout in {"list": write_json, "lines": write_lines}.items():
        (tmp_path / name).mkdir()
        layout(tmp_path / name / "index.json", items(2))
    for name, expected in {
        "fine.json": "finehard",
        "pairs.jsonl": "pairs",
        "a.tsv": "pairs",
        "many": "finehard",
        "labelled": "folder",
        "shards": "shards",
        "shards/000000.tar": "shards",
        "shards/index.json": "shards",
        "compact/index.json": "shards",
        "list/index.json": "finehard",
        "lines/index.json": "finehard",
        "s3://bucket/index.json": "shards",
        "b.parquet": "pairs",
    }.items():
        assert guess_format(tmp_path / name)[0] == expected, name
    with pytest.raises(ValueError, match="no such file or folder"):
        guess_format(tmp_path / "没有")
    assert validate(read_pairs(pairs, images)).problems == []
    assert validate(read_image_folder(tmp_path / "labelled"), "open").problems == []


def test_reading_data_needs_no_process_group():
    """Only one module of the package imports torch.distributed."""
    sources = [path.read_text() for path in Path(fgclip2.data.__path__[0]).rglob("*.py")]
    assert len(sources) > 10
    assert not any("torch.distributed" in source for source in sources)
