"""Batches of images that are alike in their patches: chosen by headers, and hardly padded."""

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgclip2 import FGClip2Processor, embedded_checkpoint
from fgclip2.data import Record, RecordDataset, concatenate, read_finehard, write_shards
from fgclip2.data.readers import record_index
from fgclip2.data.records import read_image_size
from fgclip2.distributed import rank
from fgclip2.training import FGClip2ForTraining, NeighbouringRecords, patch_counts
from fgclip2.training.mixture import Source
from fgclip2.training.patch_counts import read_patch_counts, useful_share
from fgclip2.training.sampler import BatchOrderSampler
from scripts.perf.padding import batches_of_shards, patches_of_photos

from ..modeling.test_inputs import header_of_png
from ..ranks import run_on_ranks
from .conftest import make_records
from .test_resuming import losses, run

PROCESSOR = FGClip2Processor.from_pretrained(embedded_checkpoint())


@pytest.mark.parametrize("language_batches", ["homogeneous", "mixed"])
@pytest.mark.parametrize("budget", [256, 1024, "auto"])
def test_nearly_all_vision_tokens_of_photos_are_useful(budget, language_batches):
    patches = patches_of_photos(budget)
    languages = (np.arange(len(patches)) % 3 == 0).astype(np.uint8)
    shares = {}
    for way, given in (("any", None), ("alike", patches)):
        sampler = BatchOrderSampler([Source(languages)], 32, 2, language_batches, patches=given)
        order = np.array([draw.index for draw in sampler])
        batches = order.reshape(-1, 32)  # of the ranks in turn
        assert len(np.unique(order)) == len(order)
        if language_batches == "homogeneous":
            assert all(len(set(languages[batch])) == 1 for batch in batches)
        shares[way] = useful_share(patches[batch] for batch in batches)
    assert shares["alike"] >= 0.97
    assert shares["any"] < (0.97 if budget == "auto" else shares["alike"])  # one budget is nearly full anyway


