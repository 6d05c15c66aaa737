"""The evaluation on composed scenes: its metrics by hand, and a whole run on a tiny cache."""

import argparse
import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from recipes.scenes import evaluate
from recipes.scenes.evaluate import encode_once, main, ranks_among
from recipes.scenes.metrics import pairwise_wins, summary


def test_hard_negatives_by_hand():
    scores = np.array([[3.0, 1.0, 2.0], [3.0, 3.0, 2.0], [1.0, 2.0, 0.0]])
    assert pairwise_wins(scores).tolist() == [[1, 1], [0.5, 1], [0, 1]]


def test_a_group_weighs_by_its_size():
    result = summary(np.array([1, 1, 1, 0]), np.array([0, 0, 0, 1]))
    assert result["percent"] == 75.0
    assert result["interval"] == [0.0, 100.0]
    assert result["count"] == 4


def test_ranks_and_repeated_texts():
    candidates = np.eye(3, dtype=np.float32)
    queries = np.array([[1, 0.5, 0], [0.5, 1, 0], [0, 1, 1]], dtype=np.float32)
    assert ranks_among(queries, candidates, np.array([0, 0, 2])).tolist() == [1, 2, 2]

    class Embedder:
        def encode_texts(self, texts, role):
            assert texts == ["cat", "狗"]
            assert role == "region_phrase"
            return np.array([[1.0], [2.0]])

    assert encode_once(Embedder(), ["cat", "狗", "cat"], "region_phrase").ravel().tolist() == [1, 2, 1]


def test_a_whole_run(cache, tmp_path):
    output = tmp_path / "results" / "tiny"
    size = ["--scenes", "6", "--text-only-scenes", "12", "--max-num-patches", "36", "100"]
    main(["--cache", str(cache), "--output", str(output), *size])
    results = json.loads(output.with_suffix(".json").read_text("utf-8"))
    assert results["settings"]["split"] == "validation"
    assert results["settings"]["set"].startswith("validation-6-1-")
    assert len(results["checkpoint"]["fingerprint"]) > 8
    assert results["controls"]["chance"]["captions"]["recall@1"] == pytest.approx(16.67)
    assert list(results["model"]) == ["36", "100"]
    for language in ("en", "zh"):
        numbers = results["model"]["100"][language]
        assert set(numbers["captions"]) == {"long", "short"}
        assert {wording: set(heads) for wording, heads in numbers["free_language"].items()} == {
            wording: {"long", "short", "auto"} for wording in ("composed", "other_orders", "other_words")
        }
        assert numbers["free_language"]["composed"]["long"] == numbers["captions"]["long"]
        regions = results["settings"]["regions"]
        assert numbers["box_names"]["recall@1"]["count"] == numbers["hard_negatives"]["beats_all"]["count"] == regions
        pairs = numbers["hard_negatives"]["pairwise"]
        assert sum(kind["count"] for kind in pairs.values()) == 10 * regions
    text = output.with_suffix(".md").read_text("utf-8")
    assert "| 100 | all ten hard negatives beaten, text tower alone |" in text
    assert "| 100 | other words, auto head, text to image, recall@1 |" in text


def test_runs_on_the_held_out_artist_are_logged(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "__file__", str(tmp_path / "evaluate.py"))
    options = argparse.Namespace(split="test", scenes=1000, max_num_patches=[100])
    evaluate.log_test_run(options, "abc")
    row = json.loads((tmp_path / "test_log.jsonl").read_text())
    assert (row["split"], row["fingerprint"]) == ("test", "abc")


def test_every_command_that_is_written_down_is_there():
    root = Path(__file__).parents[2]
    files = [root / "Makefile", *root.glob("recipes/*/*.md"), *root.glob("recipes/*/*.py")]
    named = {name for path in files for name in re.findall(r"-m (recipes[\w.]+)", path.read_text("utf-8"))}
    assert {"recipes.embedded_checkpoint.train", "recipes.scenes.train", "recipes.scenes.ablation"} <= named
    assert [name for name in named if find_spec(name) is None] == []
