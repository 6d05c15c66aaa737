"""Data sets of a run by its settings: sets to evaluate on that have names."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fgclip2.data import read_pairs, write_shards
from fgclip2.training.settings import DataSettings
from fgclip2.training.sources import open_eval_data


@pytest.fixture
def pairs(tmp_path, monkeypatch) -> None:
    """Three files in the working folder, one of them with `=` in its name."""
    monkeypatch.chdir(tmp_path)
    for name, count in (("a.csv", 1), ("b.csv", 2), ("c=d.csv", 4)):
        Path(name).write_text("image,caption\n" + "x.png,a cat\n" * count, encoding="utf-8")


@pytest.mark.usefixtures("pairs")
def test_sets_to_evaluate_on_have_names():
    sets = open_eval_data(DataSettings(eval_data=["flickr=a.csv", "猫=b.csv", "flickr=c=d.csv"]))
    assert {name: len(records) for name, records in sets.items()} == {"flickr": 5, "猫": 2}
    assert sets["flickr"].source(1) == "c=d.csv:2"


@pytest.mark.usefixtures("pairs")
def test_without_names_there_is_one_set():
    assert len(open_eval_data(DataSettings(eval_data=["a.csv", "c=d.csv"]))) == 5
    with pytest.raises(ValueError, match=r"must be NAME=PATH for all sources or for none, got c=d\.csv without a name"):
        open_eval_data(DataSettings(eval_data=["flickr=a.csv", "c=d.csv"]))


@pytest.mark.usefixtures("pairs")
def test_one_format_is_not_that_of_paths_to_evaluate_on_that_cannot_be_of_it():
    Path("图").mkdir()
    Image.new("RGB", (8, 8), "red").save("图/x.png")
    write_shards(read_pairs("b.csv", "图"), "分片")
    Path("分片/left_out.jsonl").write_text("{}\n", encoding="utf-8")
    Path("标签/猫").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save("标签/猫/1.png")
    settings = DataSettings(["a.csv"], data_format=["pairs"], images_folder=["图"], image_column="image")
    for shards in ("分片", "分片/000000.tar", "分片/index.json"):
        records = open_eval_data(replace(settings, eval_data=[shards]))
        assert [record.short_caption for record in records] == ["a cat"] * 2
    sets = open_eval_data(replace(settings, eval_data=["shards=分片", "labels=标签", "pairs=c=d.csv"]))
    assert {name: len(records) for name, records in sets.items()} == {"shards": 2, "labels": 1, "pairs": 4}
    labels = DataSettings(["标签"], eval_data=["分片", "标签"], data_format=["folder"])
    assert len(open_eval_data(labels)) == 2 + 1
    # Where files of records are, tar files may be of their images.
    Path("b.tar").write_bytes(b"")
    Path("both").mkdir()
    Path("b.csv").rename("both/b.csv")
    Path("b.tar").rename("both/b.tar")
    assert len(open_eval_data(replace(settings, eval_data=["both"]))) == 2


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize("layout", ["list", "lines"])
def test_records_in_a_file_named_as_an_index_keep_the_format_given(layout):
    items = [{"picture": "x.png", "caption": caption} for caption in ("a cat", "一只猫")]
    lines = [json.dumps(item, ensure_ascii=False) for item in items]
    text = f"[{', '.join(lines)}]" if layout == "list" else "\n".join(lines)
    Path("验证").mkdir()
    Path("验证/index.json").write_text(text, encoding="utf-8")
    Path("验证/images.tar").write_bytes(b"")
    settings = DataSettings(["a.csv"], data_format=["pairs"], image_column="picture")
    for path in ("验证/index.json", "验证"):
        records = open_eval_data(replace(settings, eval_data=[path]))
        assert [record.short_caption for record in records] == ["a cat", "一只猫"]
