"""Warnings of dtypes that a device is slow in."""

import logging

import pytest
import torch

from fgclip2 import Embedder
from fgclip2.embedding import devices


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_on_a_cpu_without_it_is_warned_of(native, monkeypatch, caplog):
    monkeypatch.setattr(devices, "has_native_bfloat16", lambda: native)
    embedder = Embedder.from_pretrained(device="cpu")
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        embedder.to(dtype="bfloat16")
    assert [record.message for record in caplog.records if "no instructions for bfloat16" in record.message] == [
        "this CPU has no instructions for bfloat16 and will be several times slower than in float32: use float32"
    ] * (not native)


def test_what_the_cpu_has_can_be_asked():
    assert devices.has_native_bfloat16() in (True, False)
    devices.warn_of_slow_bfloat16(torch.device("meta"), torch.bfloat16)
