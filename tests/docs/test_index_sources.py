"""docs/index_sources.md runs from its top and prints what it says."""

from .documents import ROOT, run_document


def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = run_document(ROOT / "docs" / "index_sources.md")
    assert variables["index"].columns.keys() == {"id", "path", "width", "height", "camera", "year"}
