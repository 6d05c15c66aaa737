"""The small runs after R2D2's description: what they are trained on, and that the documents have their results."""

import json
from pathlib import Path

from recipes.after_r2d2 import run

ROOT = Path(__file__).parents[2]


def test_pairs_that_are_held_out_are_not_trained_on():
    train, held_out, vocabulary = run.make_data()
    texts = [{record.short_caption for record in records} for records in (train, held_out)]
    assert not texts[0] & texts[1]
    characters = {character for names in texts for text in names for character in text}
    assert characters - set("，") <= set(vocabulary)
    assert {part for text in texts[1] for part in text.split("，")} <= {
        part for text in texts[0] for part in text.split("，")
    }
    assert train[0].image.size == (run.SIDE, run.SIDE)


def test_the_tables_are_those_of_the_runs():
    results = {path.stem: json.loads(path.read_text()) for path in (ROOT / "recipes/after_r2d2/results").glob("*.json")}
    assert set(results) == set(run.ARMS)
    for result in results.values():
        assert result["cpu_seconds"] < 300
        assert {name: result["settings"][name] for name in run.SETTINGS} == run.SETTINGS
    for page in ("docs/r2d2.md", "docs/r2d2_zh.md"):
        lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
        for arm in run.ARMS:
            assert any(line.endswith(" | ".join(run.table_row(results[arm])[1:]) + " |") for line in lines), (page, arm)
