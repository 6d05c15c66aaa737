"""docs/benchmarks.md and its Chinese equal: names, settings, commands and code are true."""

import dataclasses
import re
import shlex

import pytest
from PIL import Image
from typer.main import get_command

from fgclip2.benchmarks.bundled import BUNDLED
from fgclip2.benchmarks.catalogue import BENCHMARKS
from fgclip2.cli.main import app

from .documents import ROOT, blocks, rows_of_first_cells, run_python, tables

DOCUMENTS = [ROOT / "docs" / name for name in ("benchmarks.md", "benchmarks_zh.md")]
SETTINGS = {field.name for row in (*BENCHMARKS.values(), *BUNDLED) for field in dataclasses.fields(row.paper)}


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.stem)
def document(request):
    return request.param


def test_the_list_of_names_is_of_the_catalogue(document):
    """A row for each kind, and what stands in it is of that kind; a new name may be missing, `bench list` has it."""
    (table,) = (table for table in tables(document) if "`lit-cn`" in str(table))
    kinds = []
    for _, names in table[1:]:
        its_names = re.findall("`([a-z0-9-]+)`", names)  # not the names of files, which have a dot or a slash
        (kind,) = {BENCHMARKS[name].kind for name in its_names}
        kinds.append(kind)
    assert set(kinds) == {row.kind for row in BENCHMARKS.values()}


def test_every_setting_is_there(document):
    text = document.read_text(encoding="utf-8")
    for row in BUNDLED:
        kind = re.fullmatch(r"bundled-(.*?)(-short|-long)?-(en|zh)", row.name)[1]
        assert f"`bundled-{kind}" in text
    assert rows_of_first_cells(document, SETTINGS)


def test_commands_exist_with_their_options(document):
    bench = get_command(app).commands["bench"].commands
    lines = [line for block in blocks(document, "bash") for line in block.splitlines() if "fgclip2 bench" in line]
    assert len(lines) == 6
    for line in lines:
        words = shlex.split(line.partition("#")[0])
        command = bench[words[2]].load()
        options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= options


def test_the_code_runs_and_prints_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, color in (("red", (255, 0, 0)), ("green", (0, 255, 0))):
        (tmp_path / "colors" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16), color).save(tmp_path / "colors" / name / "图.png")
    (code,) = blocks(DOCUMENTS[0], "python")
    assert run_python(code, "benchmarks.md", {}).strip() == code.rpartition("# ")[2].strip()
