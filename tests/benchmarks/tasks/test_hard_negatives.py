"""Choosing the true text of a box, with numbers known by hand."""

import pytest

from fgclip2.benchmarks.tasks import HardNegativeData, HardNegativeSettings, hard_negatives

from .colors import values

LEFT, RIGHT = (0.0, 0.0, 16.0, 16.0), (16.0, 0.0, 32.0, 16.0)


def test_hard_negatives_and_both_rules_of_ties(encoder, picture):
    images = [picture("a.png", "red", "green"), picture("b.png", "blue")]
    texts = [[["红", "蓝", "绿"], ["green", "绿"]], [["yellow", "blue"]]]
    data = HardNegativeData(images, [[LEFT, RIGHT], [LEFT]], texts)
    for ties, won in (("wrong", [1, 0, 0]), ("right", [1, 1, 0])):
        scores = hard_negatives.evaluate(data, encoder, HardNegativeSettings(method="crop", ties=ties), "zh")
        assert scores.per_item["won"].tolist() == won
        assert values(scores) == {"hard_negative_accuracy": pytest.approx(sum(won) / 3)}
