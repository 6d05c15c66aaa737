"""The folder that a bulk run writes."""

import re

import pyarrow
import pyarrow.parquet
import pytest

from fgclip2.bulk.output import TABLES, BulkOutput
from fgclip2.bulk.worker import ERRORS, TABLE, VECTORS
from fgclip2.errors import IncompatibleIndexError

FACTS = {"engine": "local", "fingerprint": "f" * 64, "id_column": "id", "max_num_patches": 256}


def rows(*ids: int) -> pyarrow.Table:
    """Results of which odd ids are errors."""
    tables = [ERRORS if row % 2 else VECTORS for row in ids]
    return pyarrow.table({"id": ids, TABLE: tables})


@pytest.mark.parametrize("address", ["{}/out", "memory://of_tests{}/out"])
def test_rows_are_in_one_of_two_tables(tmp_path, address):
    place = address.format(tmp_path)
    output = BulkOutput(place, FACTS)
    with output.locked():
        assert output.check() == (0, 0)
        output.write(rows(0, 1, 2))
        output.write(rows(3))
    again = BulkOutput(place, FACTS)
    assert again.check() == (2, 2)
    assert sorted(again.ids(f"{TABLES}/{ERRORS}").to_pylist()) == [1, 3]


def test_the_tables_are_plain_parquet(tmp_path):
    BulkOutput(str(tmp_path / "out"), FACTS).write(rows(0, 1, 2))
    assert pyarrow.parquet.read_table(tmp_path / "out" / TABLES / VECTORS).to_pydict() == {"id": [0, 2]}


def test_an_id_that_is_there_twice_is_seen(tmp_path):
    output = BulkOutput(str(tmp_path / "out"), FACTS)
    output.write(rows(0, 1))
    output.write(rows(2, 1))
    with pytest.raises(
        RuntimeError, match=r"has 1 ids more than once, e\.g\. 1: did two runs write it at once"
    ) as error:
        output.check()
    files = re.findall(r"tables/errors/\w+\.parquet", str(error.value))
    assert len(files) == 2
    for file in files:
        (tmp_path / "out" / file).unlink()
    assert output.check() == (2, 0)


@pytest.mark.parametrize(("name", "value"), [("fingerprint", "0" * 64), ("max_num_patches", 128), ("engine", "ray")])
def test_an_output_of_something_else_is_refused(tmp_path, name, value):
    BulkOutput(str(tmp_path / "out"), FACTS)
    with pytest.raises(IncompatibleIndexError, match=f"was begun with {name}=.*, and {name}='?{value}'? is asked for"):
        BulkOutput(str(tmp_path / "out"), {**FACTS, name: value})


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(ValueError, match="exists and is no output of a bulk run: give a new folder"):
        BulkOutput(str(tmp_path), FACTS)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_what_a_killed_run_was_writing_is_removed(tmp_path):
    output = BulkOutput(str(tmp_path / "out"), FACTS)
    output.write(rows(0, 1))
    (tmp_path / "out" / TABLES / VECTORS / ".partial-x.parquet").write_bytes(b"PAR1")
    assert output.check() == (1, 1)
    output.remove_partial()
    assert len(list((tmp_path / "out" / TABLES / VECTORS).iterdir())) == 1


def test_a_second_run_is_refused_meanwhile(tmp_path):
    output = BulkOutput(str(tmp_path / "out"), FACTS)
    second = BulkOutput(str(tmp_path / "out"), FACTS)
    refused = pytest.raises(ValueError, match=r"another run writes .*out: wait for its end")
    with output.locked(), refused, second.locked():
        pass
    with second.locked():
        pass
