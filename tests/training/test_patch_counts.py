"""Batches of images that are alike in their patches: chosen by headers, and hardly padded."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from fgclip2 import FGClip2Processor, embedded_checkpoint
from fgclip2.data import Record, RecordDataset
from fgclip2.training import FGClip2ForTraining, NeighbouringRecords
from fgclip2.training.estimates import height_and_width
from fgclip2.training.patch_counts import read_patch_counts, useful_share
from fgclip2.training.sampler import BatchOrderSampler

from ..modeling.test_inputs import header_of_png
from ..ranks import run_on_ranks
from .conftest import make_records
from .test_resuming import losses, run

# Width, height and share in a thousand of photos as data sets of the web have them: most by a few kinds of cameras and
# of editors, 80 in a thousand cut by hand to any shape.
PHOTOS = (
    *((640, 480, 300), (480, 640, 120), (640, 427, 140), (640, 426, 60), (427, 640, 50), (640, 360, 50)),
    *((500, 375, 70), (375, 500, 30), (640, 640, 30), (612, 612, 20), (1024, 768, 20), (768, 1024, 10)),
    *((1024, 683, 10), (1920, 1080, 5), (4032, 3024, 5)),
)
PROCESSOR = FGClip2Processor.from_pretrained(embedded_checkpoint())


def photo_mix(count: int = 8000) -> np.ndarray:
    """Heights and widths, (count, 2)."""
    rng = np.random.default_rng(0)
    known = np.repeat([(height, width) for width, height, _ in PHOTOS], [share for *_, share in PHOTOS], axis=0)
    any_shape = rng.integers(12, 50, (80, 2)) * 16
    return rng.choice(np.concatenate([known, any_shape]), count)


@pytest.mark.parametrize("language_batches", ["homogeneous", "mixed"])
@pytest.mark.parametrize("budget", [256, 1024, "auto"])
def test_nearly_all_vision_tokens_of_photos_are_useful(budget, language_batches):
    sizes, of_records = np.unique(photo_mix(), axis=0, return_inverse=True)
    counts = [FGClip2ForTraining.count_patches(PROCESSOR, *size, max_num_patches=budget) for size in sizes.tolist()]
    patches = np.array(counts, np.int32)[of_records.ravel()]
    languages = (np.arange(len(patches)) % 3 == 0).astype(np.uint8)
    shares = {}
    for way, given in (("any", None), ("alike", patches)):
        sampler = BatchOrderSampler(languages, 32, 2, language_batches, patches=given)
        order = np.array([draw.index for draw in sampler])
        batches = order.reshape(-1, 32)  # of the ranks in turn
        assert len(np.unique(order)) == len(order)
        if language_batches == "homogeneous":
            assert all(len(set(languages[batch])) == 1 for batch in batches)
        shares[way] = useful_share(patches[batch] for batch in batches)
    assert shares["alike"] >= 0.97
    assert shares["any"] < (0.97 if budget == "auto" else shares["alike"])  # one budget is nearly full anyway


def test_an_image_that_is_far_too_large_is_an_error_of_its_record(tmp_path):
    path = tmp_path / "大图.png"
    path.write_bytes(header_of_png(20_000, 20_000))
    with pytest.raises(ValueError, match=r"照片\.jsonl:3: "):
        height_and_width(Record(str(path), "大图", None, "zh", (), "照片.jsonl:3"))


def test_equal_counts_stay_shuffled_and_epochs_differ():
    patches = np.repeat([4, 9], 40)
    sampler = BatchOrderSampler(np.zeros(80, np.uint8), 4, 2, patches=patches)
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
    orders = [list(BatchOrderSampler(languages, 8 // ranks, ranks, patches=patches)) for ranks in (1, 2, 4)]
    assert orders[0] == orders[1] == orders[2]


class Pictures(RecordDataset):
    """Images of some sizes, in memory or missing."""

    def __init__(self, sizes):
        self.sizes, self.languages = sizes, np.zeros(len(sizes), np.uint8)

    def _read(self, index: int) -> Record:
        size = self.sizes[index]
        image = "missing.png" if size is None else Image.new("RGB", size)
        return Record(image, "a cat", None, "en", (), self._source(index))

    def _source(self, index: int) -> str:
        return f"pictures:{index + 1}"


SIZES = [(64, 32), None, (32, 64), (320, 160), (16, 16), (640, 480), (640, 480)]


def counts_of_ranks() -> list[int]:
    count = partial(FGClip2ForTraining.count_patches, PROCESSOR, max_num_patches=256)
    return read_patch_counts(Pictures(SIZES), count).tolist()


def test_each_rank_reads_its_part_and_all_have_all():
    one = counts_of_ranks()
    grids = [PROCESSOR.prepare_image(Image.new("RGB", size or (1, 1)), 256)["spatial_shapes"] for size in SIZES]
    assert one == [int(grid.prod()) if size else 0 for grid, size in zip(grids, SIZES, strict=True)]
    assert run_on_ranks(counts_of_ranks, 2) == [one, one]


def test_neighbours_decide_themselves():
    records = NeighbouringRecords(Pictures(SIZES), np.zeros((7, 1), np.int64))
    with pytest.raises(ValueError, match="`patch_batches` must be 'any' for records with neighbours"):
        BatchOrderSampler(records.languages, 2, neighbours=records.neighbours, patches=np.ones(7))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Records whose images are of three shapes."""
    folder = tmp_path_factory.mktemp("shapes") / "squares"
    make_records(folder, 24)
    for number, path in enumerate(sorted((folder / "images").iterdir())):
        with Image.open(path) as image:
            image.resize([(96, 64), (64, 160), (48, 48)][number % 3]).save(path)
    return folder


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_with_the_same_batches(saved_folder, shapes, tmp_path, processes):
    options = ("--patch_batches=alike", f"--per_device_train_batch_size={4 // processes}", "--max_num_patches=auto")
    run(saved_folder, shapes, tmp_path / "whole", *options, processes=processes)
    killed, environment = tmp_path / "killed", {"KILL_AT": "8", "KILL_SIGNAL": "SIGKILL"}
    run(saved_folder, shapes, killed, *options, environment=environment, processes=processes, expect=1)
    run(saved_folder, shapes, killed, *options, processes=processes)
    assert losses(killed) == losses(tmp_path / "whole")
    assert len(losses(killed)) == 12
