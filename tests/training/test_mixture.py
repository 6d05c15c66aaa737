"""Sampling rates and shares of languages: how often records are drawn, and that their copies stay apart."""

import re
import tracemalloc
from itertools import chain

import numpy as np
import pytest

from fgclip2.data import concatenate
from fgclip2.training import FGClip2TrainingArguments, NeighbouringRecords
from fgclip2.training.mixture import Source, draws_of_epoch, sources_of
from fgclip2.training.sampler import BatchOrderSampler

ENGLISH, CHINESE = np.zeros(40, np.uint8), np.ones(40, np.uint8)


def indices(sampler: BatchOrderSampler, epoch: int = 0) -> list[int]:
    sampler.set_epoch(epoch)
    return [draw.index for draw in sampler]


def times_drawn(rate: float, epochs: int) -> np.ndarray:
    """How often each of 40 records is drawn beside 40 others in each epoch, (epochs, 40)."""
    sampler = BatchOrderSampler([Source(ENGLISH), Source(ENGLISH, rate)], 5)
    return np.array([np.bincount(indices(sampler, epoch), minlength=80)[40:] for epoch in range(epochs)])


def test_a_rate_of_a_quarter_takes_another_quarter_each_time():
    times = times_drawn(0.25, 8)
    assert (times.sum(axis=1) == 10).all()
    assert (times[:4].sum(axis=0) == 1).all()
    assert (times[4:].sum(axis=0) == 1).all()
    assert (times[:4] != times[4:]).any()


def test_a_rate_of_two_and_a_half_takes_all_twice_and_half_of_them_thrice():
    times = times_drawn(2.5, 2)
    assert [np.bincount(row).tolist() for row in times] == [[0, 0, 20, 20]] * 2
    assert (times.sum(axis=0) == 5).all()


@pytest.mark.parametrize("language_batches", ["homogeneous", "mixed"])
def test_languages_have_their_shares_of_an_epoch(language_batches):
    both = np.concatenate([ENGLISH, CHINESE[:8]])
    sources = [Source(both), Source(ENGLISH, 0.5)]
    sampler = BatchOrderSampler(sources, 2, 2, language_batches, language_shares={"en": 0.75, "zh": 0.25})
    languages = np.concatenate([both, ENGLISH])
    counts = np.bincount(languages[indices(sampler)])
    assert sampler.draws.sum() == 68  # as without shares
    assert sampler.draws.tolist() == [[34, 17], [17, 0]]
    assert counts.tolist() == ([48, 16] if language_batches == "homogeneous" else [51, 17])


def test_what_is_there_is_drawn_once_at_least():
    _, draws = draws_of_epoch([Source(np.array([0] * 90 + [1], np.uint8), 0.1)], None)
    assert draws.tolist() == [[9, 1]]


@pytest.mark.parametrize("patches", [None, np.random.default_rng(0).permutation(900)])
def test_copies_of_a_record_meet_only_where_a_pass_ends(patches):
    sources = [Source(np.zeros(300, np.uint8), 4), Source(np.zeros(600, np.uint8))]
    batches = np.reshape(indices(BatchOrderSampler(sources, 20, patches=patches)), (-1, 20))
    meetings = [20 - len(set(batch)) for batch in batches.tolist()]
    assert len(batches) == 90
    assert sum(count > 0 for count in meetings) <= 3  # of 4 passes; by chance copies would meet in 29 batches
    assert sum(meetings) <= 3


@pytest.mark.parametrize("patches", [None, np.arange(40)])
def test_each_copy_of_a_record_is_another_sample(patches):
    """What is random about a sample follows from its draw, which no other one is like, in this epoch or the next."""
    sampler = BatchOrderSampler([Source(ENGLISH, 3)], 5, patches=patches)
    draws = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        draws += list(sampler)
    assert len(set(draws)) == len(draws) == 240


