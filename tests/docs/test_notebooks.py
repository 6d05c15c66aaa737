"""examples/notebook: the notebooks are those of their pages, are valid, run from the top and print what they say."""

import json

import pytest

from scripts.notebooks import FOLDER, notebook_of

from .documents import assert_same_parts, read, run_python

ENGLISH, CHINESE = FOLDER / "fgclip2.ipynb", FOLDER / "fgclip2_zh.ipynb"


def code_cells(notebook: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(notebook)["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=lambda path: path.stem)
def test_a_notebook_is_that_of_its_page(path):
    """And has no outputs: `python -m scripts.notebooks` writes it anew."""
    assert read(path) == notebook_of(read(path.with_suffix(".md")))


def test_both_languages_have_the_same_parts():
    assert_same_parts(ENGLISH.with_suffix(".md"), CHINESE.with_suffix(".md"))


@pytest.mark.parametrize("path", [ENGLISH, CHINESE], ids=lambda path: path.stem)
def test_notebooks_are_valid(path):
    nbformat = pytest.importorskip("nbformat", reason="`make libraries` has it")
    nbformat.validate(nbformat.read(path, as_version=nbformat.NO_CONVERT))


@pytest.mark.slow
def test_the_cells_run_and_print_what_they_say(tmp_path, monkeypatch):
    """In this process, without a kernel: the only magic is that of the installation, which must not be reached."""
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for number, code in enumerate(code_cells(read(ENGLISH))):
        installation = "%pip install --quiet fgclip2"
        assert (installation in code) == (number == 0)
        run_python(code.replace(installation, f"raise AssertionError({installation!r})"), f"cell {number}", namespace)
    assert len(namespace["hits"]) == 6
    assert namespace["maps"].shape[0] == 2
