"""Shards whose records are read in any order."""

import json
import pickle

import pytest

from fgclip2.data import RecordDataset, ShardedRecords, read_finehard, read_shards, write_shards
from fgclip2.data.formats import open_records
from fgclip2.data.shard_files import BrokenShardError
from tests.data.samples import items, write_images, write_json
from tests.data.test_shard_files import png, write_tar

KEPT = ("short_caption", "long_caption", "language", "regions", "matches")


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> RecordDataset:
    folder = tmp_path_factory.mktemp("records")
    return read_finehard(write_json(folder / "a.json", items(11)), write_images(folder / "images", 11))


@pytest.fixture(scope="module")
def folder(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(records, folder, 4)
    return folder


def test_all_records_are_there_in_any_order(records, folder):
    shards = pickle.loads(pickle.dumps(read_shards(folder)))
    assert shards.languages.tolist() == records.languages.tolist()
    for index in (10, 0, 4, 3, 7, 8, 9, 1, 2, 5, 6):
        found, original = shards[index], records[index]
        assert [getattr(found, name) for name in KEPT] == [getattr(original, name) for name in KEPT]
        assert found.image == open(original.image, "rb").read()  # noqa: PTH123, SIM115
    assert shards.source(5) == f"{folder}/000001.tar:sample 2"
    assert shards[5].source == f"{folder}/000001.tar:000000005"
    assert [record.source for record in shards] == [record.source for record in ShardedRecords(folder, shuffle=False)]


def test_places_and_languages(records, folder):
    addresses = read_shards(f"{folder.as_uri()}/index.json")
    assert [record.short_caption for record in addresses] == [record.short_caption for record in records]
    one = open_records(str(folder / "000002.tar"), "shards", language="zh")
    assert (len(one), set(one.languages.tolist()), one[0].language) == (3, {1}, "zh")
    with pytest.raises(ValueError, match=r"images_folder must be left out for .*, which has its images"):
        open_records(str(folder), "shards", "images")


def test_wrong_records_raise_where_they_are_read(tmp_path):
    members = {"0.png": png(), "0.json": {"caption": 5}, "长" * 90 + ".png": png(), "长" * 90 + ".txt": b"cat"}
    shards = read_shards(write_tar(tmp_path / "a.tar", members))
    with pytest.raises(ValueError, match=r"a\.tar:0: caption is 5"):
        _ = shards[0]
    assert shards[1].short_caption == "cat"  # whose name takes a header of its own


def test_broken_shards_are_errors(folder, tmp_path):
    content = (folder / "000000.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: len(content) // 2])
    with pytest.raises(BrokenShardError, match=r"a\.tar: the shard is cut off"):
        read_shards(tmp_path)
    (tmp_path / "a.tar").write_bytes(content)
    (tmp_path / "index.json").write_text(json.dumps({"shards": [{"name": "b.tar", "samples": 5}]}))
    with pytest.raises(BrokenShardError, match=r"b\.tar: the shard is missing"):
        read_shards(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps({"shards": [{"name": "a.tar", "samples": 5}]}))
    with pytest.raises(BrokenShardError, match=r"a\.tar: the shard is of 4 samples in place of 5"):
        read_shards(tmp_path)
    write_tar(tmp_path / "leer.tar", {})
    with pytest.raises(ValueError, match="must hold at least one sample"):
        read_shards(tmp_path / "leer.tar")