def test_a_source_that_every_batch_has_several_times_is_told_of(caplog):
    BatchOrderSampler([Source(ENGLISH), Source(ENGLISH[:4], 5)], 5)
    assert not caplog.records
    BatchOrderSampler([Source(ENGLISH), Source(ENGLISH[:4], 30)], 10)
    assert "each batch of all ranks draws about 8 records of source 2 in language 'en', which has 4" in caplog.text


def test_the_order_does_not_depend_on_the_number_of_ranks_nor_on_what_is_computed_at_once(monkeypatch):
    sources = [Source(np.concatenate([ENGLISH, CHINESE]), 1.5), Source(CHINESE, 0.3)]
    orders = [indices(BatchOrderSampler(sources, 8 // ranks, ranks), epoch=3) for ranks in (1, 2, 4)]
    monkeypatch.setattr("fgclip2.training.sampler._RECORDS_AT_ONCE", 8)
    monkeypatch.setattr("fgclip2.training.mixture._DRAWN_AT_ONCE", 3)
    orders.append(indices(BatchOrderSampler(sources, 8), epoch=3))
    assert orders[0] == orders[1] == orders[2] == orders[3]


def test_twelve_million_records_take_a_few_megabytes():
    """Of each process."""
    languages = (np.arange(12_000_000) % 3 == 0).astype(np.uint8)
    tracemalloc.start()
    sampler = BatchOrderSampler([Source(languages[:8_000_000]), Source(languages[8_000_000:], 0.5)], 512, 8)
    kept, before = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    for _ in zip(range(20_000), sampler, strict=False):
        pass
    _, during = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 6e6
    assert before < 10e6
    assert during < 8e6


def test_sources_are_those_that_were_given_rates(records):
    joined = concatenate([records, records], [1, 0.5])
    assert len(joined) == 80
    assert [source.rate for source in sources_of(joined)] == [1, 0.5]
    assert [source.rate for source in sources_of(concatenate([joined, records], [2, 3]))] == [2, 1, 3]
    assert len(sources_of(concatenate([records, records]))) == 1
    assert list(chain.from_iterable(sources_of(concatenate([records, records]))[0].languages[40:, None])) == list(
        records.languages
    )


@pytest.mark.parametrize("rates", [[1], [1, 0], [1, -1], [1, float("inf")]])
def test_wrong_rates(records, rates):
    message = f"`sampling_rates` must be a positive number for each of 2 sources, got {rates}"
    with pytest.raises(ValueError, match=re.escape(message)):
        concatenate([records, records], rates)


def test_neighbours_have_no_rates(records):
    with pytest.raises(ValueError, match="must be concatenated without sampling rates"):
        NeighbouringRecords(concatenate([records], [2]), np.zeros((40, 1), int))
    neighbours = np.zeros((40, 1), int)
    with pytest.raises(ValueError, match="`language_shares` must be left out for records with neighbours"):
        BatchOrderSampler([Source(ENGLISH)], 2, neighbours=neighbours, language_shares={"en": 1})


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"en": 0.5, "fr": 0.5}, "must be positive numbers for 'en' and 'zh', got {'en': 0.5, 'fr': 0.5}"),
        ({"en": 1, "zh": 0}, "must be positive numbers"),
        ("[1]", "must be positive numbers"),
        ('{"en": 0.5, "zh": 0.4}', "must add up to 1, got {'en': 0.5, 'zh': 0.4}"),
    ],
)
def test_wrong_shares(tmp_path, shares, message):
    with pytest.raises(ValueError, match=re.escape(f"`language_shares` {message}")):
        FGClip2TrainingArguments(tmp_path, use_cpu=True, language_shares=shares)


def test_shares_of_languages_that_are_not_there():
    with pytest.raises(ValueError, match=r"must name the languages of the records \(\{'en': 40\}\), got"):
        draws_of_epoch([Source(ENGLISH)], {"en": 0.5, "zh": 0.5})
    with pytest.raises(ValueError, match=r"\(\{'en': 40, 'zh': 40\}\), got \{'en': 1.0\}"):
        draws_of_epoch([Source(ENGLISH), Source(CHINESE)], {"en": 1.0})
