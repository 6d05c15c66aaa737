"""Indexes of records that are kept: made once, used while the file is as it was, and never wrong."""

import json
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from fgclip2.data.readers import record_index, scanning
from fgclip2.data.readers.finehard import read_finehard

from ..samples import items, write_lines


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Indexes are kept for sources of any size, in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "缓存"))
    monkeypatch.setattr(record_index, "LARGE_SOURCE", 1)
    return tmp_path / "缓存" / "fgclip2" / "records"


@pytest.fixture
def scanned(monkeypatch):
    """Names of the files that were scanned in this process."""
    names, make = [], record_index.make_index

    def counted(spans, records_in):
        names.append(1)
        return make(spans, records_in)

    monkeypatch.setattr(scanning, "make_index", counted)
    return names


def test_an_index_is_made_once(tmp_path, images, cache, scanned):
    path = write_lines(tmp_path / "记录.jsonl", items(20))
    first, second = read_finehard(path, images), read_finehard(path, images)
    assert len(scanned) == 1
    assert [vars(record) for record in second] == [vars(record) for record in first]
    np.testing.assert_array_equal(second.languages, [0, 1] * 10)
    assert isinstance(second.languages, np.memmap)
    assert [entry.suffix for entry in cache.iterdir()].count(".partial") == 0

    write_lines(path, items(30))
    assert len(read_finehard(path, images)) == 30
    assert len(scanned) == 2
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # of the same size
    assert len(read_finehard(path, images)) == 30
    assert len(scanned) == 3
    earlier = [entry for entry in cache.iterdir() if entry.is_dir()]
    assert len(earlier) == 3  # of which other runs may still use those of earlier states
    for entry in earlier:
        os.utime(entry, (0, 0))
    write_lines(path, items(40))
    assert len(read_finehard(path, images)) == 40
    assert len(scanned) == 4
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 1

    assert read_finehard(path, images, language="zh").languages.all()  # which languages depend on
    assert len(scanned) == 5


def test_a_damaged_index_is_made_anew(tmp_path, images, cache, scanned, caplog):
    path = write_lines(tmp_path / "a.jsonl", items(20))
    read_finehard(path, images)
    (folder,) = (entry for entry in cache.iterdir() if entry.is_dir())
    for damage in (
        lambda: (folder / "starts.npy").write_bytes(b"\x93NUMPY"),
        lambda: np.save(folder / "lengths.npy", np.zeros(3, np.uint32)),
        lambda: (folder / "numbers.npy").unlink(),
        lambda: (folder / "index.json").write_text("[]"),
    ):
        scanned.clear()
        caplog.clear()
        damage()
        assert read_finehard(path, images)[19].short_caption
        assert len(scanned) == 1
        assert "is damaged, and made anew" in caplog.text


def test_malformed_records_are_named_by_a_kept_index_too(tmp_path, images, cache, caplog):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(items(1)[0]) + "\n" + "{\n" * 7, encoding="utf-8")
    for _ in range(2):
        caplog.clear()
        records = read_finehard(path, images)
        assert "7 records are malformed (2, 3, 4, 5, 6, …)" in caplog.text
        with pytest.raises(ValueError, match=r"a\.jsonl:2"):
            records[1]


def test_without_a_place_to_keep_it_the_file_is_scanned(tmp_path, images, monkeypatch, caplog):
    path = write_lines(tmp_path / "a.jsonl", items(4))
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(record_index, "LARGE_SOURCE", 1)
    assert len(read_finehard(path, images)) == 4
    assert "no index can be kept" in caplog.text


