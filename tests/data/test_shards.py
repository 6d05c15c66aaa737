"""The stream over many shards: every sample once over ranks and workers, in a known order, resumable to the sample."""

import io
import json
import logging
import pickle
from collections import Counter
from collections.abc import Collection
from itertools import chain
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from fgclip2.data.readers import read_finehard
from fgclip2.data.records import InvalidRecordError
from fgclip2.data.shard_files import BrokenShardError, ShardReader
from fgclip2.data.shard_writing import write_shards
from fgclip2.data.shards import ShardedRecords
from fgclip2.data.stream_orders import buffered_shuffle
from tests.data.samples import item, write_images, write_json
from tests.data.test_shard_files import png, write_tar

COUNT = 47


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records numbered 0 to 46, in Chinese and English, in five shards of 10, 10, 10, 10 and 7."""
    root = tmp_path_factory.mktemp("sharded")
    images = write_images(root / "images", 1)
    captions = [f"第{number}张 {number}" if number % 2 else f"picture {number}" for number in range(COUNT)]
    rows = [item("zh" if number % 2 else "en", short_caption=caption) for number, caption in enumerate(captions)]
    write_shards(read_finehard(write_json(root / "a.json", rows), images), root / "shards", 10)
    return root / "shards"


def number_of(record) -> int:
    return int(record.short_caption.split()[-1])


def batches_of(dataset, workers: int = 0, **options) -> list[list[int]]:
    settings = {"batch_size": dataset.batch_size, "drop_last": dataset.drop_last, "collate_fn": list, **options}
    return [[number_of(record) for record in batch] for batch in DataLoader(dataset, num_workers=workers, **settings)]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_no_overlap_and_no_loss(folder, world_size, workers, drop_last):
    """The shards (5) divide by none of these; batches are whole, and as many as the length says."""
    seen: list[int] = []
    for rank in range(world_size):
        dataset = ShardedRecords(folder, 4, rank, world_size, drop_last=drop_last, buffer_size=5)
        batches = batches_of(dataset, workers)
        assert len(batches) == -(-len(dataset) // 4) == len(DataLoader(dataset, batch_size=4))
        assert {len(batch) for batch in batches[:-1]} <= {4}
        assert sum(map(len, batches)) == len(dataset)
        if drop_last:
            assert len(dataset) == COUNT // (4 * world_size) * 4
        else:
            assert len(dataset) in (COUNT // world_size, COUNT // world_size + 1)
        seen += [number for batch in batches for number in batch]
    assert max(Counter(seen).values()) == 1
    assert len(seen) == COUNT - dataset.left_out
    if not drop_last:
        assert sorted(seen) == list(range(COUNT))


@pytest.mark.parametrize(("ranks", "workers", "batch_size"), [(3, 4, 1), (1, 7, 2), (2, 30, 1), (5, 3, 5), (1, 2, 100)])
def test_parts_of_workers_in_turn(folder, ranks, workers, batch_size):
    """Any number of workers, also more than batches: batches from all in turn use up each part."""
    seen = []
    for rank in range(ranks):
        dataset = ShardedRecords(folder, batch_size, rank, ranks)
        parts = [dataset._part_of_worker(worker, workers) for worker in range(workers)]
        counts = [-(-len(part) // batch_size) for part in parts]
        assert counts == sorted(counts, reverse=True)
        assert counts[0] - counts[-1] <= 1
        assert sum(len(part) % batch_size > 0 for part in parts) <= 1
        seen += [position for part in parts for position in part]
    assert seen == list(range(COUNT))


def test_order_depends_on_seed_and_epoch_alone(folder):
    def epoch(number: int, seed: int = 0) -> list[list[int]]:
        dataset = ShardedRecords(folder, 4, buffer_size=5, seed=seed)
        dataset.set_epoch(number)
        return batches_of(dataset)

    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)
    assert epoch(0) != epoch(0, seed=1)
    assert sorted(chain(*epoch(1))) == list(range(COUNT))
    in_order = ShardedRecords(folder, 4, shuffle=False)
    assert list(chain(*batches_of(in_order))) == list(range(COUNT))


@pytest.mark.parametrize(
    ("language_batches", "alike", "expected"),
    [
        ("mixed", False, [[0, 2, 34, 36], [39, 6, 3, 37], [5, 20, 9, 8], [38, 21, 35, 4], [33, 7, 1, 22]]),
        ("homogeneous", False, [[2, 4, 36, 38], [35, 39, 33, 31], [0, 6, 24, 20], [28, 26, 8, 22], [5, 3, 1, 37]]),
        ("mixed", True, [[34, 38, 0, 36], [33, 35, 37, 39], [1, 2, 6, 5], [7, 4, 8, 3], [22, 20, 9, 21]]),
    ],
)
def test_orders_are_those_of_releases_before_there_were_rates(folder, language_batches, alike, expected):
    """So that a run that one of them began goes on where it was."""
    dataset = ShardedRecords(folder, 4, 1, 2, True, buffer_size=9, seed=5, language_batches=language_batches)
    if alike:
        dataset.group_by_patches(patches_of)
    dataset.set_epoch(3)
    assert batches_of(dataset) == expected


def test_the_buffer_is_bounded_and_mixes():
    order = list(buffered_shuffle(range(1000), 50, np.random.default_rng(0)))
    assert sorted(order) == list(range(1000))
    assert all(position < place + 50 for place, position in enumerate(order))
    displaced = np.abs(np.array(order) - np.arange(1000)).mean()
    assert displaced > 20


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("drop_last", [False, True])
def test_resumed_within_an_epoch(folder, workers, drop_last):
    """The same batches that were left, in the same order, wherever it was stopped."""

    def remaining(batches: int) -> list[list[int]]:
        dataset = ShardedRecords(folder, 3, 1, 2, drop_last=drop_last, buffer_size=6)
        dataset.set_epoch(2, batches)
        return batches_of(dataset, workers)

    whole = remaining(0)
    stops = range(1, len(whole) + 1) if workers < 2 else (1, 2, 5, len(whole) - 1)
    for batches in stops:
        assert remaining(batches) == whole[batches:], batches


def test_resumed_by_state(folder):
    whole = [number_of(record) for record in ShardedRecords(folder, seed=3, buffer_size=6)]
    for stop in (0, 1, 17, 46, 47):
        dataset = ShardedRecords(folder, seed=3, buffer_size=6)
        stream = iter(dataset)
        begun = [number_of(next(stream)) for _ in range(stop)]
        state = json.loads(json.dumps(dataset.state_dict()))
        resumed = ShardedRecords(folder, seed=3, buffer_size=6)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state  # also before it goes on
        assert begun + [number_of(record) for record in resumed] == whole
        resumed.set_epoch(0)
        assert [number_of(record) for record in resumed] == whole
    with pytest.raises(ValueError, match="the state's seed must be 4, as this data set has, got 3"):
        ShardedRecords(folder, seed=4, buffer_size=6).load_state_dict(state)
    with pytest.raises(ValueError, match="the state's shards must be"):
        ShardedRecords(folder / "000001.tar", seed=3, buffer_size=6).load_state_dict(state)


def test_what_was_passed_over_is_not_read(folder, monkeypatch):
    read = []
    record = ShardReader.record
    monkeypatch.setattr(ShardReader, "record", lambda self, sample: read.append(sample.key) or record(self, sample))
    dataset = ShardedRecords(folder, 1, buffer_size=4)
    dataset.set_epoch(0, batches=40)
    assert len(list(dataset)) == len(read) == COUNT - 40


def test_persistent_workers_see_new_epochs(folder):
    dataset = ShardedRecords(folder, 4, buffer_size=5)
    loader = DataLoader(dataset, batch_size=4, num_workers=1, persistent_workers=True, collate_fn=list)
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        found = [[number_of(record) for record in batch] for batch in loader]
        alone = ShardedRecords(folder, 4, buffer_size=5)
        alone.set_epoch(epoch)
        assert found == batches_of(alone)


@pytest.mark.slow
def test_spawned_workers(folder):
    dataset = pickle.loads(pickle.dumps(ShardedRecords(folder, 4)))
    dataset.set_epoch(1)
    assert batches_of(dataset, 2, multiprocessing_context="spawn") == batches_of(dataset, 2)


def test_what_is_left_out_is_said(folder, caplog):
    dataset = ShardedRecords(folder, 4, 0, 3, drop_last=True)
    assert dataset.left_out == COUNT - 36
    with caplog.at_level(logging.INFO):
        dataset.set_epoch(5)
    assert "epoch 5: 11 of 47 samples are left out for even ranks" in caplog.text


def test_without_an_index_samples_are_counted(folder, tmp_path, caplog):
    paths = sorted(folder.glob("*.tar"))
    with caplog.at_level(logging.INFO):
        dataset = ShardedRecords(paths, shuffle=False)
    assert "no index: reading the headers of 5 shards" in caplog.text
    assert [number_of(record) for record in dataset] == list(range(COUNT))


def indexed(tmp_path, folder, samples: int):
    (tmp_path / "a.tar").write_bytes((folder / "000004.tar").read_bytes())
    (tmp_path / "index.json").write_text(json.dumps({"shards": [{"name": "a.tar", "samples": samples}]}))
    return tmp_path


@pytest.mark.parametrize(("said", "world_size"), [(6, 1), (8, 1), (6, 2), (8, 2)])
def test_indexes_that_are_wrong_are_found_out(tmp_path, folder, said, world_size):
    """By the rank that gets to the end of the shard."""
    dataset = ShardedRecords(indexed(tmp_path, folder, said), 1, world_size - 1, world_size)
    with pytest.raises(BrokenShardError, match=rf"a\.tar: the shard is of 7 samples in place of {said}"):
        list(dataset)


def test_broken_shards_stop_the_stream(tmp_path, folder):
    path = indexed(tmp_path, folder, 7) / "a.tar"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(BrokenShardError, match=r"a\.tar: the shard is cut off .*member '0000000\d\d\."):
        list(ShardedRecords(tmp_path, shuffle=False))
    with pytest.raises(BrokenShardError, match="cut off"):
        ShardedRecords(path)
    with pytest.raises(Exception, match="cut off"):  # out of a worker, with the message whole
        batches_of(ShardedRecords(tmp_path, shuffle=False), workers=1)


def test_wrong_records_are_named(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"0.png": png(), "0.txt": b" "})
    with pytest.raises(InvalidRecordError, match=r"a\.tar:0: short_caption is ''"):
        list(ShardedRecords(path))


def test_languages_by_option(folder):
    assert {record.language for record in ShardedRecords(folder)} == {"en", "zh"}
    assert {record.language for record in ShardedRecords(folder, language="zh")} == {"zh"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer, got 0"),
        ({"buffer_size": 0}, "buffer_size must be a positive integer, got 0"),
        ({"world_size": 0}, "world_size must be a positive integer, got 0"),
        ({"rank": 2, "world_size": 2}, "rank must be from 0 to 1 for world_size=2, got 2"),
        ({"rank": -1}, "rank must be from 0 to 0 for world_size=1, got -1"),
        ({"world_size": 48, "rank": 47}, "48 ranks need at least 48 samples, and an epoch of the shards has 47"),
        (
            {"world_size": 3, "batch_size": 16, "drop_last": True},
            "3 ranks need at least 48 samples, and an epoch of the shards has 47",
        ),
        ({"language": "cn"}, "language must be 'en', 'zh' or None, got 'cn'"),
    ],
)
def test_wrong_arguments(folder, arguments, message):
    with pytest.raises(ValueError, match=message):
        ShardedRecords(folder, **arguments)


def test_wrong_places_in_an_epoch(folder):
    dataset = ShardedRecords(folder, 4)
    for epoch, batches in ((-1, 0), (0, -1), (0, 13)):
        with pytest.raises(ValueError, match=f"within an epoch, got {epoch} and {batches}"):
            dataset.set_epoch(epoch, batches)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("had", [0, 1, 4, 11])
def test_placeholders_stand_in_for_what_was_had(folder, workers, had):
    """A loop that counts off batches meets the rest where it would have met it."""
    dataset = ShardedRecords(folder, 4, drop_last=True, buffer_size=5)
    whole = batches_of(dataset, workers)
    dataset.set_epoch(0, had, placeholders=True)
    loader = DataLoader(dataset, batch_size=4, drop_last=True, collate_fn=list, num_workers=workers)
    batches = list(loader)
    assert batches[:had] == [[None] * 4] * had
    assert [[number_of(record) for record in batch] for batch in batches[had:]] == whole[had:]
    dataset.set_epoch(1)
    assert None not in chain.from_iterable(loader)


def test_a_wrong_sample_comes_as_its_error_where_it_may_be_skipped(tmp_path):
    members = {f"{i}.png": png() for i in range(3)} | {f"{i}.json": json.dumps(item("en")).encode() for i in (0, 2)}
    write_tar(tmp_path / "a.tar", dict(sorted((members | {"1.json": b'{"caption": 5}'}).items())))
    with pytest.raises(InvalidRecordError):
        list(ShardedRecords(tmp_path / "a.tar", shuffle=False))
    samples = list(ShardedRecords(tmp_path / "a.tar", shuffle=False, on_error="skip"))
    assert [type(sample).__name__ for sample in samples] == ["Record", "InvalidRecordError", "Record"]


# -- batches of one language ------------------------------------------------------------------------------------------


def languages_of(batch: list[int]) -> set[str]:
    return {"zh" if number % 2 else "en" for number in batch}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_homogeneous_batches_are_of_one_language_on_all_ranks(folder, world_size, workers):
    """24 records are English and 23 Chinese, in turn: batches of 4 are 6 and 5, or on two ranks 3 and 2 each."""
    ranks = []
    for rank in range(world_size):
        dataset = ShardedRecords(
            folder, 4, rank, world_size, drop_last=True, buffer_size=6, language_batches="homogeneous"
        )
        batches = batches_of(dataset, workers)
        assert len(batches) * 4 == len(dataset)
        assert {len(batch) for batch in batches} == {4}
        ranks.append(batches)
    languages = [[languages_of(batch) for batch in batches] for batches in ranks]
    assert all(len(of_batch) == 1 for of_batch in languages[0])
    assert languages == [languages[0]] * world_size
    counts = {1: {"en": 6, "zh": 5}, 2: {"en": 3, "zh": 2}}[world_size]
    assert Counter(next(iter(of_batch)) for of_batch in languages[0]) == counts
    assert languages[0] != sorted(languages[0], key=min)  # drawn, not one language after the other
    seen = list(chain(*chain(*ranks)))
    assert len(seen) == len(set(seen)) == COUNT - dataset.left_out


def test_languages_come_in_another_order_in_each_epoch(folder):
    dataset = ShardedRecords(folder, 4, drop_last=True, language_batches="homogeneous")
    orders = []
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        orders.append(batches_of(dataset))
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("language_batches", ["homogeneous", "mixed"])
@pytest.mark.parametrize("persistent", [False, True])
def test_two_epochs_are_the_same_however_often_they_are_begun_again(folder, language_batches, persistent):
    """With workers that live on or don't, counted off by placeholders or not."""

    def loader_of():
        dataset = ShardedRecords(folder, 4, drop_last=True, buffer_size=6, language_batches=language_batches)
        options = {"batch_size": 4, "drop_last": True, "collate_fn": list, "num_workers": 2}
        return dataset, DataLoader(dataset, persistent_workers=persistent, **options)

    def rows(loader, had: int = 0) -> list[list[int]]:
        return [[number_of(record) for record in batch] for batch in list(loader)[had:]]

    dataset, loader = loader_of()
    whole = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        whole.append(rows(loader))
    for had in (1, 7):
        dataset, loader = loader_of()
        dataset.set_epoch(0, had, placeholders=True)
        assert rows(loader, had) == whole[0][had:]
        dataset.set_epoch(1, had)
        assert rows(loader) == whole[1][had:]
        dataset.set_epoch(1)
        assert rows(loader) == whole[1]


