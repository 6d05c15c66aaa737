"""JSON in UTF-8, and writing that is whole or not at all."""

import errno
import os
from pathlib import Path

import pytest
from PIL import Image

from fgclip2.files import (
    IMAGE_SUFFIXES,
    UTF8_BOM,
    check_writable,
    decode_json,
    new_folder,
    printable,
    read_json,
    replacing,
)
from fgclip2.modeling.inputs import IMAGE_FORMATS


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("旅行/长城 – Größe.png", "旅行/长城 – Größe.png"),
        ("👨‍👩‍👧.png", "👨‍👩‍👧.png"),
        ("a\nfgclip2: done\r.png", r"a\nfgclip2: done\r.png"),
        ("\x1b[31m狗\x9b.png", r"\x1b[31m狗\x9b.png"),
        ("狗\u202egnp.exe\u2069", r"狗\u202egnp.exe\u2069"),
        ("a\u2028b\u200f", r"a\u2028b\u200f"),
        ("\udcff.png", r"\udcff.png"),
        (Path("照片"), "照片"),
    ],
)
def test_names_are_shown_on_one_line_in_their_own_direction(name, shown):
    assert printable(name) == shown


def test_json_is_read_with_and_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "a.json"
    for content in ('{"狗": [1]}'.encode(), UTF8_BOM + '{"狗": [1]}'.encode()):
        path.write_bytes(content)
        assert decode_json(content) == read_json(path) == read_json(str(path)) == {"狗": [1]}


@pytest.mark.parametrize(
    "content", [b"{", b"", '"狗"'.encode("gb18030"), '"狗"'.encode("utf-16"), b"[" * 10**5], ids=len
)
def test_what_is_not_json_in_utf8_is_named(tmp_path, content):
    (tmp_path / "坏.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"坏\.json is not JSON in UTF-8"):
        read_json(tmp_path / "坏.json")


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_a_file_is_replaced_when_it_is_whole(tmp_path):
    path = tmp_path / "文.txt"
    path.write_text("old")
    with replacing(path) as unfinished:
        assert unfinished.parent == tmp_path
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["文.txt"]


def test_after_an_error_the_old_file_is_left_and_nothing_else(tmp_path):
    def interrupted(path):
        with replacing(path) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_named_by_the_file_that_was_to_be_written(tmp_path):
    def full(path):
        with replacing(path):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'"):
        full(tmp_path / "a.txt")


def test_two_writers_at_once_do_not_share_a_name(tmp_path):
    with replacing(tmp_path / "a.txt") as first, replacing(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.txt").read_text() == "first"  # the outer one ended last


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_takes_its_name_when_it_is_whole(tmp_path, exists):
    folder = tmp_path / "deep" / "集"
    if exists:
        folder.mkdir(parents=True)
    with new_folder(folder) as staging:
        (staging / "a.txt").write_text("a")
        assert not folder.exists() or not any(folder.iterdir())
    assert [path.name for path in folder.iterdir()] == ["a.txt"]
    assert [path.name for path in folder.parent.iterdir()] == ["集"]


def test_after_an_error_nothing_is_left_of_a_folder(tmp_path):
    def interrupted(folder):
        with new_folder(folder) as staging:
            (staging / "a.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "a")
    assert not any(tmp_path.iterdir())


@pytest.fixture
def events(monkeypatch) -> list[str]:
    """The names of what is flushed to the disk, and of what is renamed, in turn."""
    events, fsync, replace = [], os.fsync, Path.replace

    def noted_fsync(handle):
        events.append("flush " + Path(f"/proc/self/fd/{handle}").resolve().name.split(".")[-1])
        fsync(handle)

    def noted_replace(self, target):
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    return events


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files have their names in /proc only on Linux")
def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, events):
    folder = tmp_path / "folder"
    folder.mkdir()
    with replacing(folder / "a.json") as unfinished:
        unfinished.write_text("{}")
    assert events == ["flush partial", "rename", "flush folder"]
    events.clear()
    with new_folder(folder / "new") as staging:
        (staging / "a.json").write_text("{}")
    assert events == ["flush json", "flush partial", "rename", "flush folder"]


def test_a_file_that_another_process_holds_for_a_moment_is_replaced_after_it(tmp_path, monkeypatch):
    refusals, replace = iter([PermissionError(13, "in use"), PermissionError(13, "in use")]), Path.replace

    def refused_at_first(self, target):
        for error in refusals:
            raise error
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refused_at_first)
    with replacing(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_folder_with_something_in_it_is_kept(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kept").write_text("")
    for taken in (tmp_path / "a", tmp_path / "a" / "kept"):
        with pytest.raises(ValueError, match="exists and is not an empty folder: choose a new name"), new_folder(taken):
            pass
    assert (tmp_path / "a" / "kept").is_file()


def test_a_folder_is_tried_before_the_work_and_nothing_is_left(tmp_path):
    check_writable(tmp_path / "deep" / "集")
    check_writable(tmp_path)
    assert not any(tmp_path.iterdir())
    (tmp_path / "a.txt").write_text("a")
    for taken in (tmp_path / "a.txt", tmp_path / "a.txt" / "b"):
        with pytest.raises(NotADirectoryError) as caught:
            check_writable(taken)
        assert caught.value.filename == str(taken)


def test_every_suffix_of_images_is_of_a_promised_format():
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in IMAGE_FORMATS}
    assert known | {".heic", ".heif"} >= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)
