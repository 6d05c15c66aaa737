"""What is wrong with the data is said in the same words whether loader workers find it or the process itself."""

import os
import shutil

import pytest

from fgclip2.data import BrokenShardError, InvalidRecordError, ShardedRecords, read_pairs, write_shards
from fgclip2.errors import UnreadableImageError
from fgclip2.training import FGClip2Trainer, FGClip2TrainingArguments
from tests.data.samples import write_images, write_lines

NO_REGIONS = {"region_weight": 0.0, "tic_weight": 0.0, "hard_negative_weight": 0.0}


def trainer(saved_folder, folder, records, held_out=None, **settings) -> FGClip2Trainer:
    defaults = {
        "per_device_train_batch_size": 4,
        "max_steps": 4,
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "objective_settings": NO_REGIONS,
        "max_num_patches": 16,
    }
    arguments = FGClip2TrainingArguments(str(folder / "run"), **(defaults | settings))
    return FGClip2Trainer(str(saved_folder), arguments, records, held_out)


def pairs(folder, **changes):
    """Eight records, half Chinese; `changes` are of the sixth."""
    rows = [{"image": f"{n}.png", "caption": f"一只猫 {n}" if n % 2 else f"a cat {n}"} for n in range(8)]
    rows[5].update(changes)
    write_images(folder, 8)
    return read_pairs(write_lines(folder / "图文.jsonl", rows))


def error_of(action) -> tuple[type, str]:
    """Without its traceback, whose frames would keep a loader whose workers then take seconds to end."""
    try:
        action()
    except Exception as error:
        return type(error), str(error)
    raise AssertionError("no error")


WRONG = [
    pytest.param(
        {"caption": "  "},
        InvalidRecordError,
        "{}/图文.jsonl:6: caption is '  '; it must be a text that is not blank",
        id="record",
    ),
    pytest.param(
        {"image": "missing.png"},
        UnreadableImageError,
        "{0}/图文.jsonl:6: {0}/missing.png: no such image file "
        "(on_error='skip' leaves such records out and counts them)",
        id="image",
    ),
]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("changes", "kind", "message"), WRONG)
def test_training(saved_folder, tmp_path, workers, changes, kind, message):
    run = trainer(saved_folder, tmp_path, pairs(tmp_path, **changes), dataloader_num_workers=workers)
    assert error_of(run.train) == (kind, message.format(tmp_path))


@pytest.mark.parametrize(("changes", "kind", "message"), WRONG)
def test_evaluation(saved_folder, tmp_path, changes, kind, message):
    records = pairs(tmp_path, **changes)
    run = trainer(saved_folder, tmp_path, records, records, dataloader_num_workers=2)
    assert error_of(run.evaluate) == (kind, message.format(tmp_path))


def broken_shards(folder):
    """Two shards of four records, the second cut off within its second record."""
    shards = folder / "shards"
    write_shards(pairs(folder), shards, 4)
    broken = shards / "000001.tar"
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 3])
    return shards, broken


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_shards(saved_folder, tmp_path, workers, caplog):
    """Within a batch that would not be full any more."""
    shards, broken = broken_shards(tmp_path)
    records = ShardedRecords(shards, batch_size=4, drop_last=True, shuffle=False)
    run = trainer(saved_folder, tmp_path, records, dataloader_num_workers=workers)
    kind, message = error_of(run.train)
    assert kind is BrokenShardError
    assert message.startswith(f"{broken}: the shard is cut off")
    assert "batches are mixed in language, as ShardedRecords has them, and not homogeneous" in caplog.text


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_shards_are_left_out_and_counted(saved_folder, tmp_path, workers, caplog):
    shards, broken = broken_shards(tmp_path)
    records = ShardedRecords(shards, batch_size=4, drop_last=True, on_error="skip", language_batches="homogeneous")
    settings = {"dataloader_num_workers": workers, "on_error": "skip", "logging_steps": 1}
    run = trainer(saved_folder, tmp_path, records, **settings)
    run.train()
    log = [row for row in run.state.log_history if "loss" in row]
    assert len(log) == 4
    assert log[-1]["skipped"] == 2 * 3  # in two epochs, of the four records that the index says
    assert f"left out: {broken}: the shard is cut off" in caplog.text


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_is_gone(saved_folder, tmp_path, workers):
    records = pairs(tmp_path)
    (tmp_path / "图文.jsonl").unlink()
    run = trainer(saved_folder, tmp_path, records, dataloader_num_workers=workers, on_error="skip")
    message = f"[Errno 2] No such file or directory: '{tmp_path / '图文.jsonl'}'"
    assert error_of(run.train) == (FileNotFoundError, message)


def test_left_out_records_are_counted_by_workers_too(saved_folder, tmp_path):
    records = pairs(tmp_path, caption=" ")
    once = {"language_batches": "mixed", "max_steps": 2}  # an epoch, which draws each record
    run = trainer(saved_folder, tmp_path, records, dataloader_num_workers=2, on_error="skip", logging_steps=1, **once)
    run.train()
    assert [row["skipped"] for row in run.state.log_history if "loss" in row][-1] == 1


@pytest.mark.skipif(os.name == "nt", reason="names of files are Unicode there")
def test_names_of_files_that_are_not_utf8(saved_folder, tmp_path):
    from fgclip2.data import read_image_folder

    folder = write_images(tmp_path / "照片" / "猫", 8)
    for number in range(8):
        shutil.move(folder / f"{number}.png", os.fsencode(folder) + f"/caf{number}".encode() + b"\xe9.png")
    records = read_image_folder(tmp_path / "照片")
    assert "\udce9" in records[0].source
    settings = {"objective_settings": {}, "max_steps": 1, "dataloader_num_workers": 2}
    run = trainer(saved_folder, tmp_path, records, records, **settings)
    run.train()
    assert run.evaluate()["eval_skipped"] == 0
