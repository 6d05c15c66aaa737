"""Shards of several sources with rates and shares of languages: each draw once, copies apart, resumable."""

import json
import logging
import re
import tracemalloc
from collections import Counter
from itertools import chain, pairwise

import numpy as np
import pytest
from torch.utils.data import DataLoader

from fgclip2.data.readers import read_finehard
from fgclip2.data.records import Record
from fgclip2.data.shard_files import BrokenShardError
from fgclip2.data.shard_writing import write_shards
from fgclip2.data.shards import ShardedRecords
from fgclip2.training.sampler import DrawnStream
from tests.data.samples import item, write_images, write_json
from tests.data.test_shards import batches_of, languages_of, number_of

FIRST, SECOND = range(40), range(100, 124)  # numbers of the records of two sources; odd ones are Chinese
RATES = [2.5, 0.75]  # 100 and 18 draws of an epoch


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of shards, of 40 and 24 records in shards of 7 and 5."""
    root = tmp_path_factory.mktemp("sources")
    images = write_images(root / "images", 1)
    for name, numbers, size in (("网页", FIRST, 7), ("captioned", SECOND, 5)):
        captions = [f"第{number}张 {number}" if number % 2 else f"picture {number}" for number in numbers]
        rows = [
            item("zh" if number % 2 else "en", short_caption=caption)
            for number, caption in zip(numbers, captions, strict=True)
        ]
        write_shards(read_finehard(write_json(root / f"{name}.json", rows), images), root / name, size)
    return [root / "网页", root / "captioned"]


def weighted(folders, rank: int = 0, world_size: int = 1, batch_size: int = 4, **options) -> ShardedRecords:
    settings = {"sampling_rates": RATES, "buffer_size": 6, "seed": 3, **options}
    return ShardedRecords(folders, batch_size, rank, world_size, **settings)


def draws_of(dataset, workers: int = 0, epoch: int = 0, **loader) -> list[tuple[int, int]]:
    """Return the numbers of the records of an epoch, in order, and the pass that each is drawn in."""
    dataset.set_epoch(epoch)
    options = {"batch_size": dataset.batch_size, "drop_last": dataset.drop_last, "collate_fn": list, **loader}
    batches = DataLoader(DrawnStream(dataset), num_workers=workers, **options)
    return [(number_of(drawn.record), drawn.epoch) for batch in batches for drawn in batch]


def times_drawn(folders, rate: float, epochs: int) -> np.ndarray:
    """How often each of the 40 records of a source is drawn beside another source in each epoch, (epochs, 40)."""
    dataset = weighted(folders, sampling_rates=[rate, 1.0])
    drawn = [[number for number, _ in draws_of(dataset, epoch=epoch) if number in FIRST] for epoch in range(epochs)]
    return np.array([np.bincount(of_epoch, minlength=40) for of_epoch in drawn])


def test_a_rate_of_a_quarter_takes_another_quarter_each_time(folders):
    times = times_drawn(folders, 0.25, 8)
    assert (times.sum(axis=1) == 10).all()
    assert (times[:4].sum(axis=0) == 1).all()
    assert (times[4:].sum(axis=0) == 1).all()
    assert (times[:4] != times[4:]).any()


def test_a_rate_of_two_and_a_half_takes_all_twice_and_half_of_them_thrice(folders):
    times = times_drawn(folders, 2.5, 2)
    assert [np.bincount(row).tolist() for row in times] == [[0, 0, 20, 20]] * 2
    assert (times.sum(axis=0) == 5).all()


@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (2, 0), (3, 2), (1, 3)])
@pytest.mark.parametrize("language_batches", ["homogeneous", "mixed"])
def test_ranks_and_workers_have_each_draw_once(folders, language_batches, world_size, workers):
    """A draw is a record and the pass in which it comes. What fills no batch is left out and counted."""
    options = {"drop_last": True, "language_batches": language_batches}
    for epoch in (0, 1):
        drawn = []
        for rank in range(world_size):
            dataset = weighted(folders, rank, world_size, batch_size=2, **options)
            of_rank = draws_of(dataset, workers, epoch)
            assert len(of_rank) == len(dataset)
            drawn += of_rank
        whole = set(draws_of(weighted(folders, batch_size=1, **options), epoch=epoch))
        assert len(whole) == 118 == sum(sum(row) for row in dataset.mixture.draws.tolist())
        assert len(set(drawn)) == len(drawn) == 118 - dataset.left_out
        assert set(drawn) <= whole
        assert {number_of_pass for number, number_of_pass in whole if number in FIRST} == set(
            range(*{0: (0, 3), 1: (2, 5)}[epoch])
        )


def test_without_drop_last_ranks_have_all_draws(folders):
    ranks = [draws_of(weighted(folders, rank, 3), epoch=2) for rank in range(3)]
    assert sorted(chain(*ranks)) == sorted(draws_of(weighted(folders), epoch=2))
    assert {len(of_rank) for of_rank in ranks} == {39, 40}


def test_sources_take_turns(folders):
    """Each quarter of an epoch has about its share of both, on each rank."""
    for rank in range(2):
        numbers = [number for number, _ in draws_of(weighted(folders, rank, 2, sampling_rates=[3, 3.5]))]
        counts = [sum(number in SECOND for number in quarter) for quarter in np.array_split(numbers, 4)]
        assert sum(counts) == 3.5 * 24 / 2
        assert all(4 <= count <= 17 for count in counts)  # of 25 or 26; 10.5 on average


@pytest.fixture
def imagined(tmp_path, monkeypatch):
    """Two indexes of 24 and 6 shards of 100 samples that nobody reads: a record is its shard and place in it."""
    for name, shards in (("a", 24), ("b", 6)):
        rows = [{"name": f"{number}.tar", "samples": 100} for number in range(shards)]
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text(json.dumps({"shards": rows}))
    monkeypatch.setattr(
        ShardedRecords, "_read_shard", lambda self, part, language: ((part.shard, offset) for offset in part.offsets)
    )
    monkeypatch.setattr("fgclip2.data.shards._patches_of", lambda record, count: sum(record) % 24)
    return [tmp_path / "a", tmp_path / "b"]


@pytest.mark.parametrize("buffer_size", [64, 1000])
@pytest.mark.parametrize(("world_size", "workers"), [(1, 0), (4, 0), (2, 2)])
@pytest.mark.parametrize("alike", [False, True])
def test_copies_of_a_record_meet_only_where_a_pass_ends(imagined, alike, world_size, workers, buffer_size):
    """In the batches of all ranks too, which are in the same pass at the same time; also if the buffer holds one."""
    ranks = []
    for rank in range(world_size):
        options = {"drop_last": True, "buffer_size": buffer_size, "sampling_rates": [4, 2]}
        dataset = weighted(imagined, rank, world_size, 32 // world_size, **options)
        if alike:
            dataset.group_by_patches(max)
        loader = DataLoader(dataset, dataset.batch_size, num_workers=workers, collate_fn=list)
        ranks.append(list(loader))
    steps = [list(chain(*of_ranks)) for of_ranks in zip(*ranks, strict=True)]
    assert len(steps) == (4 * 2400 + 2 * 600) // 32
    assert len(set(chain(*steps))) == 3000
    meetings = [32 - len(set(step)) for step in steps]
    assert sum(count > 0 for count in meetings) <= 20  # of 4 ends of passes; by chance copies would meet in 60


def test_alike_copies_in_one_window_do_not_share_a_batch(imagined, monkeypatch):
    """Copies have as many patches; a window of three passes over a source is put in order pass by pass."""
    (imagined[1] / "index.json").write_text(json.dumps({"shards": [{"name": "0.tar", "samples": 40}]}))
    monkeypatch.setattr("fgclip2.data.shards._patches_of", lambda record, count: record[1])
    dataset = weighted(imagined[1:], batch_size=8, sampling_rates=[6], buffer_size=120, drop_last=True)
    dataset.group_by_patches(max)
    batches = list(DataLoader(dataset, 8, collate_fn=list))
    assert len(batches) == 30
    assert all(len(set(batch)) == 8 for batch in batches)


@pytest.mark.parametrize("rates", [None, [1.0, 3.0]])
def test_a_worker_keeps_few_bytes_for_each_sample(imagined, rates):
    """Also of a second source, and when a run goes on within an epoch."""
    for place, shards in zip(imagined, (600, 100), strict=True):
        rows = [{"name": f"{number}.tar", "samples": 1_000} for number in range(shards)]
        (place / "index.json").write_text(json.dumps({"shards": rows}))
    for batches in (0, 50):
        dataset = weighted(imagined, batch_size=64, drop_last=True, sampling_rates=rates, buffer_size=100)
        dataset.set_epoch(0, batches)
        tracemalloc.start()
        next(iter(dataset))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 3 * len(dataset)


def test_the_end_of_a_pass_is_at_other_samples_each_time(imagined):
    """What fills no batch is left out there: of one shard it would be the last samples, which nobody would see."""
    for place, shards in zip(imagined, (10, 1), strict=True):
        rows = [{"name": f"{number}.tar", "samples": 100} for number in range(shards)]
        (place / "index.json").write_text(json.dumps({"shards": rows}))
    dataset = weighted(imagined, batch_size=64, drop_last=True, sampling_rates=[1, 3])
    assert dataset.left_out == 1300 % 64
    times: Counter = Counter()
    for epoch in range(10):
        dataset.set_epoch(epoch)
        of_epoch = Counter(dataset)
        assert max(of_epoch.values()) == 3
        times += of_epoch
    assert len(times) == 1100
    assert min(times[10, offset] for offset in range(100)) >= 25


def test_billions_of_draws_are_divided_in_seconds(tmp_path):
    """The parts of neighbouring workers of 4,096 ranks follow each other in each pass, without a list of all draws."""
    for name, shards in (("a", 600), ("b", 50)):
        rows = [{"name": f"{number}.tar", "samples": 4_000_000 - number % 7} for number in range(shards)]
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_text(json.dumps({"shards": rows}))
    parts, spans = [], []
    for rank, worker in ((1, 6), (1, 7), (2, 0), (2, 1), (4_095, 7)):
        dataset = weighted([tmp_path / "a", tmp_path / "b"], rank, 4_096, 64, sampling_rates=[1.5, 6], drop_last=True)
        (row,) = dataset.mixture.rows
        part = dataset._part_of_worker(worker, 8)
        starts, stops = (row.divide(place).tolist() for place in (part.start, part.stop))
        of_cells = [cell.spans(3, start, stop) for cell, start, stop in zip(row.cells, starts, stops, strict=True)]
        located = [
            sum(len(shard.offsets) for shard in cell.locate(its, np.ones(sum(map(len, its)), dtype=bool)))
            for cell, its in zip(row.cells, of_cells, strict=True)
        ]
        assert sum(located) == len(part)
        assert located[1] / len(part) == pytest.approx(6 * 5 / (6 * 5 + 1.5 * 60), rel=1e-3)
        parts.append(part)
        spans.append(list(chain(*of_cells)))
    assert len(dataset) * 4_096 + dataset.left_out == dataset.mixture.draws.sum() > 4.79e9
    assert parts[-1].stop == len(dataset) * 4_096
    for (part, following), (its, next_spans) in zip(pairwise(parts[:-1]), pairwise(spans[:-1]), strict=True):
        assert part.stop == following.start
        assert len(its) == 2 + 6  # passes, of which the epoch has the second half of one and the whole of the next
        assert [span.stop for span in its] == [span.start for span in next_spans]


# -- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("language_batches", ["homogeneous", "mixed"])
@pytest.mark.parametrize("alike", [False, True])
def test_resumed_within_an_epoch(folders, alike, language_batches, workers):
    """The same records of the same passes that were left, with placeholders for what was had and without."""

    def remaining(batches: int, placeholders: bool = False) -> list:
        dataset = weighted(folders, 1, 2, 3, drop_last=True, language_batches=language_batches)
        if alike:
            dataset.group_by_patches(lambda height, width: height * width)
        dataset.set_epoch(2, batches, placeholders)
        loader = DataLoader(DrawnStream(dataset), batch_size=3, drop_last=True, num_workers=workers, collate_fn=list)
        return [[(drawn.record and number_of(drawn.record), drawn.epoch) for drawn in batch] for batch in loader]

    whole = remaining(0)
    assert len(whole) == {"homogeneous": 9 + 9, "mixed": 19}[language_batches]
    for batches in (1, 8, 17) if not workers else (5,):
        assert remaining(batches) == whole[batches:], batches
    assert remaining(7, placeholders=True) == [[(None, 2)] * 3] * 7 + whole[7:]


def test_persistent_workers_go_through_epochs(folders):
    dataset = weighted(folders, drop_last=True)
    options = {"batch_size": 4, "drop_last": True, "collate_fn": list, "num_workers": 2}
    loader = DataLoader(DrawnStream(dataset), persistent_workers=True, **options)
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        drawn = [(number_of(drawn.record), drawn.epoch) for batch in loader for drawn in batch]
        assert drawn == draws_of(weighted(folders, drop_last=True), 2, epoch)


def test_resumed_by_state(folders):
    whole = [number_of(record) for record in weighted(folders)]
    for stop in (0, 1, 50, 117, 118):
        dataset = weighted(folders)
        begun = [number_of(record) for record, _ in zip(dataset, range(stop), strict=False)]
        resumed = weighted(folders)
        resumed.load_state_dict({**json.loads(json.dumps(dataset.state_dict())), "samples": stop})
        assert begun + [number_of(record) for record in resumed] == whole
    state = json.loads(json.dumps(weighted(folders).state_dict()))
    for options, message in (
        ({"sampling_rates": [1, 2]}, r"sampling_rates must be \[1.0, 2.0\], as this data set has, got \[2.5, 0.75\]"),
        ({"sampling_rates": None}, r"sampling_rates must be None"),
        ({"language_shares": {"en": 0.5, "zh": 0.5}}, r"language_shares must be \{'en': 0.5, 'zh': 0.5\}, .* got None"),
    ):
        with pytest.raises(ValueError, match=message):
            weighted(folders, **options).load_state_dict(state)
    tars = [*sorted(folders[0].glob("*.tar")), *sorted(folders[1].glob("*.tar"))]
    same = ShardedRecords(tars, 4, sampling_rates=[2.5] * 11, buffer_size=6, seed=3)
    message = r"the state's cells must be \[\[64, 160\]\], .* got \[\[40, 100\], \[24, 18\]\]"
    with pytest.raises(ValueError, match=message):
        same.load_state_dict({**state, "sampling_rates": [2.5]})


def test_a_state_of_other_languages_is_refused(folders):
    options = {"drop_last": True, "language_batches": "homogeneous"}
    state = ShardedRecords(folders, 4, language=["zh", "en"], **options).state_dict()
    ShardedRecords(folders, 4, language=["zh", "en"], **options).load_state_dict(json.loads(json.dumps(state)))
    for language in (["en", "zh"], None):
        with pytest.raises(ValueError, match=r"the state's cells must be .* got \[\[24, 24\], \[40, 40\]\]"):
            ShardedRecords(folders, 4, language=language, **options).load_state_dict(state)


def test_a_state_of_an_older_release_has_no_rates(folders):
    state = ShardedRecords(folders[0]).state_dict()
    for name in ("sampling_rates", "language_shares", "cells"):
        del state[name]
    ShardedRecords(folders[0]).load_state_dict(state)
    with pytest.raises(ValueError, match=r"the state's sampling_rates must be \[2.0\], as this data set has, got None"):
        ShardedRecords(folders[0], sampling_rates=[2]).load_state_dict(state)


# -- sources and languages --------------------------------------------------------------------------------------------


def test_sources_of_equal_rates_are_one_row_of_shards(folders):
    """As several `.tar` have always been."""
    tars = sorted(folders[0].glob("*.tar")) + sorted(folders[1].glob("*.tar"))
    expected = batches_of(ShardedRecords(tars, 4, seed=3))
    assert batches_of(ShardedRecords(folders, 4, seed=3)) == expected
    assert batches_of(ShardedRecords([folders[0] / "index.json", str(folders[1])], 4, seed=3)) == expected
    assert batches_of(ShardedRecords(folders, 4, seed=3, sampling_rates=[1, 1.0])) == expected
    in_order = list(chain(*batches_of(ShardedRecords(folders, shuffle=False))))
    assert in_order == [*FIRST, *SECOND]
    assert list(chain(*batches_of(ShardedRecords(folders, shuffle=False, sampling_rates=[1, 2])))) == [
        *FIRST,
        *SECOND,
        *SECOND,
    ]


def test_tars_of_one_rate_and_language_that_follow_each_other_are_one_source(folders):
    """Else each would be open in every worker, and would give at least one sample of each language to an epoch."""
    of_first, of_second = (sorted(folder.glob("*.tar")) for folder in folders)
    dataset = weighted([*of_first, *of_second], sampling_rates=[2] * 6 + [3] * 5)
    assert batches_of(dataset) == batches_of(weighted(folders, sampling_rates=[2, 3]))
    assert dataset.mixture.sampling_rates == [2, 3]
    assert dataset.mixture.sources[1].name == f"{of_second[0]} … {of_second[-1]} (5 shards)"
    shares = {"en": 0.5, "zh": 0.5}
    of_all = weighted([*of_first, *of_second], sampling_rates=[0.1] * 11, language_shares=shares)
    assert of_all.mixture.draws.tolist() == [[3, 3]]
    languages = ["zh", "zh", "en", None, "en", "en"]
    mixed = weighted([*of_first, *folders], sampling_rates=[2] * 8, language=[*languages, "en", "en"])
    assert [len(source.shards) for source in mixed.mixture.sources] == [2, 1, 1, 2, 6, 5]


def test_sources_that_are_too_many_to_be_open_are_refused(folders):
    for count, shares in ((65, None), (33, {"en": 0.5, "zh": 0.5})):
        message = r"at most 64 sources.*, got 6[56], .* or name their \.tar one after another"
        with pytest.raises(ValueError, match=message):
            weighted(folders[:1] * count, sampling_rates=[2] * count, language_shares=shares)
    assert len(weighted(folders[:1] * 64, sampling_rates=[2] * 64).mixture.rows[0].cells) == 64
    assert len(weighted(folders[:1] * 65, sampling_rates=None).mixture.rows[0].cells) == 1


@pytest.mark.parametrize("language_batches", ["homogeneous", "mixed"])
def test_languages_have_their_shares_of_an_epoch(folders, language_batches):
    shares = {"en": 0.75, "zh": 0.25}
    dataset = weighted(folders, drop_last=True, language_batches=language_batches, language_shares=shares)
    batches = batches_of(dataset, 2)
    assert dataset.mixture.counts.tolist() == [[20, 20], [12, 12]]
    assert dataset.mixture.draws.sum() == pytest.approx(118, abs=1)  # as without shares
    assert dataset.mixture.draws.sum(axis=0).tolist() == [89, 29]
    counts = Counter("zh" if number % 2 else "en" for number in chain(*batches))
    assert counts == {"homogeneous": {"en": 88, "zh": 28}, "mixed": {"en": 87, "zh": 29}}[language_batches]
    assert {len(languages_of(batch)) for batch in batches} == {"homogeneous": {1}, "mixed": {1, 2}}[language_batches]
    one_source = ShardedRecords(folders[0], language_shares=shares)
    assert Counter(number % 2 for number in chain(*batches_of(one_source))) == {0: 30, 1: 10}


@pytest.mark.parametrize("rates", [None, [2, 0.5]])
def test_each_source_has_its_language(folders, rates):
    """Given for a source, it needs no texts to be read; else it is that of each record."""
    records = list(ShardedRecords(folders, language=["zh", None], sampling_rates=rates))
    languages = {number in FIRST: set() for number in (0, 100)}
    for record in records:
        languages[number_of(record) in FIRST].add(record.language)
    assert languages == {True: {"zh"}, False: {"en", "zh"}}
    options = {"drop_last": True, "language_batches": "homogeneous", "sampling_rates": rates}
    dataset = ShardedRecords(folders, 4, language=["zh", "en"], **options)
    assert dataset.mixture.counts.tolist() == [[0, 40], [24, 0]]
    for batch in DataLoader(dataset, batch_size=4, collate_fn=list):
        assert len({record.language for record in batch}) == 1
        assert {number_of(record) in FIRST for record in batch} == {batch[0].language == "zh"}


def test_texts_are_read_only_where_languages_are_not_known(folders, tmp_path, caplog):
    for folder in folders:
        (tmp_path / folder.name).mkdir()
        for path in folder.glob("*.tar"):
            (tmp_path / folder.name / path.name).write_bytes(path.read_bytes())
    places = [tmp_path / folder.name for folder in folders]
    with caplog.at_level(logging.INFO):
        ShardedRecords(places, 4, language=["zh", "en"], drop_last=True, language_batches="homogeneous")
        assert "no index: reading the headers of 11 shards" in caplog.text
        dataset = ShardedRecords(places, 4, language=["zh", None], drop_last=True, language_batches="homogeneous")
    assert "no index: reading the headers and texts of 11 shards" in caplog.text
    assert dataset.mixture.counts.tolist() == [[0, 40], [12, 12]]


def test_a_source_that_every_batch_has_several_times_is_told_of(folders, caplog):
    weighted(folders, sampling_rates=[1, 2])
    assert not caplog.records
    weighted(folders, batch_size=32, sampling_rates=[1, 30])
    assert "each batch of all ranks draws about 30 records of source 2, which has 24: copies of one are" in caplog.text
    caplog.clear()
    weighted(folders, batch_size=16, sampling_rates=[1, 30], drop_last=True, language_batches="homogeneous")
    assert "about 15 records of source 2 in language 'en', which has 12" in caplog.text
    caplog.clear()
    weighted(folders, rank=1, world_size=2, batch_size=16, sampling_rates=[1, 30])
    assert not caplog.records  # once is enough


def test_a_broken_shard_has_an_error_in_place_of_each_draw(folders, tmp_path):
    for path in folders[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "000002.tar").unlink()
    places = [folders[0], tmp_path]
    with pytest.raises(BrokenShardError, match="No such file"):
        list(weighted(places, sampling_rates=[1, 2]))
    found = list(weighted(places, sampling_rates=[1, 2], on_error="skip"))
    assert len(found) == 40 + 2 * 24
    assert sum(isinstance(sample, BrokenShardError) for sample in found) == 2 * 5
    times = Counter(number_of(record) for record in found if isinstance(record, Record))
    assert Counter(times.values()) == {1: 40, 2: 19}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling_rates": [1]}, "`sampling_rates` must be a positive number for each of 2 sources, got [1]"),
        ({"sampling_rates": [1, 0]}, "`sampling_rates` must be a positive number for each of 2 sources, got [1, 0]"),
        ({"sampling_rates": 2}, "`sampling_rates` must be a positive number for each of 2 sources, got 2"),
        ({"sampling_rates": ["2", 1]}, "must be a positive number for each of 2 sources, got ['2', 1]"),
        ({"sampling_rates": [1, 1e300]}, "`sampling_rates` must be at most 1,000,000, got [1, 1e+300]"),
        ({"language": ["en"]}, "language must be one, or one for each of 2 sources, got ['en']"),
        ({"language": ["en", "cn"]}, "language must be 'en', 'zh' or None, got 'cn'"),
        ({"language_shares": {"en": 0.5, "zh": 0.4}}, "`language_shares` must add up to 1"),
        (
            {"language_shares": {"en": 1.0}},
            "`language_shares` must name the languages of the records ({'en': 32, 'zh': 32}), got {'en': 1.0}",
        ),
        (
            {"world_size": 60, "batch_size": 2, "drop_last": True},
            "at least 120 samples, and an epoch of the shards has 118",
        ),
    ],
)
def test_wrong_arguments(folders, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        weighted(folders, **options)


def test_places_without_shards(folders, tmp_path):
    with pytest.raises(ValueError, match=re.escape(f"there is no shard in {tmp_path}")):
        ShardedRecords([folders[0], tmp_path])
    with pytest.raises(ValueError, match=r"or a list of these, got \[\]"):
        ShardedRecords([])
