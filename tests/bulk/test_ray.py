"""Bulk runs by Ray Data, where `make ray` has put it: killed and started again, and each kind of input."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from fgclip2.bulk import BulkSettings, embed_in_bulk
from fgclip2.bulk.ray_data import PATIENCE, devices_of_cluster, ray_running

from .conftest import boxes_json, picture, write_shard, write_table
from .runs import (
    BROKEN,
    PACKAGES,
    assert_each_row_is_there_once,
    descendants,
    files_of,
    kill,
    start,
    wait_for_first_file,
    write_rows,
)

ROWS = 300

pytestmark = pytest.mark.slow
if find_spec("ray") is None:
    if "FGCLIP2_RAY" in os.environ:
        raise ImportError("ray is not installed: `make ray` has it")
    pytest.skip("ray is not installed: `make ray` has it", allow_module_level=True)


@pytest.fixture(scope="module")
def ray():
    """Ray, connected to a cluster of one node by its address."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**PATIENCE, "PYTHONPATH": PACKAGES, "RAY_AUTH_MODE": "disabled"}.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster  # which reads the environment

        node = {"num_cpus": 6, "object_store_memory": 900 << 20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        with ray_running(cluster.address, cpus=0, object_store_bytes=0) as module:
            yield module
        cluster.shutdown()


def rows_of(folder: Path) -> list[dict]:
    return sorted(pyarrow.parquet.read_table(folder).to_pylist(), key=lambda row: row["id"])


def test_each_row_is_there_once_though_an_actor_and_the_run_are_killed(tmp_path):
    table, output = write_rows(tmp_path / "in.parquet", ROWS), tmp_path / "out"
    arguments = (table, "--engine", "ray", "--output", output, "--workers", "2", "--cpus-per-worker", "1")
    arguments = (
        *arguments,
        "--rows-per-file",
        "20",
        "--max-patches",
        "400",
        "--device",
        "cpu",
        "--object-store",
        "900",
    )
    run = start(*arguments)
    wait_for_first_file(run, output)
    processes = descendants(run.pid)
    dashboards = [command for command in processes.values() if "dashboard/dashboard.py" in command]
    assert all("--disable-frontend" in command for command in dashboards)  # Ray starts the rest of it all the same
    raylet = next(pid for pid, command in processes.items() if "raylet/raylet " in command)
    assert "RAY_USAGE_STATS_ENABLED=0" in Path(f"/proc/{raylet}/environ").read_text().split("\0")
    kill(next(pid for pid, name in processes.items() if "MapWorker" in name))
    wait_for_first_file(run, output)  # the run goes on without it
    processes = descendants(run.pid)
    run.kill()
    run.communicate()
    for pid in processes:  # they would end soon, and not be there for long
        kill(pid)
    assert 0 < len(files_of(output)) < ROWS // 20

    again = start(*arguments, "--json")
    printed, _ = again.communicate(timeout=600)
    assert again.returncode == 0, printed
    report = json.loads(printed[printed.index("{\n") :])
    broken = len(range(0, ROWS, BROKEN))
    assert (report["vectors"], report["errors"]) == (ROWS - broken, broken)
    assert 0 < report["new"] < ROWS
    assert_each_row_is_there_once(output, ROWS)


def test_shards_and_their_regions(ray, embedder, tmp_path):
    boxes = [[0.0, 0.0, 20.0, 20.0], [10.0, 5.0, 40.0, 30.0]]
    write_shard(tmp_path / "0.tar", {"a.png": picture(0), "a.json": boxes_json(*boxes)})
    write_shard(tmp_path / "1.tar", {"a.png": picture(1)})
    options = {"engine": "ray", "device": "cpu", "workers": 1, "cpus_per_worker": 1}
    report = embed_in_bulk(str(tmp_path), str(tmp_path / "out"), BulkSettings(kind="region"), **options)
    assert (report.vectors, report.errors, report.new) == (1, 1, 2)
    (row,) = rows_of(tmp_path / "out" / "tables" / "vectors")
    np.testing.assert_allclose(row["embedding"], embedder.encode_regions(picture(0), boxes), atol=1e-5)
    (bad,) = rows_of(tmp_path / "out" / "tables" / "errors")
    assert (bad["id"], bad["error"]) == ("1.tar/a", "a sample must have its boxes in a .json, got .png")


def test_a_folder_of_images_and_more_of_them_later(ray, embedder, tmp_path):
    folder = tmp_path / "照片"
    folder.mkdir()
    (folder / "猫.png").write_bytes(picture(0))
    options = {"engine": "ray", "device": "cpu", "workers": 1, "cpus_per_worker": 1}
    embed_in_bulk(str(folder), str(tmp_path / "out"), BulkSettings(), **options)
    (folder / "狗.png").write_bytes(picture(1))
    report = embed_in_bulk(str(folder), str(tmp_path / "out"), BulkSettings(), **options)
    assert (report.vectors, report.new) == (2, 1)
    found = [row["embedding"] for row in rows_of(tmp_path / "out" / "tables" / "vectors")]
    np.testing.assert_allclose(found, embedder.encode_images([folder / "狗.png", folder / "猫.png"]), atol=1e-5)


def test_a_cluster_that_is_too_small_is_told_before_it_hangs(ray):
    assert devices_of_cluster(ray, None, None, 1) == ["cpu", "cpu"]
    with pytest.raises(ValueError, match="the cluster has 6 CPUs and 0 GPUs, enough for 2 workers with 1 CPUs each"):
        devices_of_cluster(ray, "cpu", 3, 1)
    with pytest.raises(ValueError, match="enough for 0 workers with a GPU each"):
        devices_of_cluster(ray, "cuda", None, 1)
    with pytest.raises(ValueError, match="device must be None, 'cpu' or 'cuda', got 'cuda:0'"):
        devices_of_cluster(ray, "cuda:0", None, 1)


def test_an_output_of_the_other_engine_is_refused(ray, tmp_path):
    table = write_table(tmp_path / "t.parquet", id=[1], text=["猫"])
    options = {"device": "cpu", "workers": 1, "cpus_per_worker": 1}
    embed_in_bulk(table, str(tmp_path / "out"), BulkSettings(kind="text"), engine="ray", **options)
    with pytest.raises(ValueError, match="was begun with engine='ray', and engine='local' is asked for"):
        embed_in_bulk(table, str(tmp_path / "out"), BulkSettings(kind="text"), engine="local", **options)
