"""docs/reranking.md runs from its top and prints what it says; its numbers are those of the ablation."""

import json
import re
import sys
from types import SimpleNamespace

from .documents import ROOT, read, run_document, tables

KINDS = ("long", "short", "clauses", "words")
COLUMNS = {  # of the table -> what differs from the defaults
    2: {},
    3: {"splitter": "signs and “and”"},
    4: {"splitter": "the caption as one phrase"},
}


def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = run_document(ROOT / "docs" / "reranking.md")
    assert variables["weight"] > 0


def test_the_gain_is_that_of_the_ablation():
    path = ROOT / "recipes" / "reranking" / "results" / "ablation.json"
    first, default, *others = json.loads(path.read_text(encoding="utf-8"))["rows"]
    results = [first["recall@1"]]
    for change in COLUMNS.values():
        setting = {**default["setting"], **change}
        results.append(next(row["recall@1"] for row in (default, *others) if row["setting"] == setting))
    expected = [[f"{its[f'{kind} en']:.1f} / {its[f'{kind} zh']:.1f}" for its in results] for kind in KINDS]
    for page in ("reranking.md", "reranking_zh.md"):
        (table,) = tables(ROOT / "docs" / page)
        assert [row[1:] for row in table[1:]] == expected


def test_splitters_by_other_parsers_do_what_the_page_says(monkeypatch):
    """Stand-ins answer as spaCy and jieba do for these texts; neither is installed here."""
    words = [("左边", "f"), ("有", "v"), ("红色", "n"), ("的", "uj"), ("碗", "n"), ("和", "c"), ("猫", "n")]
    posseg = SimpleNamespace(cut=lambda text: words)
    chunks = SimpleNamespace(noun_chunks=[SimpleNamespace(text="a big dog"), SimpleNamespace(text="the mat")])
    monkeypatch.setitem(sys.modules, "jieba", SimpleNamespace(posseg=posseg))
    monkeypatch.setitem(sys.modules, "jieba.posseg", posseg)
    monkeypatch.setitem(sys.modules, "spacy", SimpleNamespace(load=lambda name: lambda text: chunks))
    for page in ("reranking.md", "reranking_zh.md"):
        (code,) = re.findall(
            r"<!-- not run -->\n```python\n(.*?)^```", read(ROOT / "docs" / page), re.DOTALL | re.MULTILINE
        )
        names: dict = {}
        exec(code, names)
        assert names["noun_chunks"]("a big dog sits on the mat") == ["a big dog", "the mat"]
        assert names["between_verbs"]("左边有红色的碗和猫") == ["左边", "红色的碗", "猫"]
