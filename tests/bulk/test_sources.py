"""What a bulk run reads, and what it says of input that it can't read."""

from pathlib import Path

import fsspec
import pyarrow
import pytest

from fgclip2.bulk import sources
from fgclip2.bulk.settings import BulkSettings
from fgclip2.bulk.sources import PROBLEM, open_source

from .conftest import boxes_json, write_shard, write_table


def rows_of(place: str | Path, **settings) -> list[dict]:
    source = open_source(str(place), BulkSettings(**settings))
    return [row for table in source.tables() for row in table.to_pylist()]


def test_a_folder_of_tables_is_one_table(tmp_path):
    write_table(tmp_path / "a.parquet", key=[1, 2], picture=[b"x", b"y"], other=[0, 0])
    write_table(tmp_path / "deeper" / "b.parquet", key=[3], picture=[b"z"], other=[0])
    settings = {"id_column": "key", "image_column": "picture"}
    assert rows_of(tmp_path, **settings) == [
        {"key": 1, "picture": b"x"},
        {"key": 2, "picture": b"y"},
        {"key": 3, "picture": b"z"},
    ]
    assert open_source(str(tmp_path), BulkSettings(**settings)).count == 3


def test_long_tables_come_in_short_ones(tmp_path):
    path = write_table(tmp_path / "t.parquet", id=range(300), text=["猫"] * 300)
    source = open_source(path, BulkSettings(kind="text"))
    assert [len(table) for table in source.tables()] == [128, 128, 44]


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"id": [1], "picture": [b"x"]}, {}, "has no column 'image'; it has id, picture"),
        ({"id": [0.5], "image": [b"x"]}, {}, "the column 'id' must have texts or whole numbers, got double"),
        ({"id": [1], "image": [7]}, {}, "the column 'image' must have encoded images, structs with `bytes`, or paths"),
        ({"id": [1], "text": [b"x"]}, {"kind": "text"}, "the column 'text' must have texts, got binary"),
        ({"id": [1], "image": [b"x"], "boxes": ["1,2"]}, {"kind": "region"}, "'boxes' must have lists of"),
        ({"id": [1], "image": ["a.png"]}, {}, "the column 'image' has paths: give the folder that they start from"),
        ({"id": [1, None], "image": [b"x", b"y"]}, {}, "row 1 has no 'id'; each row needs an id"),
        ({"id": ["a", "b", "a"], "image": [b""] * 3}, {}, "id='a' is in more than one row; ids must be unique"),
        ({"id": [1, 1, 2, 2], "image": [b""] * 4}, {}, "id=1 is in more than one row \\(2 such ids\\)"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, columns, settings, message):
    path = write_table(tmp_path / "t.parquet", **columns)
    with pytest.raises(ValueError, match=message):
        open_source(path, BulkSettings(**settings))


def test_structs_of_datasets_and_large_types_fit(tmp_path):
    ids = pyarrow.array(["a"], pyarrow.large_string())
    path = write_table(tmp_path / "t.parquet", id=ids, image=[{"bytes": b"x", "path": None}])
    assert rows_of(path) == [{"id": "a", "image": {"bytes": b"x", "path": None}}]


def test_a_file_that_is_no_table_is_named(tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match=r"t\.parquet has a file that is not Parquet, or is damaged"):
        open_source(str(tmp_path / "t.parquet"), BulkSettings())


def test_samples_of_shards(tmp_path):
    members = {"0/猫.png": b"cat", "0/猫.json": boxes_json([0, 0, 9, 9]), "1.txt": b"alone", "1.json": b"[]"}
    write_shard(tmp_path / "0.tar", members)
    write_shard(tmp_path / "1.tar", {"0/猫.png": b"another", "0/猫.json": b"[1]"})
    first, second, third = rows_of(tmp_path, kind="region")
    assert first == {"id": "0.tar/0/猫", "image": b"cat", "boxes": [[0, 0, 9, 9]], PROBLEM: None}
    assert (second["id"], second[PROBLEM]) == ("0.tar/1", "a sample must have one image, got 0 in .txt, .json")
    assert third[PROBLEM] == "the .json must have `boxes`, a list of (x1, y1, x2, y2), got [1]"
    texts = rows_of(tmp_path / "0.tar", kind="text")
    assert [(row["id"], row["text"]) for row in texts] == [("0.tar/0/猫", None), ("0.tar/1", "alone")]


def test_what_is_behind_a_break_in_a_shard_is_one_row(tmp_path):
    path = Path(write_shard(tmp_path / "s.tar", {f"{number}.png": bytes(600) for number in range(3)}))
    path.write_bytes(path.read_bytes()[: 2 * (512 + 1024) + 100])  # within the header of the third member
    *whole, last = rows_of(path)
    assert [row["id"] for row in whole] == ["s.tar/0"]
    assert last["id"] == "s.tar"
    assert "cut off" in last[PROBLEM]


