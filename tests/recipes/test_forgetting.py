"""The table of forgetting without and with distillation, and that those in the repository are of their results."""

import json
from pathlib import Path

import pytest

from recipes.scenes.forgetting import CAPTIONS, COLUMNS, DISTILLED, markdown

RESULTS = Path(__file__).parents[2] / "recipes" / "scenes" / "results" / "forgetting"


def run(value: float) -> dict:
    return {"metrics": dict.fromkeys(COLUMNS, value), "seconds": {"cpu": 10.0}}


def test_changes_are_from_the_start_and_differences_seed_by_seed():
    lower = f"{CAPTIONS}-0.0001"
    results = {CAPTIONS: [run(40), run(42)], lower: [run(48), run(48)], DISTILLED: [run(45), run(47)]}
    table = markdown(dict.fromkeys(COLUMNS, 50.0), results)
    start, captions, slow, distilled, difference, from_slow = (line.split(" | ") for line in table.splitlines()[2:])
    assert start[1] == "50.0"
    assert captions[1].startswith("-9.0 ± ")
    assert slow[1] == "-2.0 ± 0.0"
    assert distilled[1].startswith("-4.0 ± ")
    assert difference[:2] == [f"| {DISTILLED} - {CAPTIONS}", "+5.0 ± 0.0"]
    assert from_slow[0] == f"| {DISTILLED} - {lower}"
    assert from_slow[1].startswith("-2.0 ± ")


@pytest.mark.parametrize("folder", [RESULTS, *sorted(RESULTS.glob("weight_*"))], ids=lambda folder: folder.name)
def test_tables_are_of_their_results(folder):
    start = json.loads((folder / "start.json").read_text())
    files = [json.loads(file.read_text()) for file in sorted(folder.glob("*-seed-*.json"))]
    by_name: dict[str, list[dict]] = {}
    for result in files:
        by_name.setdefault(result["settings"]["setting"], []).append(result)
    # By learning rate from the highest, distillation last, as the command has them.
    names = sorted(by_name, key=lambda name: (name == DISTILLED, -by_name[name][0]["settings"]["learning_rate"]))
    assert (folder / "table.md").read_text().endswith(markdown(start, {name: by_name[name] for name in names}))
