"""Matching, with numbers known by hand."""

import dataclasses

import numpy as np
import pytest

from fgclip2.benchmarks.tasks import MatchingData, MatchingSettings, matching

from .colors import values


def test_matching(encoder, picture, broken):
    images = [picture("a.png", "red"), picture("b.png", "green"), broken]
    data = MatchingData(
        images, ["红", "绿", "yellow"], [(0, 0), (0, 1), (1, 1), (1, 2), (2, 0)], [True, False, True, True, True]
    )
    scores = matching.evaluate(data, encoder, MatchingSettings(), "zh")
    np.testing.assert_allclose(scores.per_item["cosine"], [1, 0, 1, 0.5**0.5, np.nan], atol=1e-6)
    assert values(scores) == {"auc": 1, "accuracy": 1}
    swapped = dataclasses.replace(data, labels=[True, True, True, False, True])
    got = values(matching.evaluate(swapped, encoder, MatchingSettings(), "zh"))
    assert got["auc"] == pytest.approx(2 / 3)
    assert got["accuracy"] == pytest.approx(3 / 4)


def test_matching_of_pairs_that_are_all_alike_is_an_error(encoder, picture, broken):
    data = MatchingData([picture("a.png", "red"), broken], ["红", "green"], [(0, 0), (1, 1)], [True, False])
    with pytest.raises(
        ValueError, match=r"label is 1 in all 1 pairs left, but both labels are needed; 1 images can't be read: .*坏"
    ):
        matching.evaluate(data, encoder, MatchingSettings(), "zh")


def test_matching_where_the_best_is_to_say_that_none_match(encoder, picture):
    images = [picture("a.png", "red"), picture("b.png", "yellow")]
    data = MatchingData(images, ["红", "黄", "blue"], [(0, 0), (0, 1), (1, 0), (1, 2)], [False, False, False, True])
    got = values(matching.evaluate(data, encoder, MatchingSettings(), "zh"))
    assert got["accuracy"] == pytest.approx(3 / 4)
    assert got["auc"] == 0
