"""docs/calibration.md runs from its top and prints what it says; its tables are those of the recipe."""

import json
from itertools import product

import pytest

from fgclip2 import embedded_checkpoint
from fgclip2.calibration import CALIBRATION_FILE, Calibration
from recipes.calibration.report import markdown

from .documents import ROOT, read, run_document

RECIPE = ROOT / "recipes" / "calibration"


@pytest.mark.slow
def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = run_document(ROOT / "docs" / "calibration.md")
    assert variables["cosines"].shape == (3,)


def test_the_tables_are_those_of_the_results():
    results = json.loads((RECIPE / "results.json").read_text(encoding="utf-8"))
    for language, ending in (("en", ""), ("zh", "_zh")):
        found = markdown(results, language)
        assert (RECIPE / f"table{ending}.md").read_text(encoding="utf-8") == found
        page = read(ROOT / "docs" / f"calibration{ending}.md")
        for table in found.strip().split("\n\n"):
            assert table in page


def test_the_shipped_calibration_is_that_of_the_results():
    results = json.loads((RECIPE / "results.json").read_text(encoding="utf-8"))
    calibration = Calibration.load(embedded_checkpoint() / CALIBRATION_FILE)
    assert calibration.model == results["checkpoint"]
    keys = {its.key for its in calibration.scores}
    roles = ("caption", "long_caption", "region_phrase")
    assert keys == set(product(roles, ("en", "zh"), (36, 100, 128, "auto")))
    assert len(calibration.scores) == len(results["measured"])
    for row in results["measured"]:
        its = calibration.find(row["role"], row["language"], row["max_num_patches"])
        errors = row["all"]["calibration_error"]
        assert its.evaluation.calibration_error == pytest.approx(errors["after"]["0.5"], abs=1e-4)
        assert its.evaluation.calibration_error < 0.03
        assert its.evaluation.calibration_error < its.evaluation.calibration_error_before / 2
