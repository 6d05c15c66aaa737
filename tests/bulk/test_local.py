"""Bulk runs on one machine, in processes of their own, that are killed and started again."""

import json
import time
from queue import SimpleQueue
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from fgclip2 import Embedder
from fgclip2.bulk import BulkSettings, local
from fgclip2.bulk.local import choose_devices, run_local
from fgclip2.bulk.output import BulkOutput
from fgclip2.bulk.worker import ERRORS, TABLE, VECTORS

from .conftest import picture
from .runs import (
    assert_each_row_is_there_once,
    descendants,
    files_of,
    is_running,
    kill,
    start,
    wait_for_first_file,
    write_rows,
)

ROWS = 900


def test_workers_take_turns_on_devices(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 9)
    assert choose_devices("cpu", None, 4) == ["cpu", "cpu"]
    assert choose_devices("cpu", None, 16) == ["cpu"]
    assert choose_devices(["cuda:0", "cuda:1"], None, 4) == ["cuda:0", "cuda:1"]
    assert choose_devices(["cuda:0", "cuda:1"], 3, 4) == ["cuda:0", "cuda:1", "cuda:0"]


def test_a_write_that_fails_half_way_doubles_no_id(tmp_path, monkeypatch):
    results = [pyarrow.table({"id": [row, row + 1], TABLE: [VECTORS, ERRORS]}) for row in (0, 2)]
    monkeypatch.setattr(local, "_embedded", lambda source, done, *_: iter(results))
    output = BulkOutput(str(tmp_path / "out"), {"id_column": "id"})
    write = output._write

    def write_to_a_disk_that_fills(path, fill):
        if ERRORS in path:
            raise OSError(28, "No space left on device")
        write(path, fill)

    arguments = (SimpleNamespace(count=4), output, BulkSettings(), "", ["cpu"], 1, 4, False)
    monkeypatch.setattr(output, "_write", write_to_a_disk_that_fills)
    with pytest.raises(OSError, match="No space left"):
        run_local(*arguments)
    monkeypatch.undo()
    assert output.check() == (2, 0)


def test_the_error_of_a_worker_that_cannot_start_is_raised(monkeypatch):
    def fail(*_):
        raise RuntimeError("invalid device ordinal")

    monkeypatch.setattr(local, "Worker", fail)
    monkeypatch.setattr(local, "_worker", None, raising=False)
    monkeypatch.setattr(local, "end_with_parent", lambda: None)  # this process is to stay
    devices = SimpleQueue()
    devices.put("cuda:9")
    local._start(BulkSettings(), "", 1, devices)
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        local._embed(None)


@pytest.mark.slow
def test_each_row_is_there_once_though_workers_and_runs_are_killed(tmp_path):
    table, output = write_rows(tmp_path / "in.parquet", ROWS), tmp_path / "out"
    arguments = (table, "--engine", "local", "--output", output, "--workers", "2", "--cpus-per-worker", "1")
    arguments = (*arguments, "--rows-per-file", "32", "--device", "cpu")

    run = start(*arguments)
    wait_for_first_file(run, output)
    worker = next(pid for pid, command in descendants(run.pid).items() if "spawn_main" in command)
    kill(worker)
    printed, _ = run.communicate(timeout=300)
    assert run.returncode == 1, printed
    assert f"a worker was killed, perhaps for want of memory: what is done stays in {output}" in printed

    run = start(*arguments)
    wait_for_first_file(run, output)
    workers = descendants(run.pid)
    run.kill()
    run.communicate()
    assert 0 < sum(pyarrow.parquet.read_metadata(path).num_rows for path in files_of(output)) < ROWS - ROWS // 37 - 1
    deadline = time.monotonic() + 60
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline, "workers outlive their run"
        time.sleep(0.1)

    run = start(*arguments, "--json")
    printed, _ = run.communicate(timeout=300)
    report = json.loads(printed[printed.index("{") :])
    assert (report["vectors"], report["errors"]) == (875, 25)
    assert 0 < report["new"] < ROWS
    assert_each_row_is_there_once(output, ROWS)
    rows = pyarrow.parquet.read_table(output / "tables" / "vectors", filters=[("id", "in", ["row 1", "row 9"])])[
        "embedding"
    ]
    expected = Embedder.from_pretrained(device="cpu").encode_images(picture(1))  # of both rows
    np.testing.assert_allclose(rows.to_pylist(), [expected, expected], atol=1e-5)