@pytest.mark.parametrize("budget", [256, 1024, "auto"])
def test_nearly_all_vision_tokens_of_photos_in_shards_are_useful(budget):
    """Within a buffer of 1,000 samples of one language, or of two; also where two ranks wait for each other."""
    patches = patches_of_photos(budget)
    of_ranks = patches[: len(patches) // 64 * 64].reshape(2, -1)
    for batches, least in ((1000 // 32, 0.985), (1000 // 2 // 32, 0.975)):
        ranks = [list(batches_of_shards(part, batches, rank)) for rank, part in enumerate(of_ranks)]
        steps = np.stack(ranks, axis=1)  # (steps, ranks, 32)
        assert useful_share(steps.reshape(-1, 32)) >= least
        assert useful_share(steps.reshape(-1, 64)) >= 0.97


def test_an_image_that_is_far_too_large_is_an_error_of_its_record(tmp_path):
    path = tmp_path / "大图.png"
    path.write_bytes(header_of_png(20_000, 20_000))
    with pytest.raises(ValueError, match=r"照片\.jsonl:3: "):
        read_image_size(Record(str(path), "大图", None, "zh", (), "照片.jsonl:3"))


def test_equal_counts_stay_shuffled_and_epochs_differ():
    patches = np.repeat([4, 9], 40)
    sampler = BatchOrderSampler([Source(np.zeros(80, np.uint8))], 4, 2, patches=patches)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        epochs.append([draw.index for draw in sampler])
    assert epochs[0] == epochs[2] != epochs[1]
    batches = [[frozenset(row) for row in np.reshape(order, (-1, 8)).tolist()] for order in epochs[:2]]
    assert not set(batches[0]) & set(batches[1])  # others share a batch
    kinds = [patches[min(batch)] for batch in batches[0]]
    assert sorted(kinds) != kinds  # few and many in turn


def test_batches_do_not_depend_on_the_number_of_ranks():
    patches = np.random.default_rng(0).integers(100, 257, 60)
    languages = (np.arange(60) % 3 == 0).astype(np.uint8)
    orders = [list(BatchOrderSampler([Source(languages)], 8 // ranks, ranks, patches=patches)) for ranks in (1, 2, 4)]
    assert orders[0] == orders[1] == orders[2]


class Pictures(RecordDataset):
    """Images of some sizes, in memory or missing."""

    def __init__(self, sizes, kept=None):
        self.sizes, self.languages = sizes, np.zeros(len(sizes), np.uint8)
        self.image_sizes = None if kept is None else np.load(kept, mmap_mode="r+")
        self.was_read = []  # numbers of records

    def _read(self, index: int) -> Record:
        self.was_read.append(index)
        size = self.sizes[index]
        image = "missing.png" if size is None else Image.new("RGB", size)
        return Record(image, "a cat", None, "en", (), self._source(index))

    def _source(self, index: int) -> str:
        return f"pictures:{index + 1}"


SIZES = [(64, 32), None, (32, 64), (320, 160), (16, 16), (640, 480), (640, 480)]


def counts_of_ranks() -> list[int]:
    count = partial(FGClip2ForTraining.count_patches, PROCESSOR, max_num_patches=256)
    return read_patch_counts(Pictures(SIZES), count).tolist()


def test_sizes_that_records_state_are_taken(tmp_path):
    """Of files that are not there, so that none is opened."""
    rows = [
        {"f_path": f"{number}.png", "caption": "a cat", "width": width, "height": height}
        for number, (width, height) in enumerate([(64, 32), (320, 160), ("六十四", 32), (0, 32)])
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    records = read_finehard(tmp_path / "a.json", tmp_path)
    count = partial(FGClip2ForTraining.count_patches, PROCESSOR, max_num_patches=256)
    assert read_patch_counts(records, count).tolist() == [count(32, 64), count(160, 320), 0, 0]


def test_each_rank_reads_its_part_and_all_have_all():
    one = counts_of_ranks()
    grids = [PROCESSOR.prepare_image(Image.new("RGB", size or (1, 1)), 256)["spatial_shapes"] for size in SIZES]
    assert one == [int(grid.prod()) if size else 0 for grid, size in zip(grids, SIZES, strict=True)]
    assert run_on_ranks(counts_of_ranks, 2) == [one, one]


def count_by_area(height: int, width: int) -> int:
    if height > 600:
        raise ValueError("as an image that is too narrow")
    return height * width // 64


def nothing_known(file: Path, sizes: list) -> str:
    np.save(file, np.zeros((len(sizes), 2), np.int32))
    return str(file)


def of_two_sources(kept: list[str | None]) -> list[list[int]]:
    """Counts of records of two sources by this rank, and which of each it has read."""
    sources = [Pictures(sizes, file) for sizes, file in zip(TWO_SOURCES, kept, strict=True)]
    counts = read_patch_counts(concatenate([concatenate(sources[:1]), concatenate(sources)]), count_by_area)
    return [counts.tolist(), *(sorted(source.was_read) for source in sources)]


TWO_SOURCES = [SIZES, [(8, 8), (16, 8), (640, 640), (2000, 500)]]
COUNTS = [[32, 0, 32, 800, 4, 4800, 4800], [1, 2, 0, 15625]]


@pytest.mark.parametrize("block", [2, 2**18])
def test_sizes_are_read_once(tmp_path, monkeypatch, block):
    """Of the source that has an index; and what could not be read is tried again. The first source comes twice."""
    monkeypatch.setattr(patch_counts, "_BLOCK", block)
    kept = [nothing_known(tmp_path / "大小.npy", SIZES), None]
    first, second = of_two_sources(kept), of_two_sources(kept)
    assert first[0] == second[0] == COUNTS[0] * 2 + COUNTS[1]
    assert set(first[1]) == set(range(len(SIZES)))
    assert set(second[1]) == {SIZES.index(None)}
    assert first[2] == second[2] == [0, 1, 2, 3]


def test_ranks_share_what_is_kept(tmp_path):
    """Also where one of them has done it alone before; each reads its part of what is not known."""
    kept = [nothing_known(tmp_path / f"{number}.npy", sizes) for number, sizes in enumerate(TWO_SOURCES)]
    alone = of_two_sources([kept[0], None])
    both = run_on_ranks(of_two_sources, 2, kept)
    assert both[0][0] == both[1][0] == alone[0]
    assert sorted(both[0][2] + both[1][2]) == [0, 1, 2, 3]
    assert all(0 < len(rank[2]) < 4 for rank in both)
    again = of_two_sources(kept)
    assert again[0] == alone[0]
    assert again[2] == []


def test_machines_that_know_other_sizes_have_the_same_counts(tmp_path):
    """Those of rank 0: an image may have been replaced since one of them read it, or may be missing there."""
    for number, first in enumerate([(8, 8), (16, 16)]):
        sizes = np.array([first, (0, 0), *[(8, 16)] * 5], np.int32)
        np.save(tmp_path / f"{number}.npy", sizes)
    both = run_on_ranks(counts_of_machines, 2, str(tmp_path))
    assert both[0] == both[1] == [[1, 0, *[2] * 5]]


def counts_of_machines(folder: str) -> list[list[int]]:
    tempfile.tempdir = str(Path(folder) / f"tmp{rank()}")
    Path(tempfile.tempdir).mkdir()
    return [read_patch_counts(Pictures(SIZES, f"{folder}/{rank()}.npy"), count_by_area).tolist()]


@pytest.mark.slow
def test_many_sizes_are_read_by_several_processes(tmp_path, monkeypatch):
    """Which do not tell this one what they read. Records without an index may be such that can't be sent to them."""
    monkeypatch.setattr(patch_counts, "_RECORDS_PER_PROCESS", 3)
    monkeypatch.setattr(patch_counts, "_RECORDS_AT_ONCE", 2)
    monkeypatch.setattr(patch_counts, "available_cores", lambda: 2)
    records, others = Pictures(SIZES, nothing_known(tmp_path / "sizes.npy", SIZES)), Pictures(SIZES)
    others.can_not_be_sent = lambda: None
    assert read_patch_counts(concatenate([records, others]), count_by_area).tolist() == COUNTS[0] * 2
    assert records.was_read == []
    assert sorted(others.was_read) == [*range(len(SIZES))]


def test_a_killed_process_has_kept_what_it_had_read(tmp_path, monkeypatch):
    monkeypatch.setattr(patch_counts, "_BLOCK", 3)
    kept = nothing_known(tmp_path / "sizes.npy", SIZES)
    records, read = Pictures(SIZES, kept), Pictures._read

    def killed(self, index):
        if index == 5:
            raise KeyboardInterrupt
        return read(self, index)

    monkeypatch.setattr(Pictures, "_read", killed)
    with pytest.raises(KeyboardInterrupt):
        read_patch_counts(records, count_by_area)
    monkeypatch.setattr(Pictures, "_read", read)
    again = Pictures(SIZES, kept)
    assert read_patch_counts(again, count_by_area).tolist() == COUNTS[0]
    assert sorted(again.was_read) == [1, 3, 4, 5, 6]  # the missing one, and all of the block that was not whole


def test_records_with_an_index_keep_their_sizes(tmp_path, monkeypatch):
    """Of text files whose images are gone in the second run, and of a third file that comes to them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(record_index, "LARGE_SOURCE", 1)
    make_records(tmp_path / "data", 6)
    (tmp_path / "files").mkdir()
    for name in ("a", "b"):
        shutil.copy2(tmp_path / "data" / "records.json", tmp_path / "files" / f"{name}.json")
    images = tmp_path / "data" / "images"
    first = read_patch_counts(read_finehard(tmp_path / "files", images), count_by_area)
    assert first.all()
    images.rename(tmp_path / "elsewhere")
    images.mkdir()
    np.testing.assert_array_equal(read_patch_counts(read_finehard(tmp_path / "files", images), count_by_area), first)
    shutil.copy2(tmp_path / "data" / "records.json", tmp_path / "files" / "c.json")
    third = read_patch_counts(read_finehard(tmp_path / "files", images), count_by_area)
    np.testing.assert_array_equal(third, [*first, *[0] * 6])


def test_neighbours_decide_themselves():
    records = NeighbouringRecords(Pictures(SIZES), np.zeros((7, 1), np.int64))
    with pytest.raises(ValueError, match="`patch_batches` must be 'any' for records with neighbours"):
        BatchOrderSampler([Source(records.languages)], 2, neighbours=records.neighbours, patches=np.ones(7))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Records whose images are of three shapes."""
    folder = tmp_path_factory.mktemp("shapes") / "squares"
    make_records(folder, 24)
    for number, path in enumerate(sorted((folder / "images").iterdir())):
        with Image.open(path) as image:
            image.resize([(96, 64), (64, 160), (48, 48)][number % 3]).save(path)
    return folder


@pytest.mark.parametrize(
    ("kind", "processes"),
    [
        ("records", 1),
        ("shards", 1),
        pytest.param("records", 2, marks=pytest.mark.slow),
        pytest.param("shards", 2, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_with_the_same_batches(saved_folder, shapes, records_folder, tmp_path, kind, processes):
    """Within its second epoch of 6 steps, over weighted sources and languages."""
    options = ["--patch_batches=alike", f"--per_device_train_batch_size={4 // processes}", "--max_num_patches=auto"]
    options += ["--dataloader_num_workers=1", "--dataloader_persistent_workers=true"]
    options.append('--language_shares={"en": 0.5, "zh": 0.5}')
    folders = [shapes, records_folder]
    if kind == "shards":
        folders = [tmp_path / "of_shapes", tmp_path / "of_records"]
        for records, folder in zip((shapes, records_folder), folders, strict=True):
            write_shards(read_finehard(records / "records.json", records / "images"), folder, 7)
    data = f"{folders[0]}=0.75,{folders[1]}=0.15"
    run(saved_folder, data, tmp_path / "whole", *options, processes=processes)
    killed, environment = tmp_path / "killed", {"KILL_AT": "11", "KILL_SIGNAL": "SIGKILL"}
    run(saved_folder, data, killed, *options, environment=environment, processes=processes, expect=1)
    done = run(saved_folder, data, killed, *options, processes=processes)
    assert losses(killed) == losses(tmp_path / "whole")
    assert len(losses(killed)) == 12
    assert "may come twice or not at all" not in done.stderr
