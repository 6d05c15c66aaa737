"""Bulk runs on one machine, in processes of their own, that are killed and started again."""

import json
import time

import numpy as np
import pyarrow.parquet
import pytest

from fgclip2 import Embedder
from fgclip2.bulk.local import choose_devices

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
