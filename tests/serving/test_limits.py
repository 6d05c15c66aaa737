"""Limits that can't be met are refused."""

import pytest

from fgclip2.serving.limits import Limits


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"texts": 0}, "texts must be a positive integer, got 0"),
        ({"seconds": 0}, "seconds must be a number from 0.001 on, got 0"),
        ({"cached_texts": -1}, "cached_texts must be a number from 0 on"),
        ({"waiting": 255}, "waiting=255 is below texts=256 or images=32"),
        ({"held_bytes": 2**20}, "held_bytes=1048576 is below body_bytes=16777216"),
    ],
)
def test_wrong_limits(limits, message):
    with pytest.raises(ValueError, match=message):
        Limits(**limits)
