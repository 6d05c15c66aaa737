"""Writing shards: by one process or several, and going on after any of them was killed, to the same bytes."""

import io
import json
import os
import shutil
import signal
from collections import namedtuple

import pytest
from filelock import FileLock
from PIL import Image

from fgclip2.data import RecordDataset, from_dataset, read_finehard, shard_writing
from fgclip2.data.records import ConcatenatedRecords, InvalidRecordError
from fgclip2.data.shard_files import list_shards
from fgclip2.data.shard_records import read_shards
from fgclip2.data.shard_writing import write_shards
from fgclip2.data.shards import ShardedRecords
from fgclip2.errors import UnreadableImageError
from tests.data.readers.test_pairs import FakeDataset
from tests.data.samples import item, items, write_images, write_json, write_lines
from tests.data.test_shard_files import read_all
from tests.ranks import FORKS


@pytest.fixture
def dataset(tmp_path, images) -> RecordDataset:
    return read_finehard(write_json(tmp_path / "a.json", items(4)), images)


def test_written_shards_hold_the_same_records(tmp_path, dataset):
    shards = write_shards(dataset, tmp_path / "shards", samples_per_shard=3)
    assert [shard.samples for shard in shards] == [3, 1]
    assert list_shards(tmp_path / "shards") == shards
    names = ["000000.tar", "000001.tar", "conversion.json", "index.json"]
    assert sorted(path.name for path in (tmp_path / "shards").iterdir()) == names
    records = [record for shard in shards for record in read_all(shard.path)]
    for found, original in zip(records, dataset, strict=True):
        assert found.image == open(original.image, "rb").read()  # noqa: PTH123, SIM115  # byte for byte
        names = ("short_caption", "long_caption", "language", "regions")
        assert [getattr(found, name) for name in names] == [getattr(original, name) for name in names]
        assert found.image_size == (6, 8)


def test_decoded_images_are_written_too(tmp_path, photo):
    (shard,) = write_shards(from_dataset(FakeDataset([{"image": photo, "caption": "照片"}])), tmp_path / "shards")
    (record,) = read_all(shard.path)
    assert Image.open(io.BytesIO(record.image)).tobytes() == photo.tobytes()


