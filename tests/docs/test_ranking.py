"""docs/ranking.md runs from its top and prints what it says; its numbers are those of the comparison."""

import json

from .documents import ROOT, run_document, tables

RESULTS = ROOT / "recipes" / "ranking" / "results"


def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = run_document(ROOT / "docs" / "ranking.md")
    assert variables["ranker"].model.scores_pairs


def test_the_tables_are_those_of_the_comparison():
    hits = json.loads((RESULTS / "validation.json").read_text(encoding="utf-8"))["hits"]
    hits |= json.loads((RESULTS / "validation-stage-seed-0.json").read_text(encoding="utf-8"))["hits"]
    ways = ("dual encoder", "phrases", "stage", "phrases + 0.5 x stage")

    def row(kind: str) -> list[str]:
        return [" / ".join(f"{hits[way][f'{kind} {its}'].count('1')}" for its in ("en", "zh")) for way in ways]

    pages = {
        "docs/ranking.md": ("long composed", "long other words", "short composed"),
        "docs/ranking_zh.md": ("long composed", "long other words", "short composed"),
        "recipes/ranking/README.md": [
            f"{kind} {wording}" for kind in ("long", "short") for wording in ("composed", "other orders", "other words")
        ],
    }
    for page, kinds in pages.items():
        assert [its[1:] for its in tables(ROOT / page)[-1][1:]] == [row(kind) for kind in kinds], page