def test_small_files_leave_nothing_behind(tmp_path, images, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    read_finehard(write_lines(tmp_path / "a.jsonl", items(4)), images)
    assert not (tmp_path / "cache").exists()


def test_workers_map_the_index_and_do_not_copy_it(tmp_path, images, cache):
    path = write_lines(tmp_path / "a.jsonl", items(2000))
    read_finehard(path, images)
    records = read_finehard(path, images)
    pickled = pickle.dumps(records)
    assert len(pickled) < 2000
    again = pickle.loads(pickled)
    assert isinstance(again.languages, np.memmap)
    assert vars(again[1999]) == vars(records[1999])


def test_many_files_are_scanned_by_all_cores(tmp_path, images, cache, scanned, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(record_index, "available_cores", lambda: 2)
    monkeypatch.setattr(scanning, "PIECE_BYTES", 2000)
    monkeypatch.setattr(scanning, "BYTES_PER_PROCESS", 1)
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(3):
        write_lines(folder / f"{number}.jsonl", items(5 + number))
    records = read_finehard(folder, images)
    assert len(records) == 18
    assert scanned == []  # by other processes
    assert "found the records of 3 files" in caplog.text
    numbers = [f"{file}.jsonl:{line + 1}" for file in range(3) for line in range(5 + file)]
    assert [record.source.rpartition("/")[2] for record in records] == numbers


def test_only_files_that_have_changed_are_scanned(tmp_path, images, cache, scanned, monkeypatch):
    """All files of a source have one index."""
    monkeypatch.setattr(record_index, "LARGE_SOURCE", 10_000)  # none of the files is as large
    monkeypatch.setattr(record_index, "available_cores", lambda: 1)
    folder = tmp_path / "记录"
    folder.mkdir()
    for number in range(4):
        write_lines(folder / f"{number}.jsonl", [*items(3), "{", *items(3)])
    first = read_finehard(folder, images)
    assert len(scanned) == 4
    write_lines(folder / "2.jsonl", items(9))
    write_lines(folder / "25.jsonl", items(2))
    (folder / "0.jsonl").unlink()
    second = read_finehard(folder, images)
    assert len(scanned) == 6
    assert len([entry for entry in cache.iterdir() if entry.is_dir()]) == 2  # one of each state
    third = pickle.loads(pickle.dumps(read_finehard(folder, images)))
    assert len(scanned) == 6
    for records in (second, third):
        assert records.languages.tolist() == [0, 1, 0, 0, 0, 1, 0] + [0, 1] * 4 + [0, 0, 1] + [0, 1, 0, 0, 0, 1, 0]
        numbers = [(1, 7), (2, 9), (25, 2), (3, 7)]
        assert [records.source(index).rpartition("/")[2] for index in range(25)] == [
            f"{file}.jsonl:{line + 1}" for file, count in numbers for line in range(count)
        ]
        assert vars(records[24]) == {**vars(first[27]), "source": records.source(24)}


@pytest.mark.slow
def test_a_script_without_a_guard_is_read_all_the_same(tmp_path, images):
    """The processes that it starts would run it from its beginning, and wait for the one that waits for them."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(2):
        write_lines(folder / f"{number}.jsonl", items(5))
    script = tmp_path / "script.py"
    script.write_text(
        "import logging; logging.basicConfig()\n"
        "from fgclip2.data.readers import read_finehard, record_index, scanning\n"
        "record_index.LARGE_SOURCE = scanning.BYTES_PER_PROCESS = 1\n"
        "record_index.available_cores = lambda: 2\n"
        f"print(len(read_finehard({str(folder)!r}, {str(images)!r})), 'records')\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=400)
    assert done.stdout == "10 records\n", done.stderr
    assert 'if __name__ == "__main__":' in done.stderr


def _read(path, images, started, barrier):
    record_index.LARGE_SOURCE = 1
    make = scanning.make_index

    def counted(*arguments):
        with started.get_lock():
            started.value += 1
        return make(*arguments)

    scanning.make_index = counted
    barrier.wait()
    assert len(read_finehard(path, images)) == 50


def test_processes_that_start_together_scan_once(tmp_path, images, cache):
    path = write_lines(tmp_path / "a.jsonl", items(50))
    context = multiprocessing.get_context("fork")
    started, barrier = context.Value("i", 0), context.Barrier(3)
    processes = [context.Process(target=_read, args=(path, images, started, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert started.value == 1


def test_image_sizes_are_kept_with_the_index(tmp_path, images, cache, monkeypatch):
    """Those that items state from the beginning, others once they are written; in a cache of others for one run."""
    path = write_lines(tmp_path / "记录.jsonl", [{**item, "height": 480, "width": 640} for item in items(2)] + items(2))
    wrong = [{"height": "四", "width": 640}, {"height": 0, "width": 640}, {"height": 480, "width": 2**31}, {}]
    write_lines(path, [*map(json.loads, path.read_text(encoding="utf-8").splitlines()), *wrong])
    stated = [[480, 640]] * 2 + [[0, 0]] * 6
    records = read_finehard(path, images)
    assert (records.image_sizes.dtype, records.image_sizes.tolist()) == (np.int32, stated)
    assert records[0].image_size == (480, 640)
    records.image_sizes[7] = 32, 16
    kept = [*stated[:7], [32, 16]]
    assert read_finehard(path, images).image_sizes.tolist() == kept
    assert pickle.loads(pickle.dumps(records)).image_sizes.tolist() == kept
    monkeypatch.setattr(os, "access", lambda *_: False)
    others = read_finehard(path, images)
    others.image_sizes[2] = 1, 1
    monkeypatch.undo()
    monkeypatch.setattr(record_index, "LARGE_SOURCE", 2**20)  # without an index
    assert read_finehard(path, images).image_sizes.tolist() == stated
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "缓存"))
    monkeypatch.setattr(record_index, "LARGE_SOURCE", 1)
    assert read_finehard(path, images).image_sizes.tolist() == kept