def test_a_key_that_comes_again_is_a_break(tmp_path):
    members = {"0.png": b"cat", "1.png": b"dog", "0.txt": b"a cat", "2.png": b"bird"}
    *whole, last = rows_of(write_shard(tmp_path / "s.tar", members))
    assert [(row["id"], row["image"]) for row in whole] == [("s.tar/0", b"cat"), ("s.tar/1", b"dog")]
    assert last["id"] == "s.tar"
    assert "holding the members of key '0' apart" in last[PROBLEM]


def test_members_that_are_too_long_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "MAX_RECORD_BYTES", 8)
    monkeypatch.setattr(sources, "MAX_MEMBER_BYTES", 4)
    path = write_shard(
        tmp_path / "s.tar", {"0.txt": b"long text", "1.png": b"image", "2.png": b"cat", "2.json": b"[] " * 3}
    )
    assert [row[PROBLEM] for row in rows_of(path, kind="region")] == [
        "a sample must have one image, got 0 in .txt",
        "the image has 5 bytes, more than 4",
        "the .json has 9 bytes, more than 8",
    ]
    assert rows_of(path, kind="text")[0][PROBLEM] == "the .txt has 9 bytes, more than 8"


def test_boxes_of_no_size_that_floats_have_are_told_of(tmp_path):
    path = write_shard(tmp_path / "s.tar", {"0.png": b"cat", "0.json": b"[[0, 0, 1" + b"0" * 400 + b", 1]]"})
    (row,) = rows_of(path, kind="region")
    assert row[PROBLEM].startswith("the boxes must be numbers, got [[0, 0, 1000")


@pytest.mark.parametrize("name", ["t.parquet", "s.tar"])
def test_tables_and_shards_behind_links_out_of_the_folder_are_refused(tmp_path, name):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret").touch()
    (folder / f"link.{name}").symlink_to(tmp_path / "secret")
    with pytest.raises(ValueError, match=rf"has none of these \(link\.{name} is not used, a link to a file outside"):
        open_source(str(folder), BulkSettings())
    (folder / name).touch()
    (folder / "picture.png").symlink_to(tmp_path / "secret")  # would not be read anyway
    with pytest.raises(
        ValueError, match=rf"link\.{name} can't be used, a link to a file outside the folder: remove it"
    ):
        open_source(str(folder), BulkSettings())


def test_a_folder_of_images_and_links_out_of_it(tmp_path):
    folder = tmp_path / "in"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "猫.png").touch()
    (folder / "a.jpg").touch()
    (tmp_path / "secret.png").touch()
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    link, *rows = rows_of(folder)
    assert link == {"id": "link.png", "image": None, PROBLEM: link[PROBLEM]}
    assert link[PROBLEM] == "a link to a file outside the folder"
    assert [row["image"] for row in rows] == ["a.jpg", "b/猫.png"]
    with pytest.raises(ValueError, match="is a folder of images, of which there are no texts"):
        open_source(str(folder), BulkSettings(kind="text"))
    with pytest.raises(ValueError, match="is no table: leave out the names of columns"):
        open_source(str(folder), BulkSettings(image_column="picture"))


def test_places_that_hold_nothing_of_use(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such folder or file"):
        open_source(str(tmp_path / "nowhere"), BulkSettings())
    with pytest.raises(ValueError, match=r"has none of these: give a \.parquet file"):
        open_source(str(tmp_path), BulkSettings())
    (tmp_path / "a.png").touch()
    (tmp_path / "b.tar").touch()
    with pytest.raises(ValueError, match=r"has \.tar and images: give"):
        open_source(str(tmp_path), BulkSettings())
    with pytest.raises(ValueError, match=r"nosuch://x can't be opened: Protocol not known"):
        open_source("nosuch://x", BulkSettings())


def test_addresses(tmp_path):
    table = write_table(tmp_path / "t.parquet", id=[1], text=["a"])
    shard = write_shard(tmp_path / "s.tar", {"0.png": b"cat"})
    memory = fsspec.filesystem("memory")
    memory.put(table, "/of_tests/tables/t.parquet")
    memory.put(shard, "/of_tests/shards/s.tar")
    memory.pipe("/of_tests/images/a/b.png", b"dog")
    assert rows_of("memory://of_tests/tables", kind="text") == [{"id": 1, "text": "a"}]
    assert [row["image"] for row in rows_of("memory://of_tests/shards")] == [b"cat"]
    assert [row["id"] for row in rows_of("memory://of_tests/images")] == ["a/b.png"]
