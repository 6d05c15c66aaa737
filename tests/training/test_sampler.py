"""The order of batches: exact, of one language, anew in each epoch, the same everywhere."""

import numpy as np
import pytest

from fgclip2.training.mixture import Source
from fgclip2.training.sampler import BatchOrderSampler, Draw

LANGUAGES = np.array([0] * 23 + [1] * 14, dtype=np.uint8)


def batches(sampler, size):
    draws = list(sampler)
    return [draws[start : start + size] for start in range(0, len(draws), size)]


def test_batches_of_all_ranks_are_of_one_language():
    sampler = BatchOrderSampler([Source(LANGUAGES)], batch_size=2, world_size=3)
    groups = batches(sampler, 6)
    assert len(sampler) == 6 * (23 // 6 + 14 // 6) == sum(map(len, groups))
    assert sampler.left_out == len(LANGUAGES) - len(sampler)
    assert all(len({LANGUAGES[draw.index] for draw in group}) == 1 for group in groups)
    indices = [draw.index for group in groups for draw in group]
    assert len(set(indices)) == len(indices)


def test_languages_alternate_at_random():
    groups = batches(BatchOrderSampler([Source(LANGUAGES)], batch_size=1), 1)
    order = [LANGUAGES[group[0].index] for group in groups]
    assert order != sorted(order)


def test_mixed_batches_have_both():
    groups = batches(BatchOrderSampler([Source(LANGUAGES)], batch_size=6, language_batches="mixed"), 6)
    assert len(groups) == 6
    assert any(len({LANGUAGES[draw.index] for draw in group}) == 2 for group in groups)


def test_epochs_differ_and_are_reproducible():
    first, again = (BatchOrderSampler([Source(LANGUAGES)], 2, seed=5) for _ in range(2))
    epoch_0 = list(first)
    first.set_epoch(1)
    again.set_epoch(1)
    assert list(first) == list(again) != epoch_0
    assert {draw.epoch for draw in first} == {1}
    again.set_epoch(0)
    assert list(again) == epoch_0
    assert epoch_0[0] == Draw(epoch_0[0].index, 0)


def test_what_is_left_out_changes():
    sampler = BatchOrderSampler([Source(np.zeros(11, np.uint8))], batch_size=4)
    left_out = []
    for epoch in range(5):
        sampler.set_epoch(epoch)
        left_out.append(frozenset(range(11)) - {draw.index for draw in sampler})
    assert len(set(left_out)) > 1


def test_too_few_records():
    with pytest.raises(
        ValueError, match=r"3, 2 records \(homogeneous batches\) don't fill one batch of 2 on each of 2"
    ):
        BatchOrderSampler([Source(np.array([0, 0, 0, 1, 1], np.uint8))], 2, 2)


def test_a_language_that_never_fills_a_batch_is_warned_of(caplog):
    languages = np.array([0] * 9 + [1] * 3, np.uint8)
    sampler = BatchOrderSampler([Source(languages)], 2, 2)
    assert sampler.never_drawn == {"zh": 3}
    assert sampler.left_out == 4
    assert "records in language 'zh' are never trained on: the 3 of an epoch" in caplog.text
    assert BatchOrderSampler([Source(languages)], 2, 2, "mixed").never_drawn == {}


def test_unknown_kind():
    with pytest.raises(ValueError, match="`language_batches` must be 'homogeneous' or 'mixed', got 'both'"):
        BatchOrderSampler([Source(LANGUAGES)], 1, language_batches="both")
