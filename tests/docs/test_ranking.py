"""docs/ranking.md runs from its top and prints what it says; its numbers are those of the comparison."""

import json

import numpy as np

from .documents import ROOT, run_document, tables

RESULTS = ROOT / "recipes" / "ranking" / "results"


def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = run_document(ROOT / "docs" / "ranking.md")
    assert variables["ranker"].model.scores_pairs


def test_the_tables_are_those_of_the_comparison():
    def hits(name: str) -> dict[str, dict[str, str]]:
        return json.loads((RESULTS / f"test{name}.json").read_text(encoding="utf-8"))["hits"]

    runs = {arm: [hits(f"-{arm}-seed-{seed}") for seed in range(3)] for arm in ("stage", "shuffled", "dual")}
    columns = [
        [hits("")["dual encoder"]],
        [run["dual encoder"] for run in runs["dual"]],
        [hits("")["phrases"]],
        [run["stage"] for run in runs["stage"]],
        [run["stage"] for run in runs["shuffled"]],
        [run["phrases + 0.25 x stage"] for run in runs["stage"]],
    ]

    def percent(its: list[dict[str, str]], name: str) -> str:
        """The mean over seeds and queries; a way that does not tell regions apart has none."""
        if name not in its[0]:
            return "-"
        return f"{100 * np.mean([[int(digit) for digit in digits[name]] for digits in its]):.0f}"

    def row(kind: str, shown: list[list[dict[str, str]]]) -> list[str]:
        return [" / ".join(percent(its, f"{kind} {language}") for language in ("en", "zh")) for its in shown]

    few = ("long composed", "long other words", "short composed", "hard negatives")
    every = [
        f"{kind} {wording}" for kind in ("long", "short") for wording in ("composed", "other orders", "other words")
    ]
    pages = {"docs/ranking.md": few, "docs/ranking_zh.md": few, "recipes/ranking/README.md": [*every, "hard negatives"]}
    for page, kinds in pages.items():
        shown = columns if page.startswith("recipes") else [columns[place] for place in (0, 2, 3, 5)]
        assert [its[1:] for its in tables(ROOT / page)[-1][1:]] == [row(kind, shown) for kind in kinds], page
