"""Runs of `fgclip2 embed --engine` in processes of their own, killed on the way, and what their output must hold."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset

from .conftest import picture, write_table

PACKAGES = os.pathsep.join(filter(None, sys.path))
BROKEN = 37  # each row of a number that this divides


def write_rows(path: Path, rows: int) -> str:
    """Write a table of pictures, some of which are broken."""
    pictures = [picture(seed) for seed in range(8)]
    contents = [pictures[row % 8] if row % BROKEN else b"no picture" for row in range(rows)]
    return write_table(path, id=[f"row {row}" for row in range(rows)], image=contents)


def start(*arguments: str | Path) -> subprocess.Popen:
    """Start `fgclip2 embed ARGUMENTS`, with the packages that this process has."""
    command = [sys.executable, "-m", "fgclip2", "embed", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PACKAGES}, text=True, **pipes)


def wait_for_first_file(run: subprocess.Popen, output: Path) -> None:
    """Wait until a run has written a file, and make sure that it is not at its end."""
    before = len(files_of(output))
    while len(files_of(output)) == before:
        assert run.poll() is None, run.communicate()[0]
        time.sleep(0.01)
    assert run.poll() is None, "the run was too fast to be killed"


def files_of(output: Path) -> list[Path]:
    return list((output / "tables" / "vectors").glob("[!.]*.parquet"))


def descendants(pid: int) -> dict[int, str]:
    """Return the processes below one, and their command lines."""
    parents, commands = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            commands[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it has ended meanwhile
            continue
        parents[int(folder.name)] = int(status[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child: commands[child] for child in found - {pid} if child in commands}


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(pid: int) -> None:
    if is_running(pid):
        os.kill(pid, signal.SIGKILL)


def assert_each_row_is_there_once(output: Path, rows: int) -> None:
    """All rows are in one of the two tables, and broken ones in that of errors."""
    tables = {
        name: pyarrow.dataset.dataset(output / "tables" / name, format="parquet").to_table(columns=["id", column])
        for name, column in (("vectors", "embedding"), ("errors", "error"))
    }
    expected = {f"row {row}" for row in range(0, rows, BROKEN)}
    assert sorted(tables["errors"]["id"].to_pylist()) == sorted(expected)
    assert all("of no known image format" in error for error in tables["errors"]["error"].to_pylist())
    assert sorted(tables["vectors"]["id"].to_pylist()) == sorted({f"row {row}" for row in range(rows)} - expected)
    assert tables["vectors"]["embedding"].null_count == 0
