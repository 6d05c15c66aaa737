"""Checkpoints of a run hold no pickles, and what is damaged in one is noticed."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Trainer

from fgclip2.training import FGClip2Trainer
from fgclip2.training.checkpoints import (
    CHECKSUMS,
    best_checkpoint,
    check_checkpoint,
    last_checkpoint,
    load_random_state,
    load_state,
    save_random_state,
    save_state,
    seal_checkpoint,
)

from .test_trainer import arguments, logs, trainer


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {
        "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.arange(6.0).view(2, 3).T}, 1: {}},
        "param_groups": [{"lr": 0.1, "betas": (0.9, 0.98), "fused": None, "名": "权重", "params": [0, 1]}],
        "half": torch.ones(2, dtype=torch.bfloat16),
        "inf": float("inf"),
    }
    save_state(state, tmp_path / "a.safetensors")
    read = load_state(tmp_path / "a.safetensors")
    assert read["param_groups"] == state["param_groups"]
    assert read["inf"] == state["inf"]
    assert list(read["state"]) == [0, 1]
    assert torch.equal(read["state"][0]["exp_avg"], state["state"][0]["exp_avg"])
    assert read["state"][0]["step"].shape == ()
    assert read["half"].dtype == torch.bfloat16


def test_what_is_no_state_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"^groups\.0\.hook of the training state is a function, which"):
        save_state({"groups": [{"hook": lambda: None}]}, tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"b\.safetensors is damaged, or was not written by this trainer"):
        load_state(tmp_path / "b.safetensors")


def test_random_states_go_on(tmp_path):
    def draw():
        return random.random(), np.random.random(), np.random.normal(), torch.rand(2).tolist()

    device = torch.device("cpu")
    np.random.normal()  # NumPy draws two and keeps one
    save_random_state(tmp_path, 1, device)
    expected = draw()
    draw()
    assert load_random_state(tmp_path, 1, device)
    assert draw() == expected
    assert not load_random_state(tmp_path, 0, device)


@pytest.fixture(scope="module")
def saved_run(saved_folder, records, tmp_path_factory):
    """A run with a checkpoint at each of its 3 steps; don't write into it."""
    folder = tmp_path_factory.mktemp("run")
    run = trainer(
        saved_folder, folder, records, max_steps=3, save_strategy="steps", save_steps=1, ema_decay=0.9, weight_decay=0.1
    )
    run.train()
    return folder, [row["loss"] for row in logs(run)]


FILES = [
    CHECKSUMS,
    "config.json",
    "ema.safetensors",
    "model.safetensors",
    "optimizer.safetensors",
    "random_state_0.safetensors",
    "scheduler.safetensors",
    "trainer_state.json",
    "training_args.json",
]


