"""Both READMEs say the same, and their code runs as it stands, from the top, in an empty folder."""

import re

import pytest

from .documents import LINK, ROOT, read, run_command, run_document, run_python, tables

ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README_zh.md"


def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = run_document(ENGLISH)
    assert (tmp_path / "exported" / "model.safetensors").is_file()
    assert (tmp_path / "heat.png").is_file()
    tasks = tables(ENGLISH)[0][1:]
    assert len(tasks) >= 10
    for _, cell in tasks:
        line = cell.strip("`")
        if line.startswith(("fgclip2 serve", "fgclip2 mcp", "fgclip2 app")):
            continue  # they answer until they are told to end: test_serving.py, tests/app
        if "--engine" in line:
            continue  # its processes take half a minute to start: test_bulk.py
        if line.startswith("fgclip2 "):
            run_command(line)
        else:
            run_python(line, "a task in one line", variables)


def test_both_languages_have_the_same_line_for_each_task():
    assert [row[1] for row in tables(ENGLISH)[0][1:]] == [row[1] for row in tables(CHINESE)[0][1:]]


def test_the_picture_is_small():
    assert (ROOT / "docs" / "images" / "demo.webp").stat().st_size < 300_000


def test_the_page_on_pypi_has_no_dead_link():
    """On PyPI nothing relative leads anywhere, so pyproject.toml takes it out of what is shown there."""
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    hook = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    page = "".join(read(ROOT / part["path"]) if "path" in part else part["text"] for part in hook["fragments"])
    for substitution in hook["substitutions"]:
        page = re.sub(substitution["pattern"], substitution["replacement"], page)
    assert [target for target in LINK.findall(page) if not target.startswith("http")] == []
    assert "docs/images" not in page
    assert "fgclip2 search drawings" in page
