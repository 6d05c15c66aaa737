"""Choosing the true text of a box, with numbers known by hand."""

from dataclasses import replace

import pytest

from fgclip2.benchmarks.catalogue import find_benchmark
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


@pytest.mark.parametrize("preset", ["paper", "released"])
def test_fg_ovd_counts_ties_as_its_script_does_that_the_published_numbers_are_of(encoder, picture, preset):
    """Of the second box the true text is among the false ones."""
    data = HardNegativeData(
        [picture("a.png", "red", "green")], [[LEFT, RIGHT]], [[["红", "蓝"], ["green", "绿", "red"]]]
    )
    settings = replace(find_benchmark("fg-ovd-medium").settings(preset), method="crop")
    assert hard_negatives.evaluate(data, encoder, settings, "en").per_item["won"].tolist() == [1, 1]