def test_a_checkpoint_has_no_pickles_and_a_checksum_of_each_file(saved_run):
    checkpoint = saved_run[0] / "checkpoint-2"
    names = sorted(path.name for path in checkpoint.iterdir())
    assert set(FILES) <= set(names)
    assert not [name for name in names if name.endswith((".pt", ".pth", ".bin", ".pkl"))]
    assert sorted(json.loads((checkpoint / CHECKSUMS).read_text())["sha256"]) == [n for n in names if n != CHECKSUMS]
    check_checkpoint(checkpoint)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_noticed(saved_folder, records, saved_run, tmp_path, name):
    """And the checkpoint before is not taken in its place."""
    shutil.copytree(saved_run[0], tmp_path / "run")
    file = tmp_path / "run" / "checkpoint-3" / name
    content = bytearray(file.read_bytes())
    content[-len(content) // 3] ^= 1
    file.write_bytes(content)
    run = trainer(saved_folder, tmp_path / "run", records, max_steps=4, ema_decay=0.9)
    with pytest.raises(ValueError, match=r"checkpoint-3/") as raised:
        run.train(resume_from_checkpoint=True)
    assert name == CHECKSUMS or f"{file} has other content than checksums.json says" in str(raised.value)
    assert not run.state.global_step


def test_a_missing_file_is_noticed(saved_run, tmp_path):
    shutil.copytree(saved_run[0] / "checkpoint-3", tmp_path / "checkpoint-3")
    (tmp_path / "checkpoint-3" / "trainer_state.json").unlink()
    with pytest.raises(ValueError, match=r"trainer_state.json is missing, so the checkpoint is damaged: copy it again"):
        check_checkpoint(tmp_path / "checkpoint-3")


def test_checksums_name_no_file_outside(tmp_path):
    (tmp_path / "秘密").write_text("x")
    (tmp_path / "checkpoint-1").mkdir()
    seal_checkpoint(tmp_path / "checkpoint-1")
    (tmp_path / "checkpoint-1" / CHECKSUMS).write_text(json.dumps({"sha256": {"../秘密": "0" * 64}}), "utf-8")
    with pytest.raises(ValueError, match=r"秘密 is missing"):
        check_checkpoint(tmp_path / "checkpoint-1")


def test_without_checksums_it_was_not_written_to_its_end(saved_run, tmp_path, caplog):
    for step in (2, 3):
        shutil.copytree(saved_run[0] / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-3" / CHECKSUMS).unlink()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-2")
    assert "checkpoint-3 was not written to its end" in caplog.text


class OfRelease02(FGClip2Trainer):
    """Saves as releases before 0.3 did."""

    _save_optimizer_and_scheduler = Trainer._save_optimizer_and_scheduler
    _save_scaler = Trainer._save_scaler
    _save_rng_state = Trainer._save_rng_state


def test_a_checkpoint_of_release_02_is_gone_on_from(saved_folder, records, saved_run, tmp_path, caplog):
    settings = {"max_steps": 3, "save_strategy": "steps", "save_steps": 2, "weight_decay": 0.1}
    OfRelease02(str(saved_folder), arguments(tmp_path, **settings), records).train()
    shutil.rmtree(tmp_path / "checkpoint-3")
    old = tmp_path / "checkpoint-2"
    (old / CHECKSUMS).unlink()
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth"} <= {path.name for path in old.iterdir()}
    run = trainer(saved_folder, tmp_path, records, **settings)
    run.train(resume_from_checkpoint=True)
    assert "checkpoint-2 is of a release before 0.3: its state is pickles, read with weights_only=True" in caplog.text
    assert [row["loss"] for row in logs(run)] == saved_run[1]


def test_weights_in_a_pickle_are_refused(saved_folder, records, saved_run, tmp_path):
    shutil.copytree(saved_run[0] / "checkpoint-3", tmp_path / "checkpoint-3")
    (tmp_path / "checkpoint-3" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"pytorch_model.bin must be safetensors, for a pickle can run code"):
        trainer(saved_folder, tmp_path, records).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("recorded", "checkpoint", "expected"),
    [
        ("/elsewhere/run/checkpoint-2", "run/checkpoint-4", "run/checkpoint-2"),  # the run was moved
        ("/elsewhere/run/checkpoint-4", "hub/last-checkpoint", "hub/last-checkpoint"),  # itself
        ("other/checkpoint-3", "run/checkpoint-4", "other/checkpoint-3"),  # whose run this one has gone on with
        ("other/checkpoint-3", "hub/last-checkpoint", None),  # is here too, but of another run
        ("/elsewhere/last-checkpoint", "hub/last-checkpoint", None),  # an earlier one, which had that name
    ],
)
def test_where_the_best_checkpoint_lies(tmp_path, monkeypatch, recorded, checkpoint, expected):
    monkeypatch.chdir(tmp_path)
    for folder in ("run/checkpoint-2", "run/checkpoint-4", "hub/last-checkpoint", "other/checkpoint-3"):
        (tmp_path / folder).mkdir(parents=True)
    assert best_checkpoint(recorded, Path(checkpoint), 4, tmp_path / "run") == (
        expected and str(tmp_path / expected if expected.startswith("run") else expected)
    )


def test_a_best_checkpoint_that_is_not_here_is_given_up(saved_folder, tmp_path, records, caplog):
    settings = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "ema_decay": 0.9}
    settings |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "max_steps": 2}
    trainer(saved_folder, tmp_path / "first", records, **settings).train()
    fetched = tmp_path / "hub" / "last-checkpoint"
    shutil.copytree(tmp_path / "first" / "checkpoint-1", fetched)
    state = json.loads((fetched / "trainer_state.json").read_text())
    state |= {"best_model_checkpoint": str(tmp_path / "first" / "checkpoint-0"), "best_metric": -1.0}
    (tmp_path / "first" / "checkpoint-0").mkdir()  # another run's
    (fetched / "trainer_state.json").write_text(json.dumps(state))
    seal_checkpoint(fetched)
    run = trainer(saved_folder, tmp_path / "second", records, **settings)
    run.train(resume_from_checkpoint=str(fetched))
    assert "checkpoint-0, is not of the run of" in caplog.text
    assert run.state.best_model_checkpoint == str(tmp_path / "second" / "checkpoint-2")
