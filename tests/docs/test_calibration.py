"""docs/calibration.md runs from its top and prints what it says; its tables are those of the recipe."""

import json

import pytest

from fgclip2 import embedded_checkpoint
from fgclip2.calibration import CALIBRATION_FILE, Calibration
from recipes.calibration.report import markdown

from .documents import ROOT, read, run_document, tables

RECIPE = ROOT / "recipes" / "calibration"


@pytest.mark.slow
def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = run_document(ROOT / "docs" / "calibration.md")
    assert variables["cosines"].shape == (3,)


def test_the_tables_are_those_of_the_results():
    results = json.loads((RECIPE / "results.json").read_text(encoding="utf-8"))
    found = markdown(results["measured"])
    assert (RECIPE / "table.md").read_text(encoding="utf-8") == found
    english = read(ROOT / "docs" / "calibration.md")
    for table in found.strip().split("\n\n"):
        assert table in english
    shown, twin = (
        [[row[3:] for row in table[1:]] for table in tables(ROOT / "docs" / page)]
        for page in ("calibration.md", "calibration_zh.md")
    )
    assert shown == twin


def test_the_shipped_calibration_is_that_of_the_results():
    results = json.loads((RECIPE / "results.json").read_text(encoding="utf-8"))
    calibration = Calibration.load(embedded_checkpoint() / CALIBRATION_FILE)
    assert calibration.model == results["checkpoint"]
    assert len(calibration.scores) == len(results["measured"]) == 6
    for row in results["measured"]:
        its = calibration.find(row["role"], row["language"], row["max_num_patches"])
        errors = row["all"]["calibration_error"]
        assert its.evaluation.calibration_error == pytest.approx(errors["after"]["0.5"], abs=1e-4)
        assert its.evaluation.calibration_error < 0.032
        assert its.evaluation.calibration_error < its.evaluation.calibration_error_before / 2
