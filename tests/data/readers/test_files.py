"""Where records are in files: every kind of file, whole and broken, in pieces of any size."""

import json
import logging
from functools import partial

import pytest

from fgclip2.data.readers import files, read_finehard, read_pairs
from fgclip2.data.readers.finehard import FineHARDParser
from fgclip2.data.readers.record_index import Span, make_index
from fgclip2.data.records import InvalidRecordError, open_record_image
from fgclip2.errors import UnreadableImageError
from tests.data.samples import item, items, write_images, write_json, write_lines


@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"ensure_ascii": True}, {"separators": (",", ":")}])
@pytest.mark.parametrize("block", [1, 7, 64, 2**20])
def test_list_items_are_found_whatever_the_layout_and_the_block(tmp_path, images, monkeypatch, options, block):
    monkeypatch.setattr(files, "_BLOCK_BYTES", block)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(items(4), **{"ensure_ascii": False, **options}), encoding="utf-8")
    dataset = read_finehard(path, images)
    assert [record.short_caption for record in dataset] == [row["short_caption"] for row in items(4)]
    assert [dataset.source(index) for index in range(4)] == [f"{path}:{number}" for number in (1, 2, 3, 4)]
    assert dataset.languages.tolist() == [0, 1, 0, 1]


def test_access_does_not_depend_on_the_order(tmp_path, images):
    dataset = read_finehard(write_json(tmp_path / "a.json", items(4)), images)
    forwards = [dataset[index] for index in range(4)]
    assert [dataset[index] for index in (3, 1, 0, 2)] == [forwards[index] for index in (3, 1, 0, 2)]


def test_lines_of_one_list_are_no_json_lines(tmp_path, images):
    """Told by content, for suffixes mislead."""
    rows = [json.dumps(row, ensure_ascii=False) for row in items(2)]
    listed = tmp_path / "a.jsonl"
    listed.write_text(f"[{rows[0]},\n{rows[1]}]", encoding="utf-8")
    lines = write_lines(tmp_path / "b.json", rows)
    assert list(map(vars, read_finehard(listed, images))) == [
        {**vars(record), "source": f"{listed}:{number}"}
        for number, record in enumerate(read_finehard(lines, images), start=1)
    ]


def test_records_far_into_a_file_are_read_without_the_rest(tmp_path, images):
    """At an offset that 32 bits don't hold: the file is sparse, and not read in between."""
    path = tmp_path / "a.jsonl"
    row = json.dumps(item("zh"), ensure_ascii=False).encode()
    with path.open("wb") as file:
        file.seek(5 * 2**30)
        file.write(row)
    parser = FineHARDParser(images)
    span = Span(5 * 2**30, len(row), 3, json.loads(row))
    index = make_index([span], partial(files.FileRecords.records_in, parser))
    dataset = files.FileRecords(path, files.decode_json, parser, index)
    assert dataset[0].short_caption == "苹果和香蕉"
    assert dataset.source(0) == f"{path}:3"


def test_little_is_kept_per_record(tmp_path, images):
    dataset = read_finehard(write_lines(tmp_path / "a.jsonl", items(200)), images)
    kept = sum(array.nbytes for array in vars(dataset._index).values() if hasattr(array, "nbytes"))
    assert kept / len(dataset) <= 26


def test_broken_lines_are_met_on_access(tmp_path, images, caplog):
    rows = [item(), '{"f_path": ', "", item("zh"), b'{"f_path": "\xc4\xe3.png"}', "[" * 100_000, "null", item()]
    path = write_lines(tmp_path / "a.jsonl", rows)
    with caplog.at_level(logging.WARNING):
        dataset = read_finehard(path, images)
    assert "4 records are malformed (2, 5, 6, 7)" in caplog.text
    assert len(dataset) == 7  # the blank line is none
    assert [dataset[index].source for index in (0, 2, 6)] == [f"{path}:1", f"{path}:4", f"{path}:8"]
    assert dataset[2].language == "zh"
    with pytest.raises(
        InvalidRecordError,
        match=r"a\.jsonl:2: the record is malformed \(Expecting value.*; it must be well-formed JSON",
    ):
        dataset[1]
    with pytest.raises(InvalidRecordError, match=r"a\.jsonl:5: the record is malformed \('utf-8' codec"):
        dataset[3]
    with pytest.raises(InvalidRecordError, match=r"a\.jsonl:6: the record is malformed"):
        dataset[4]
    with pytest.raises(InvalidRecordError, match=r"a\.jsonl:7: the record is missing; it must be one JSON object"):
        dataset[5]


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("[{0}, {1}", 2),  # cut off between items
        ("[{0}, {1}, ", 2),
        ('[{0}, {1}, {{"f_path": "2.p', 2),
        ("[{0} {1}]", 1),  # no comma
        ("[{0}, {1},]", 2),
        ("[{0}, {1}] {0}", 2),
        ("[{0}, nonsense, {1}]", 1),
        ("[", 0),
    ],
)
def test_broken_lists_give_what_is_before_and_say_the_rest(tmp_path, images, caplog, text, whole):
    rows = [json.dumps(row, ensure_ascii=False) for row in items(2)]
    path = tmp_path / "a.json"
    path.write_text(text.format(*rows), encoding="utf-8")
    dataset = read_finehard(path, images)
    assert "broken at item" in caplog.text
    assert len(dataset) == whole + 1
    assert [dataset[index].short_caption for index in range(whole)] == [
        row["short_caption"] for row in items(2)[:whole]
    ]
    with pytest.raises(InvalidRecordError, match=rf"a\.json:{whole + 1}: the list is broken or cut off at byte"):
        dataset[whole]


