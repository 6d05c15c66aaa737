"""Intervals of all kinds."""

import pytest

from fgclip2.benchmarks.tasks import (
    ClassificationData,
    ClassificationSettings,
    MatchingData,
    MatchingSettings,
    RetrievalData,
    RetrievalSettings,
    classification,
    matching,
    retrieval,
)


def test_intervals_where_nothing_is_wrong(encoder, picture):
    """Not of no width, but for the rank in the middle."""
    images = [picture(f"{color}.png", color) for color in ("red", "green", "blue", "yellow")]
    data = RetrievalData(images, ["红", "绿", "blue", "yellow"], [(index, index) for index in range(4)])
    metrics = retrieval.evaluate(data, encoder, RetrievalSettings(), "zh").metrics
    for name in ("recall@1", "mean_recall"):
        assert metrics[f"image_to_text/{name}"].interval() == pytest.approx((0.025 ** (1 / 4), 1))
    for name in ("mean_rank", "median_rank"):
        assert metrics[f"text_to_image/{name}"].interval() == (1, 1)
    matched = MatchingData(images, ["红", "绿"], [(0, 0), (0, 1), (1, 1), (2, 0)], [True, False, True, False])
    metrics = matching.evaluate(matched, encoder, MatchingSettings(), "zh").metrics
    assert metrics["auc"].value == 1
    assert metrics["auc"].interval() is None
    assert metrics["accuracy"].interval() == pytest.approx((0.025 ** (1 / 3), 1))
    classes = ClassificationData(images, [0, 1, 2, 3], {"zh": ["红", "绿", "蓝", "黄"]})
    metrics = classification.evaluate(classes, encoder, ClassificationSettings(templates="none"), "zh").metrics
    assert metrics["top1"].interval() == pytest.approx((0.025 ** (1 / 4), 1))
    assert metrics["top1_macro"].value == 1
    assert metrics["top1_macro"].interval() is None
