"""What the processes of a machine share."""

import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fgclip2.distributed import join_on_machine, map_on_machine, rank, ranks_of_machine

from .ranks import run_on_ranks

LENGTHS = (3, 0, 4, 2)


def made_by_ranks(folder: str) -> list:
    """The machine's ranks, the values, whether they are in a file, what this rank has made, and what is left of it."""
    tempfile.tempdir = folder
    made = []

    def make(number: int) -> np.ndarray:
        made.append(number)
        return np.full(LENGTHS[number], 10 * number + rank())

    blocks = [(length, partial(make, number)) for number, length in enumerate(LENGTHS)]
    values = map_on_machine(blocks, np.dtype(np.uint16))
    joined = join_on_machine([np.arange(3), np.arange(2)]).tolist()
    in_file = isinstance(values.base, np.memmap)
    return [ranks_of_machine(), values.tolist(), in_file, made, joined, os.listdir(folder)]  # noqa: PTH208


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_of_a_machine_make_an_array_together(tmp_path, world_size):
    for number, found in enumerate(run_on_ranks(made_by_ranks, world_size, str(tmp_path))):
        ranks, values, in_file, made, joined, left = found
        assert ranks == list(range(world_size))
        of_ranks = [block % world_size for block in range(len(LENGTHS))]
        assert values == [10 * block + of_ranks[block] for block, length in enumerate(LENGTHS) for _ in range(length)]
        assert in_file == (world_size > 1)
        assert made == [block for block in range(len(LENGTHS)) if of_ranks[block] == number]
        assert joined == [0, 1, 2, 0, 1]
        assert left == []


def test_all_know_that_one_could_not_make_its_part(tmp_path):
    assert run_on_ranks(failing, 2, str(tmp_path)) == ["no space", "no space"]
    assert not list(Path(tmp_path).iterdir())


def failing(folder: str) -> str:
    tempfile.tempdir = folder
    try:
        map_on_machine([(1, make_one), (1, make_nothing)], np.dtype(np.uint8))
    except OSError as error:
        return str(error)
    return "made"


def make_one() -> np.ndarray:
    return np.ones(1)


def make_nothing() -> np.ndarray:
    raise OSError("no space")


def test_processes_with_other_temporary_files_are_on_other_machines(tmp_path):
    assert run_on_ranks(of_own_folder, 2, str(tmp_path)) == [[[0], [1, 2]], [[1], [1, 2]]]


def of_own_folder(folder: str) -> list:
    tempfile.tempdir = str(Path(folder) / str(rank()))
    Path(tempfile.tempdir).mkdir()
    values = map_on_machine([(1, make_one), (1, partial(np.full, 1, 2))], np.dtype(np.uint8))
    return [ranks_of_machine(), values.tolist()]
