"""Tutorials, guides and pages that explain run and print what they say; fine_tune.md is run by test_training.py."""

import pytest

from .documents import ROOT, run_document

PAGES = [
    *("embedding", "export", "heads_and_scores", "labels", "transformers"),
    *("tutorials/first_steps", "tutorials/search_photographs"),
]


@pytest.mark.parametrize("page", PAGES)
def test_the_code_runs_and_prints_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_document(ROOT / "docs" / f"{page}.md")
