"""The modules for Hugging Face's `evaluate` load by path without a network and give the package's numbers."""

import json
import math
import os
from importlib.util import find_spec

import pytest

from ..interpreters import run_python

SCRIPT = """
import json
import evaluate
from fgclip2.benchmarks.evaluate_modules import FOLDER

def compute(name, **inputs):
    return evaluate.load(f"{FOLDER}/{name}.py").compute(**inputs)

scores = [[0.9, 0.9, 0.1], [0.1, 0.2, 0.8], [0.1, 0.2, 0.3]]
print(json.dumps({
    "recall": compute("retrieval_recall", predictions=scores, references=[[0], [1, 2], [0]], ks=[1, 2]),
    "micro": compute("top_k_accuracy", predictions=scores, references=[1, 2, 2], ks=[1]),
    "macro": compute("top_k_accuracy", predictions=scores, references=[1, 2, 2], ks=[1, 2], average="macro"),
    "wrong": compute("hard_negative_wins", predictions=[[2, 1], [2, 2, 1], [1, 2]]),
    "right": compute("hard_negative_wins", predictions=[[2, 1], [2, 2, 1], [1, 2]], ties="right"),
    "iou": compute("mean_class_iou", predictions=[[[0, 0], [1, 1]], [[0]]], references=[[[0, 1], [1, 9]], [[0]]],
                   classes=3, ignored=9),
    "ap": compute("box_average_precision",
                  predictions=[{"boxes": [[0, 0, 9, 9], [20, 0, 9, 9]], "labels": [7, 7], "scores": [0.5, 0.9]},
                               {"boxes": [[0, 0, 10, 6]], "labels": [8], "scores": [0.1]},
                               {"boxes": [], "labels": [], "scores": []}],
                  references=[{"boxes": [[0, 0, 9, 9]], "labels": [7], "iscrowd": [0]},
                              {"boxes": [[0, 0, 10, 10]], "labels": [8], "iscrowd": [0]},
                              {"boxes": [[5, 5, 9, 9]], "labels": [7], "iscrowd": [1]}]),
}))
try:
    compute("retrieval_recall", predictions=scores, references=[[0], [], [1]])
except ValueError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> list[str]:
    if find_spec("evaluate") is None:
        pytest.skip("evaluate is not installed")
    home = str(tmp_path_factory.mktemp("home"))
    offline = {"HF_HOME": home, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    done = run_python("-c", SCRIPT, env={**os.environ, **offline})
    assert not done.returncode, done.stderr
    return done.stdout.splitlines()


def test_numbers_by_hand(printed):
    results = json.loads(printed[0])
    assert results["recall"] == pytest.approx({"recall@1": 1 / 3, "recall@2": 2 / 3, "mean_rank": 2, "median_rank": 2})
    assert results["micro"] == pytest.approx({"top1": 2 / 3})
    assert results["macro"] == {"top1_macro": 0.5, "top2_macro": 1.0}
    assert results["wrong"] == pytest.approx({"hard_negative_accuracy": 1 / 3})
    assert results["right"] == pytest.approx({"hard_negative_accuracy": 2 / 3})
    assert results["iou"]["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert math.isnan(results["iou"]["class_iou"][2])
    # Of 7 the better-scored box is wrong: precision 1/2. Of 8 the overlap is 0.6: right at 3 of 10 overlaps.
    assert results["ap"] == pytest.approx({"ap": (1 / 2 + 3 / 10) / 2, "ap50": (1 / 2 + 1) / 2, "ap75": 1 / 4})


def test_a_query_without_a_right_candidate_is_named(printed):
    assert printed[1] == "references[1] is empty; each query needs a right candidate"