def test_what_can_not_be_written(tmp_path, images, dataset):
    with pytest.raises(ValueError, match="images must be a new or empty folder, or shards that were begun before"):
        write_shards(dataset, images)
    with pytest.raises(ValueError, match="samples_per_shard must be a positive integer, got 0"):
        write_shards(dataset, tmp_path / "a", 0)
    (images / "0.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match=r"a\.json:1: .*0\.png"):
        write_shards(dataset, tmp_path / "b")
    broken = read_finehard(write_lines(tmp_path / "b.jsonl", [item("zh", path="1.png"), "{"]), images)
    with pytest.raises(InvalidRecordError, match=r"b\.jsonl:2"):
        write_shards(broken, tmp_path / "c")
    assert not (tmp_path / "c/index.json").exists()  # so a half-written folder is not taken for a whole one


# -- several processes, and going on ----------------------------------------------------------------------------------


class Deadly(ConcatenatedRecords):
    """Records, of which reading the one at `at` kills the process."""

    at = 23

    def _read(self, index):
        if index == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._read(index)


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def forty(tmp_path_factory) -> RecordDataset:
    """Records of which the 13th and the last can't be used."""
    folder = tmp_path_factory.mktemp("forty")
    rows = items(40)
    rows[12]["bbox_info"][0]["bbox"] = [0, 0, 0, 1]
    write_images(folder / "images", 39)
    return read_finehard(write_json(folder / "a.json", rows), folder / "images")


@pytest.fixture(scope="module")
def whole(forty, tmp_path_factory) -> dict[str, bytes]:
    """The files of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "shards"
    write_shards(forty, folder, 10, on_error="skip")
    return contents(folder)


def write_deadly(dataset, folder) -> None:
    shard_writing._LOOKED_AT = 1  # else the record would be read before anything is written
    write_shards(Deadly([dataset]), folder, 10, on_error="skip")


def test_after_sigkill_several_processes_go_on_to_the_same_bytes(forty, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writing, "get_context", lambda method: FORKS)  # they start faster
    monkeypatch.setattr(shard_writing, "_LOOKED_AT", 1)
    folder = tmp_path / "shards"
    killed = FORKS.Process(target=write_deadly, args=(forty, folder))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    found = sorted(path.name for path in folder.iterdir() if not path.name.endswith(".partial"))
    assert found == ["000000.tar", "000001.tar", "conversion.json", "unfinished"]
    times = [(folder / name).stat().st_mtime_ns for name in found]
    with pytest.raises(ChildProcessError, match=r"a process was killed.*whole shards stay in"):
        write_shards(Deadly([forty]), folder, 10, processes=2, on_error="skip")
    write_shards(forty, folder, 10, processes=2, on_error="skip")
    assert contents(folder) == whole
    assert [(folder / name).stat().st_mtime_ns for name in found[:3]] == times[:3]


def test_what_is_left_out_is_listed(forty, whole):
    rows = [json.loads(line) for line in whole["left_out.jsonl"].decode().splitlines()]
    assert [row["record"].rpartition("/")[2] for row in rows] == ["a.json:13", "a.json:40"]
    assert "bbox_info[0].bbox is [0, 0, 0, 1]" in rows[0]["reason"]
    assert "39.png" in rows[1]["reason"]
    index = json.loads(whole["index.json"])["shards"]
    assert [(shard["samples"], shard["languages"]) for shard in index] == [
        (10, {"en": 5, "zh": 5}),
        (9, {"en": 4, "zh": 5}),
        (10, {"en": 5, "zh": 5}),
        (9, {"en": 5, "zh": 4}),
    ]


def test_a_finished_folder_is_left_as_it_is(forty, whole, tmp_path):
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    shards = write_shards(Deadly([forty]), tmp_path, 10, on_error="skip")  # nothing is read
    assert (sum(shard.samples for shard in shards), contents(tmp_path)) == (38, whole)
    assert len(list(ShardedRecords(tmp_path))) == 38


def test_what_stopped_at_a_record_goes_on_without_it(forty, whole, tmp_path):
    with pytest.raises(InvalidRecordError, match=r"a\.json:13"):
        write_shards(forty, tmp_path / "shards", 10)
    assert (tmp_path / "shards/000000.tar").is_file()
    write_shards(forty, tmp_path / "shards", 10, on_error="skip")
    assert contents(tmp_path / "shards") == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples_per_shard": 5}, "was begun with samples_per_shard=10, and now it is 5: go on with"),
        ({"on_error": "raise"}, "was begun with on_error='skip', and now it is 'raise'"),
        ({"origin": {"files": "2 files"}}, "was begun with files=None, and now it is '2 files'"),
        ({"dataset": 0}, "was begun with records=40, and now it is 39"),
        ({"dataset": 1}, "was begun with first_record='.*a.json:1', and now it is '.*b.json:1'"),
    ],
)
def test_another_continuation_is_refused(forty, whole, tmp_path, changes, message):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/conversion.json").write_bytes(whole["conversion.json"])
    others = {0: ("b.json", 39), 1: ("b.json", 40)}
    if "dataset" in changes:
        name, count = others[changes["dataset"]]
        changes = {"dataset": read_finehard(write_json(tmp_path / name, items(count)), tmp_path)}
    arguments = {"dataset": forty, "folder": tmp_path / "shards", "samples_per_shard": 10, "on_error": "skip"}
    with pytest.raises(ValueError, match=message):
        write_shards(**{**arguments, **changes})


def test_too_little_room_is_said_before_anything_is_written(forty, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**9, 10**9, 1000))
    with pytest.raises(ValueError, match=r"shards that are missing need about 0\.0 GB, and 0\.0 GB are free there"):
        write_shards(forty, tmp_path / "shards", 10, on_error="skip")
    assert not list((tmp_path / "shards").glob("*.tar"))


def test_no_record_that_can_be_used_is_an_error(tmp_path, monkeypatch):
    records = read_finehard(write_json(tmp_path / "a.json", items(40)), tmp_path)  # without their images
    with pytest.raises(ValueError, match=r"none of 40 records can be used, the first: .*a\.json:1: .*0\.png"):
        write_shards(records, tmp_path / "few", 10, on_error="skip")
    monkeypatch.setattr(shard_writing, "_HOPELESS", 10)  # and all of a shard is an error at once
    with pytest.raises(ValueError, match=r"none of the 10 records of 000000\.tar can be used, the first: .*0\.png"):
        write_shards(records, tmp_path / "many", 10, on_error="skip")


def test_many_unusable_records_in_a_row_are_left_out(tmp_path, monkeypatch):
    rows = items(40)
    for row in rows[:10]:  # a folder that is missing
        row["f_path"] = f"missing/{row['f_path']}"
    write_images(tmp_path / "images", 40)
    records = read_finehard(write_json(tmp_path / "a.json", rows), tmp_path / "images")
    monkeypatch.setattr(shard_writing, "_HOPELESS", 10)
    shards = write_shards(records, tmp_path / "shards", 10, on_error="skip")
    assert [shard.samples for shard in shards] == [0, 10, 10, 10]
    assert len(list(ShardedRecords(tmp_path / "shards"))) == len(read_shards(tmp_path / "shards")) == 30


def test_another_run_keeps_its_settings(forty, tmp_path):
    """Who comes second is refused, and leaves what the first has written of itself as it is."""
    folder = tmp_path / "shards"
    with pytest.raises(InvalidRecordError):
        write_shards(forty, folder, 10)
    before = (folder / "conversion.json").read_bytes()
    with FileLock(folder / "unfinished/.lock"), pytest.raises(ValueError, match="another run writes"):
        write_shards(forty, folder, 10, on_error="skip")
    assert (folder / "conversion.json").read_bytes() == before
