"""The table of forgetting without and with distillation, and that the one in the repository is of its results."""

import json
from pathlib import Path

from recipes.scenes.forgetting import CAPTIONS, COLUMNS, DISTILLED, markdown

RESULTS = Path(__file__).parents[2] / "recipes" / "scenes" / "results" / "forgetting"


def run(value: float) -> dict:
    return {"metrics": dict.fromkeys(COLUMNS, value), "seconds": {"cpu": 10.0}}


def test_changes_are_from_the_start_and_differences_seed_by_seed():
    table = markdown(dict.fromkeys(COLUMNS, 50.0), {CAPTIONS: [run(40), run(42)], DISTILLED: [run(45), run(47)]})
    start, captions, distilled, difference = (line.split(" | ") for line in table.splitlines()[2:])
    assert start[1] == "50.0"
    assert captions[1].startswith("-9.0 ± ")
    assert distilled[1].startswith("-4.0 ± ")
    assert difference[1] == "+5.0 ± 0.0"


def test_the_table_is_of_the_results():
    start = json.loads((RESULTS / "start.json").read_text())
    results = {
        name: [json.loads(file.read_text()) for file in sorted(RESULTS.glob(f"{name}-seed-*.json"))]
        for name in (CAPTIONS, DISTILLED)
    }
    assert (RESULTS / "table.md").read_text().endswith(markdown(start, results))
