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
    runs = {
        arm: json.loads((RESULTS / f"validation-{arm}-seed-0.json").read_text(encoding="utf-8"))["hits"]
        for arm in ("stage", "shuffled", "dual")
    }
    columns = [
        hits["dual encoder"],
        runs["dual"]["dual encoder"],
        hits["phrases"],
        runs["stage"]["stage"],
        runs["shuffled"]["stage"],
        runs["stage"]["phrases + 0.5 x stage"],
    ]

    def row(kind: str, shown: list[dict[str, str]]) -> list[str]:
        return [" / ".join(f"{its[f'{kind} {language}'].count('1')}" for language in ("en", "zh")) for its in shown]

    pages = {
        "docs/ranking.md": ("long composed", "long other words", "short composed"),
        "docs/ranking_zh.md": ("long composed", "long other words", "short composed"),
        "recipes/ranking/README.md": [
            f"{kind} {wording}" for kind in ("long", "short") for wording in ("composed", "other orders", "other words")
        ],
    }
    for page, kinds in pages.items():
        shown = columns if page.startswith("recipes") else [columns[place] for place in (0, 2, 3, 5)]
        assert [its[1:] for its in tables(ROOT / page)[-1][1:]] == [row(kind, shown) for kind in kinds], page