def test_broken_items_do_not_read_a_whole_file_into_memory(tmp_path, images, monkeypatch):
    monkeypatch.setattr(files, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(files, "_BLOCK_BYTES", 100)
    path = tmp_path / "a.json"
    path.write_text('[{"f_path": "' + "x" * 100_000 + '"}]', encoding="utf-8")
    dataset = read_finehard(path, images)
    assert len(dataset) == 1
    with pytest.raises(InvalidRecordError, match="broken"):
        dataset[0]


def test_byte_order_marks_and_line_ends_of_windows(tmp_path, images):
    row = json.dumps(item("zh"), ensure_ascii=False).encode()
    for name, content in (
        ("a.jsonl", b"\xef\xbb\xbf" + row + b"\r\n" + row),
        ("a.json", b"\xef\xbb\xbf[\r\n" + row + b",\r\n" + row + b"\r\n]\r\n"),
    ):
        (tmp_path / name).write_bytes(content)
        dataset = read_finehard(tmp_path / name, images)
        assert [record.short_caption for record in dataset] == ["苹果和香蕉"] * 2
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbfimage,caption\r\n0.png,\xe7\x8c\xab\r\n")
    assert read_pairs(tmp_path / "b.csv", images)[0].short_caption == "猫"


def test_files_that_are_no_files_of_records(tmp_path, images):
    with pytest.raises(ValueError, match="no such file or folder"):
        read_finehard(tmp_path / "没有.json", images)
    with pytest.raises(ValueError, match=r"images must hold a file of records \(\.json, \.jsonl"):
        read_finehard(images, images)
    with pytest.raises(ValueError, match=r"0\.png: the suffix must be '\.json', .*, got '\.png'"):
        read_finehard(images / "0.png", images)
    for name, content in (("leer.json", b""), ("列表.json", b"[]"), ("zeilen.jsonl", b"\n\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="must hold at least one record"):
            read_finehard(tmp_path / name, images)
    (tmp_path / "utf16.jsonl").write_bytes(json.dumps(item()).encode("utf-16"))
    with pytest.raises(ValueError, match="must be UTF-8, and is UTF-16"):
        read_finehard(tmp_path / "utf16.jsonl", images)


def test_folders_are_read_in_the_order_of_names(tmp_path, images):
    folder = tmp_path / "jsonfiles"
    folder.mkdir()
    write_json(folder / "b.json", [item(short_caption="third")])
    write_lines(folder / "a.jsonl", [item(short_caption="first"), item("zh", short_caption="第二")])
    write_json(folder / ".hidden.json", [item(short_caption="hidden")])
    (folder / "README.md").write_text("no records")
    dataset = read_finehard(folder, images)
    assert [record.short_caption for record in dataset] == ["first", "第二", "third"]


@pytest.mark.parametrize("size", [3000, 200_000])
@pytest.mark.parametrize("block", [1, 100, 2**20])
def test_a_record_that_is_too_long_is_one_bad_record(tmp_path, images, monkeypatch, size, block):
    """In every kind of file, whatever is in its texts; those after it are read."""
    monkeypatch.setattr(files, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(files, "_BLOCK_BYTES", block)
    good, long = item("zh"), item(caption='[{"\\"}] ' * (size // 9))
    rows = [json.dumps(row, ensure_ascii=False) for row in (good, long, good)]
    assert len(rows[0]) < 1000 < len(rows[1])
    listed = tmp_path / "a.json"
    listed.write_text(f"[{', '.join(rows)}]", encoding="utf-8")
    for path in (listed, write_lines(tmp_path / "b.jsonl", rows)):
        dataset = read_finehard(path, images)
        assert [dataset.source(number) for number in range(3)] == [f"{path}:{number}" for number in (1, 2, 3)]
        assert dataset[0].short_caption == dataset[2].short_caption == "苹果和香蕉"
        with pytest.raises(InvalidRecordError, match=r":2: the record is [0-9,]+ bytes long; it must be at most 1,000"):
            dataset[1]
    for name, text in (("c.csv", "x" * size), ("d.csv", f'"{"x" * size}"'), ("e.tsv", "x" * size)):
        separator = "\t" if name == "e.tsv" else ","
        table = f"image{separator}caption\n0.png{separator}猫\n1.png{separator}{text}\n2.png{separator}狗\n"
        (tmp_path / name).write_text(table, encoding="utf-8")
        dataset = read_pairs(tmp_path / name, images)
        assert len(dataset) == 3
        assert (dataset[0].short_caption, dataset[2].short_caption) == ("猫", "狗")
        with pytest.raises(
            InvalidRecordError, match=rf"{name}:3: the record is .* bytes long; it must be at most 1,000"
        ):
            dataset[1]


def test_items_of_a_list_that_can_not_be_decoded_are_passed_over(tmp_path, images):
    good = json.dumps(item("zh"), ensure_ascii=False)
    nested = '{"a": ' + "[" * 200_000 + "]" * 200_000 + "}"
    path = tmp_path / "a.json"
    path.write_text(f'[{good}, {nested}, {{"f_path": nonsense, "b": "}}\\""}}, {good}]', encoding="utf-8")
    dataset = read_finehard(path, images)
    assert len(dataset) == 4
    assert dataset[3].short_caption == "苹果和香蕉"
    with pytest.raises(InvalidRecordError, match=r"a\.json:2: the record is malformed \(.* nested too deeply\)"):
        dataset[1]
    with pytest.raises(InvalidRecordError, match=r"a\.json:3: the record is malformed \(Expecting value"):
        dataset[2]


def test_values_that_are_nested_deeply_can_be_named(tmp_path, images):
    """As deep as a file may hold them, wherever they are met."""
    for depth in (900, 990):
        row = json.dumps({**item(), "caption": 5}).replace("5", "[" * depth + "]" * depth)
        dataset = read_finehard(write_lines(tmp_path / "a.jsonl", [row]), images)
        with pytest.raises(InvalidRecordError, match=r"a\.jsonl:1: (caption is|the record is malformed)"):
            dataset[0]


# -- links ------------------------------------------------------------------------------------------------------------


def test_links_out_of_the_folder_of_images_are_refused(tmp_path, images):
    outside = write_images(tmp_path / "elsewhere", 1)
    (images / "out.png").symlink_to(outside / "0.png")
    (images / "folder").symlink_to(outside)
    (images / "in.png").symlink_to(images / "1.png")
    (images / "loop.png").symlink_to(images / "loop.png")
    paths = ["out.png", "folder/0.png", "in.png", "loop.png"]
    rows = [item("zh", path) for path in paths]
    table = "image,caption\n" + "".join(f"{path},猫\n" for path in paths)
    (tmp_path / "b.csv").write_text(table, encoding="utf-8")
    linked = tmp_path / "link"
    linked.symlink_to(images)
    for read, path in ((read_finehard, write_json(tmp_path / "a.json", rows)), (read_pairs, tmp_path / "b.csv")):
        for folder in (images, linked):  # that the folder itself is a link does no harm
            dataset = read(path, folder)
            for index in (0, 1):
                with pytest.raises(
                    InvalidRecordError, match=r"a link that leads out of its folder; .* set follow_links"
                ):
                    dataset[index]
            assert open_record_image(dataset[2]).size == (8, 6)
            with pytest.raises(UnreadableImageError, match="loop"):
                open_record_image(dataset[3])
        for index in (0, 1, 2):
            assert open_record_image(read(path, images, follow_links=True)[index]).size == (8, 6)


def test_links_out_of_a_folder_of_records_are_refused(tmp_path, images):
    outside = write_json(tmp_path / "outside.json", items(2))
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / "a.json").symlink_to(outside)
    with pytest.raises(ValueError, match=r"a\.json is a link that leads out of .*records: set follow_links"):
        read_finehard(folder, images)
    assert len(read_finehard(folder, images, follow_links=True)) == 2
    assert len(read_finehard(folder / "a.json", images)) == 2  # named by the user
    (folder / "a.json").unlink()
    (folder / "a.json").symlink_to(folder / "a.json")
    with pytest.raises(ValueError, match=r"a\.json must be a file, and is a link that leads nowhere"):
        read_finehard(folder, images)


@pytest.mark.parametrize("path", ["a" * 300 + ".png", "ab/" * 2000 + "0.png", "grit-20m/data-12m/" + "猫" * 2000])
def test_paths_that_no_system_takes_are_errors_of_their_record(tmp_path, images, path):
    rows = [item("zh", path), item("zh", "1.png")]
    dataset = read_finehard(write_lines(tmp_path / "a.jsonl", rows), images)
    with pytest.raises(UnreadableImageError, match=r"a\.jsonl:1: "):
        open_record_image(dataset[0])
    assert open_record_image(dataset[1]).size == (8, 6)
