"""docs/queries.md runs from its top and prints what it says."""

import pytest

from .documents import ROOT, run_document


@pytest.mark.slow
def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = run_document(ROOT / "docs" / "queries.md")
    assert variables["videos"].video_count == 1
    pages = [(tmp_path / name).read_text(encoding="utf-8") for name in ("hits.html", "duplicates.html")]
    assert [page.count("<img ") for page in pages] == [8, 2]
