"""docs/bulk.md runs from its top and prints what it says."""

import pytest

from .documents import ROOT, run_document


@pytest.mark.slow
def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = run_document(ROOT / "docs" / "bulk.md")
    assert variables["report"].vectors == len(variables["paths"])
