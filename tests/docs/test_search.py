"""docs/search.md runs from its top and prints what it says."""

from pathlib import Path

from .documents import ROOT, run_document


def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_document(ROOT / "docs" / "search.md")
    assert {path.name for path in Path("for_usearch").iterdir()} == {"images.usearch", "images.jsonl"}
