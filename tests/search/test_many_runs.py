"""Several runs on one folder at a time, killed at any moment: nothing is lost, and no answer is ever wrong."""

import contextlib
import json
import multiprocessing
import os
import random
import sys
import time
import traceback
import warnings
from pathlib import Path

import pytest

from fgclip2.errors import LockedIndexError
from fgclip2.search import ImageIndex, build, store
from tests.interpreters import run_python
from tests.search.fakes import FakeEmbedder, is_map_of

ROOT = Path(__file__).parents[2]

# Forked from the process of the scenario, which has imported everything.
PROCESSES = multiprocessing.get_context("fork")


def check(index: ImageIndex) -> set[str]:
    """Check every vector and dense map; return the names of the files that stay as they are, which begin with 0."""
    for file, (number, size) in zip(index.files, index.vectors, strict=True):
        block, row = index.maps[file]
        assert is_map_of(block.read(row).unpack(), file.path, size)
        assert number == float(Path(file.path).stem)
        # Files are replaced by larger ones only; one may have been between the look at its size and its embedding.
        assert size == file.size or (size > file.size and not file.path.startswith("0"))
    return {file.path for file in index.files if file.path.startswith("0")}


def write(folder: Path) -> None:
    while True:
        with contextlib.suppress(LockedIndexError):
            check(ImageIndex.build(folder, FakeEmbedder(0.001)))


def read(folder: Path) -> None:
    seen: set[str] = set()
    while True:
        found = check(ImageIndex.load(folder))
        assert seen <= found
        seen = found


def work(task, folder: Path, failures: Path) -> None:
    """Do a task until killed; leave the traceback of what went wrong."""
    try:
        warnings.simplefilter("error")  # damaged blocks are warned of
        task(folder)
    except BaseException:
        (failures / str(os.getpid())).write_text(traceback.format_exc())


def put(path: Path, content: bytes) -> None:
    """Write a file as a whole."""
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(content)
    unfinished.rename(path)


def run_and_kill(folder: Path, failures: Path, kills: int, seed: int) -> None:
    """Let two writers and two readers run, kill one after the other, and add, change and remove files meanwhile."""
    chance = random.Random(seed)
    tasks = [write, write, read, read]
    seen: set[str] = set()
    running = []
    try:
        for task in tasks:
            running.append(PROCESSES.Process(target=work, args=(task, folder, failures)))
            running[-1].start()
        for kill in range(kills):
            put(folder / f"0{kill}.png", b"stays")
            changing = folder / f"{1000 + kill % 7}.png"
            if chance.random() < 0.2:
                changing.unlink(missing_ok=True)
            else:
                put(changing, (kill + 1) * b"x")
            time.sleep(chance.uniform(0, 0.06))
            number = chance.randrange(len(tasks))
            running[number].kill()
            running[number].join()
            running[number] = PROCESSES.Process(target=work, args=(tasks[number], folder, failures))
            running[number].start()
            assert [path.read_text() for path in failures.iterdir()] == []
            found = check(ImageIndex.load(folder))
            assert seen <= found  # nothing that has once been saved is lost
            seen = found
    finally:
        for process in running:
            process.kill()
            process.join()


def scenario(folder: Path, failures: Path, kills: int) -> None:
    build.SECONDS_BETWEEN_SAVES, build.SAVING_TAKES_AT_MOST = 0, 1
    store.ROWS_PER_BLOCK, store.BYTES_PER_BLOCK = 8, 500
    store.SECONDS_FOR_READERS, store.SECONDS_TO_WAIT_FOR_LOCK = 0.2, 0.05
    (folder / "00.png").write_bytes(b"stays")
    ImageIndex.build(folder, FakeEmbedder(), dense="int8")
    run_and_kill(folder, failures, kills, seed=kills)
    assert [path.read_text() for path in failures.iterdir()] == []

    index = ImageIndex.build(folder, FakeEmbedder())
    assert check(index) == {f"0{kill}.png" for kill in range(kills)}
    assert {file.path: file.size for file in index.files} == {p.name: p.stat().st_size for p in folder.glob("*.png")}
    assert index.unusable == []
    (folder / "2000.png").write_bytes(b"x")
    time.sleep(0.2)
    ImageIndex.build(folder, FakeEmbedder())
    manifest = json.loads((folder / ".fgclip2_index" / "manifest.json").read_text())
    named = [*manifest["blocks"], *manifest["dense"]["blocks"]]
    blocks = {*(block["name"] for block in named), *manifest["retired"]}
    left = {path.name for path in (folder / ".fgclip2_index").iterdir()} - {"lock"}
    assert left == {"manifest.json", "lock_owner.json", *blocks}  # what the killed have left behind is gone


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_nothing_is_lost_and_no_answer_is_wrong(tmp_path, kills):
    """In an interpreter of its own: forks of one that has run other tests have what those left there."""
    folder, failures = tmp_path / "照片", tmp_path / "failures"
    folder.mkdir()
    failures.mkdir()
    done = run_python("-m", __name__, folder, failures, str(kills), cwd=ROOT)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    scenario(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