def test_homogeneous_batches_go_on_from_a_state_within_a_batch(folder):
    def made():
        return ShardedRecords(folder, 4, drop_last=True, buffer_size=6, language_batches="homogeneous")

    whole = [number_of(record) for record in made()]
    for stop in (0, 3, 4, 18, 44):
        dataset = made()
        begun = [number_of(record) for record, _ in zip(dataset, range(stop), strict=False)]
        resumed = made()
        resumed.load_state_dict({**dataset.state_dict(), "samples": stop})
        assert begun + [number_of(record) for record in resumed] == whole


def test_a_state_of_an_older_release_is_of_mixed_batches(folder):
    state = ShardedRecords(folder, 4, drop_last=True).state_dict()
    del state["language_batches"]
    ShardedRecords(folder, 4, drop_last=True).load_state_dict(state)
    with pytest.raises(ValueError, match="the state's language_batches must be 'homogeneous'"):
        ShardedRecords(folder, 4, drop_last=True, language_batches="homogeneous").load_state_dict(state)


def test_languages_that_no_index_has_are_counted(folder, tmp_path, caplog):
    index = json.loads((folder / "index.json").read_text())
    assert [entry["languages"]["zh"] for entry in index["shards"]] == [5, 5, 5, 5, 3]
    options = {"drop_last": True, "language_batches": "homogeneous", "buffer_size": 6}
    expected = batches_of(ShardedRecords(folder, 4, **options))
    for path in folder.glob("*.tar"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with caplog.at_level(logging.INFO):
        assert batches_of(ShardedRecords(tmp_path, 4, **options)) == expected
        for entry in index["shards"]:
            del entry["languages"]  # as fgclip2 0.2 wrote it
        (tmp_path / "index.json").write_text(json.dumps(index))
        assert batches_of(ShardedRecords(tmp_path, 4, **options)) == expected
    assert "no index: reading the headers and texts of 5 shards" in caplog.text
    assert "no languages in the index: reading the headers and texts of 5 shards" in caplog.text


def test_one_language_by_option_needs_no_counts(folder):
    one = {"drop_last": True, "language": "zh", "seed": 3}
    assert batches_of(ShardedRecords(folder, 4, language_batches="homogeneous", **one)) == batches_of(
        ShardedRecords(folder, 4, **one)
    )


def test_a_language_of_too_few_records_is_named(tmp_path, caplog):
    members = {}
    for number in range(5):
        caption = b"\xe7\x8c\xab" if number == 2 else b"cat"
        members |= {f"{number}.png": png(), f"{number}.txt": caption}
    path = write_tar(tmp_path / "a.tar", members)
    dataset = ShardedRecords(path, 2, drop_last=True, language_batches="homogeneous")
    assert dataset.never_drawn == {"zh": 1}
    assert (len(dataset), dataset.left_out) == (4, 1)
    assert "samples in language 'zh' are never trained on: the 1 of an epoch" in caplog.text
    assert {record.language for record in dataset} == {"en"}
    with pytest.raises(
        ValueError, match=r"need at least 5 samples of one language \(or .*, and an epoch of the shards has 4 en and 1"
    ):
        ShardedRecords(path, 5, drop_last=True, language_batches="homogeneous")
    with pytest.raises(ValueError, match="needs drop_last=True"):
        ShardedRecords(path, 2, language_batches="homogeneous")


# -- batches of images with about as many patches ---------------------------------------------------------------------


def patches_of(height: int, width: int) -> int:
    return height * width


@pytest.fixture(scope="module")
def sized(tmp_path_factory):
    """120 samples in four shards, in two languages, with 1 to 8 patches each by what their `.json` says."""
    folder, rng = tmp_path_factory.mktemp("sized"), np.random.default_rng(0)
    heights = rng.integers(1, 9, 120).tolist()
    for shard in range(4):
        members = {}
        for number in range(30 * shard, 30 * (shard + 1)):
            caption = f"第{number}张 {number}" if number % 3 == 0 else f"picture {number}"
            said = {"short_caption": caption, "height": heights[number], "width": 1}
            members |= {f"{number:03}.png": png(), f"{number:03}.json": said}
        write_tar(folder / f"{shard}.tar", members)
    return folder, np.array(heights)


def alike(folder, rank: int = 0, world_size: int = 1, **options) -> ShardedRecords:
    settings = {"drop_last": True, "buffer_size": 40, "seed": 1, **options}
    dataset = ShardedRecords(folder, 4, rank, world_size, **settings)
    dataset.group_by_patches(patches_of)
    return dataset


@pytest.mark.parametrize(
    ("world_size", "workers", "language_batches"), [(1, 0, "homogeneous"), (2, 0, "homogeneous"), (1, 2, "mixed")]
)
def test_images_of_about_as_many_patches_share_a_batch(sized, world_size, workers, language_batches):
    """The batches that ranks have at the same time, too; each sample comes once, and other ones meet in each epoch."""
    folder, patches = sized
    epochs = []
    for epoch in (0, 1, 0):
        ranks = []
        for rank in range(world_size):
            dataset = alike(folder, rank, world_size, language_batches=language_batches)
            dataset.set_epoch(epoch)
            ranks.append(batches_of(dataset, workers))
        steps = [list(chain(*step)) for step in zip(*ranks, strict=True)]
        seen = list(chain(*steps))
        assert len(seen) == len(set(seen)) == len(dataset) * world_size == 120 - dataset.left_out
        epochs.append(ranks)
    assert epochs[0] == epochs[2] != epochs[1]
    by_chance = ShardedRecords(folder, 4, drop_last=True, buffer_size=40)
    spreads = [
        np.mean([np.ptp(patches[batch]) for batch in batches])
        for batches in (chain(*ranks), steps, batches_of(by_chance))
    ]
    assert spreads[0] < spreads[2] / 2.5
    assert spreads[1] < spreads[2] / 1.5
    together = [{frozenset(batch) for batch in chain(*ranks)} for ranks in epochs[:2]]
    assert len(together[0] & together[1]) < len(together[0]) / 4


@pytest.mark.parametrize(("workers", "language_batches"), [(0, "homogeneous"), (0, "mixed"), (2, "homogeneous")])
def test_batches_of_about_as_many_patches_go_on_within_an_epoch(sized, workers, language_batches):
    def remaining(batches: int, placeholders: bool = False) -> list:
        dataset = alike(sized[0], 1, 2, language_batches=language_batches)
        dataset.set_epoch(2, batches, placeholders)
        loader = DataLoader(dataset, batch_size=4, drop_last=True, num_workers=workers, collate_fn=list)
        return [[record and number_of(record) for record in batch] for batch in loader]

    whole = remaining(0)
    assert len(whole) == {"homogeneous": 5 + 10, "mixed": 15}[language_batches]
    for batches in (1, 4, 9, 12, 15) if not workers else (6, 11):
        assert remaining(batches) == whole[batches:], batches
    assert remaining(7, placeholders=True) == [[None] * 4] * 7 + whole[7:]


def test_sizes_that_no_record_says_are_read_from_the_headers(tmp_path):
    sizes = [(8, 6), (40, 30), (8, 6), (40, 30)] * 10
    for name, said in (("said", True), ("read", False)):
        members = {}
        for number, size in enumerate(sizes):
            buffer = io.BytesIO()
            Image.new("RGB", size).save(buffer, "PNG")
            item = {"short_caption": f"picture {number}"} | ({"width": size[0], "height": size[1]} if said else {})
            members |= {f"{number:02}.png": buffer.getvalue(), f"{number:02}.json": item}
        write_tar(tmp_path / f"{name}.tar", members)
    batches = batches_of(alike(tmp_path / "said.tar"))
    assert batches == batches_of(alike(tmp_path / "read.tar"))
    assert sum(len({sizes[number] for number in batch}) > 1 for batch in batches) <= 2  # one in each window


def test_what_can_not_be_grouped_by_patches(sized, caplog):
    for options in ({"shuffle": False}, {"drop_last": False}):
        with pytest.raises(ValueError, match="need shuffle=True and drop_last=True, got"):
            alike(sized[0], **options)
    alike(sized[0], buffer_size=40)
    assert "looked for" not in caplog.text
    alike(sized[0], buffer_size=40, language_batches="homogeneous")
    assert "among 5 batches of 4 only, which is all that the buffer of 40 samples of two languages holds" in caplog.text
    state = ShardedRecords(sized[0], 4, drop_last=True, buffer_size=40, seed=1).state_dict()
    with pytest.raises(ValueError, match="the state's patch_batches must be 'alike', as this data set has, got 'any'"):
        alike(sized[0]).load_state_dict(state)


def test_a_state_within_a_batch_of_about_as_many_patches(sized):
    whole = [number_of(record) for record in alike(sized[0])]
    for stop in (0, 3, 18, 63, 120):
        resumed = alike(sized[0])
        resumed.load_state_dict({**resumed.state_dict(), "samples": stop})
        assert [number_of(record) for record in resumed] == whole[stop:]


# -- broken shards and bad connections --------------------------------------------------------------------------------


@pytest.mark.parametrize("language_batches", ["homogeneous", "mixed"])
def test_a_broken_shard_is_left_out_where_it_may_be_skipped(folder, tmp_path, language_batches):
    """Each sample that can't be read any more has an error in its place, so that ranks have as many batches."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "000001.tar").unlink()
    broken = tmp_path / "000003.tar"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    options = {"drop_last": True, "language_batches": language_batches, "buffer_size": 6}
    with pytest.raises(BrokenShardError):
        list(ShardedRecords(tmp_path, 4, **options))
    dataset = ShardedRecords(tmp_path, 4, on_error="skip", **options)
    found = list(dataset)
    assert len(found) == len(dataset) == 44
    errors = [error for error in found if isinstance(error, BrokenShardError)]
    assert {error.source for error in errors} == {str(tmp_path / "000001.tar"), str(broken)}
    numbers = [number_of(record) for record in found if not isinstance(record, BrokenShardError)]
    assert len(numbers) == len(set(numbers)) == 44 - len(errors)
    assert not set(numbers) & set(range(10, 20))
    assert any("unreadable ([Errno 2]" in str(error) for error in errors)


def test_without_an_index_what_can_be_read_of_a_broken_shard_is_taken(folder, tmp_path, caplog):
    first, second = (tmp_path / name for name in ("a.tar", "b.tar"))
    content = (folder / "000000.tar").read_bytes()
    first.write_bytes(content[: len(content) // 2])
    second.write_bytes((folder / "000001.tar").read_bytes())
    with pytest.raises(BrokenShardError, match=r"a\.tar"):
        ShardedRecords(tmp_path)
    dataset = ShardedRecords(tmp_path, shuffle=False, on_error="skip")
    numbers = [number_of(record) for record in dataset]
    assert numbers == [*range(len(numbers) - 10), *range(10, 20)]
    assert 3 <= dataset.shards[0].samples < 9
    assert f"what comes before, {len(numbers) - 10} samples, is used" in caplog.text


@pytest.fixture
def unreliable(monkeypatch):
    """Local files at `unreliable://`; the reads whose numbers are in `failing` fail."""
    import fsspec

    class Connection(io.FileIO):
        def read(self, size=-1):
            Unreliable.reads += 1
            if Unreliable.reads in Unreliable.failing:
                raise RuntimeError("the connection was reset")  # errors of storages need not be OSErrors
            return super().read(size)

    class Unreliable(fsspec.AbstractFileSystem):
        protocol = "unreliable"
        failing: ClassVar[Collection] = ()
        reads = 0

        def _open(self, path, *arguments, **options):
            return Connection(path)

    fsspec.register_implementation("unreliable", Unreliable, clobber=True)
    monkeypatch.setattr("fgclip2.data.remote._WAITS", (0, 0))
    return Unreliable


def test_remote_reads_are_repeated(folder, unreliable, caplog):
    address = f"unreliable://{folder}/index.json"
    expected = [number_of(record) for record in ShardedRecords(folder)]
    unreliable.failing = range(2, 100_000, 7)
    assert [number_of(record) for record in ShardedRecords(address)] == expected
    assert "reading it failed (RuntimeError: the connection was reset); again in 0 s" in caplog.text


def test_remote_reads_are_not_repeated_without_end(folder, unreliable):
    address = f"unreliable://{folder}/index.json"
    dataset = ShardedRecords(address, on_error="skip")
    unreliable.failing = range(1_000_000)
    with pytest.raises(
        OSError, match=r"index\.json: 3 attempts to read it failed, at last RuntimeError: the connection"
    ):
        ShardedRecords(address)
    found = list(dataset)
    assert len(found) == COUNT
    assert all("unreadable (" in str(error) and "3 attempts" in str(error) for error in found)
    with pytest.raises(FileNotFoundError):  # at once
        ShardedRecords(f"unreliable://{folder}/nothing.json")
