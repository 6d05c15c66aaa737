"""docs/reranking.md runs from its top and prints what it says; its numbers are those of the ablation."""

import json
import re
import sys
from types import SimpleNamespace

from recipes.reranking.evidence import COLUMNS as TESTED

from .documents import ROOT, read, run_document, tables

RESULTS = ROOT / "recipes" / "reranking" / "results"
KINDS = ("long", "short", "clauses", "words")
COLUMNS = {  # of the table of the ablation -> what differs from the defaults
    2: {},
    3: {"splitter": "signs and “and”"},
    4: {"splitter": "the caption as one phrase"},
    5: {"patches": "another's"},
}


def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = run_document(ROOT / "docs" / "reranking.md")
    assert variables["weight"] > 0


def test_the_tables_are_those_of_the_evidence_and_the_ablation():
    evidence = json.loads((RESULTS / "evidence.json").read_text(encoding="utf-8"))["results"]
    tested = [
        [f"{evidence[f'{kind} en'][column]:.1f} / {evidence[f'{kind} zh'][column]:.1f}" for column in TESTED]
        for kind in ("long", "short", "other_orders", "other_words")
    ]
    first, default, *others = json.loads((RESULTS / "ablation.json").read_text(encoding="utf-8"))["rows"]
    results = [first["recall@1"]]
    for change in COLUMNS.values():
        setting = {**default["setting"], **change}
        results.append(next(row["recall@1"] for row in (default, *others) if row["setting"] == setting))
    ablated = [[f"{its[f'{kind} en']:.1f} / {its[f'{kind} zh']:.1f}" for its in results] for kind in KINDS]
    for page in ("reranking.md", "reranking_zh.md"):
        assert [[row[1:] for row in table[1:]] for table in tables(ROOT / "docs" / page)] == [tested, ablated]


def test_a_splitter_by_another_parser_does_what_the_page_says(monkeypatch):
    """A stand-in answers as spaCy does for this text; it is not installed here."""
    chunks = SimpleNamespace(noun_chunks=[SimpleNamespace(text="a big dog"), SimpleNamespace(text="the mat")])
    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=lambda name: lambda text: chunks))
    for page in ("reranking.md", "reranking_zh.md"):
        not_run = re.findall(
            r"<!-- not run -->\n```python\n(.*?)^```", read(ROOT / "docs" / page), re.DOTALL | re.MULTILINE
        )
        (code,) = (code for code in not_run if "spacy" in code)
        names: dict = {}
        exec(code, names)
        assert names["noun_chunks"]("a big dog sits on the mat") == ["a big dog", "the mat"]
