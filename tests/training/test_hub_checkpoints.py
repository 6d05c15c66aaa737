"""Checkpoints of a run on the hub: pushed whole, gone on from by name, and no pickle ever fetched."""

import json
from concurrent.futures import Future
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from transformers import TrainerCallback

from fgclip2.training.hub_checkpoints import fetch_checkpoint, locate_checkpoint
from fgclip2.training.run import checkpoint_to_resume

from ..hub.server import COMMIT, stand_in
from ..ranks import run_on_ranks
from .test_trainer import arguments, logs, trainer

PUSHING = {
    "push_to_hub": True,
    "hub_model_id": "acme/tiny",
    "hub_strategy": "checkpoint",
    "hub_token": "hf_test",
    "save_strategy": "steps",
    "save_steps": 2,
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with stand_in() as received:
        monkeypatch.setattr(constants, "ENDPOINT", received.endpoint)
        template = received.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)  # it remembers its endpoint
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield received


def test_a_run_goes_on_from_the_hub_bit_equal(saved_folder, tmp_path, records, hub):
    whole = trainer(saved_folder, tmp_path / "whole", records, max_steps=4)
    whole.train()
    stopped = trainer(saved_folder, tmp_path / "stopped", records, max_steps=4, **PUSHING | {"save_steps": 3})
    stopped.train()
    pushed = {name for name in hub.files if name.startswith("last-checkpoint/")}
    assert pushed == set(hub.files)  # unfinished weights do not become the model
    assert not any(name.endswith((".pt", ".bin", ".pth", ".pkl")) for name in pushed)
    # As if the run had died before its last step, and someone had put a pickle beside what it left.
    sealed = tmp_path / "stopped" / "checkpoint-3"
    hub.files.clear()
    hub.files |= {f"last-checkpoint/{path.name}": path.read_bytes() for path in sealed.iterdir()}
    hub.files["last-checkpoint/optimizer.pt"] = b"a pickle"

    again = trainer(saved_folder, tmp_path / "again", records, max_steps=4, hub_token="hf_test")
    again.train(resume_from_checkpoint="acme/tiny")
    assert again.steps_taken == 1
    assert logs(again)[-1]["loss"] == logs(whole)[-1]["loss"]
    assert not list((tmp_path / "cache").rglob("optimizer.pt"))
    assert all(f"/{COMMIT}/" in path or "main" in path for path in hub.paths if path.startswith("/acme/tiny/resolve/"))


def test_all_checkpoints_are_pushed_by_their_names(saved_folder, tmp_path, records, hub):
    settings = {**PUSHING, "hub_strategy": "all_checkpoints", "max_steps": 2, "save_steps": 1, "hub_always_push": True}
    trainer(saved_folder, tmp_path / "run", records, **settings).train()
    assert {name.partition("/")[0] for name in hub.files} == {"checkpoint-1", "checkpoint-2"}
    folder = fetch_checkpoint("acme/tiny/checkpoint-1", revision="main")
    assert json.loads((folder / "trainer_state.json").read_text())["global_step"] == 1
    hub.files["checkpoint-1/trainer_state.json"] += b" "
    (folder / "trainer_state.json").unlink()
    run = trainer(saved_folder, tmp_path / "other", records, max_steps=2)
    with pytest.raises(ValueError, match=r"has other content than checksums\.json says"):
        run.train(resume_from_checkpoint="acme/tiny/checkpoint-1")


class OnItsWay(Future):
    """A push that takes until it is waited for, and needs its folder until then."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def exception(self, timeout=None):
        assert self.folder.is_dir()
        self.set_result(None)
        return super().exception(timeout)


@pytest.fixture
def pushes(hub, monkeypatch):
    """All pushes that are begun."""
    begun = []
    monkeypatch.setattr(
        "fgclip2.training.trainer.push_checkpoint",
        lambda folder, *_: begun.append(OnItsWay(folder)) or begun[-1],
    )
    return begun


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [1, 5]),  # the first, and the newest, at the end
        ({"hub_always_push": True}, [1, 2, 3, 4, 5]),
        ({"save_total_limit": 2}, [1, 3, 5]),  # the third would let the first be removed
        ({"save_total_limit": 1}, [1, 2, 3, 4, 5]),
    ],
)
def test_training_does_not_wait_for_a_push(saved_folder, tmp_path, records, pushes, settings, expected):
    run = trainer(saved_folder, tmp_path / "run", records, **PUSHING | {"save_steps": 1, "max_steps": 5} | settings)
    run.train()
    assert [push.folder.name for push in pushes] == [f"checkpoint-{step}" for step in expected]
    assert all(push.done() for push in pushes)


@pytest.mark.parametrize(("limit", "kept"), [(1, [1]), (2, [1, 3])])
def test_the_newest_checkpoint_is_pushed_before_it_is_removed(saved_folder, tmp_path, records, pushes, limit, kept):
    settings = {"save_steps": 1, "max_steps": 3, "save_total_limit": limit, "eval_strategy": "steps", "eval_steps": 1}
    settings["metric_for_best_model"] = "skipped"  # always 0, so the first one stays the best
    trainer(saved_folder, tmp_path / "run", records, **PUSHING | settings).train()
    assert [push.folder.name for push in pushes] == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    assert all(push.done() for push in pushes)
    assert {path.name for path in (tmp_path / "run").glob("checkpoint-*")} == {f"checkpoint-{step}" for step in kept}


class StopWithoutSaving(TrainerCallback):
    """Stops a run at its fourth step, of which there is no checkpoint."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 4:
            control.should_save, control.should_training_stop = False, True


def test_the_newest_checkpoint_is_pushed_where_training_stops_without_one(
    saved_folder, tmp_path, records, pushes, caplog
):
    run = trainer(saved_folder, tmp_path / "run", records, **PUSHING | {"save_steps": 1, "max_steps": 5})
    run.add_callback(StopWithoutSaving)
    with caplog.at_level("INFO", logger="fgclip2"):
        run.train()
    assert [push.folder.name for push in pushes] == ["checkpoint-1", "checkpoint-3"]
    assert all(push.done() for push in pushes)
    for step in (2, 3):
        assert f"checkpoint-{step} is not pushed now, for one before it is still on its way" in caplog.text


def test_what_may_be_a_pickle_is_refused_by_name(hub):
    hub.files["last-checkpoint/checksums.json"] = json.dumps({"sha256": {"optimizer.bin": "0", "a.json": "1"}}).encode()
    hub.files["last-checkpoint/optimizer.bin"] = b"a pickle"
    with pytest.raises(ValueError, match=r"last-checkpoint/optimizer.bin may be a pickle, .*only safetensors and text"):
        fetch_checkpoint("acme/tiny")
    assert not any("optimizer.bin" in path for path in hub.paths)


def test_a_repository_without_a_checkpoint(hub):
    with pytest.raises(ValueError, match="acme/tiny is no folder, and as a checkpoint last-checkpoint of acme/tiny"):
        fetch_checkpoint("acme/tiny")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/ckpt", "runs/ckpt is no folder, and is not looked for on the hub, for runs is a folder here: correct"),
        (
            "./runs/ckpt",
            "./runs/ckpt is no folder, and no checkpoint on the hub, which would be owner/name, owner/name",
        ),
        ("a/b/c/checkpoint-3", "a/b/c/checkpoint-3 is no folder, and no checkpoint on the hub"),
    ],
)
def test_a_mistyped_path_is_not_asked_of_the_hub(tmp_path, monkeypatch, hub, name, message):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        locate_checkpoint(name, "run")
    assert not hub.paths
    with pytest.raises(ValueError, match="runs/ckpt is no folder, and as a checkpoint last-checkpoint of runs/ckpt"):
        locate_checkpoint("runs/ckpt", "run", revision="main")


def test_a_revision_of_a_folder_has_no_effect_and_says_so(tmp_path, caplog):
    assert locate_checkpoint(str(tmp_path), "run", revision="v1") == str(tmp_path)
    assert f"`resume_revision` v1 has no effect: {tmp_path} is a folder, and not on the hub" in caplog.text


def locate_on_rank(folder: str, others: str) -> str:
    """As on two nodes, of which one has the folder."""
    from fgclip2.distributed import rank

    try:
        return locate_checkpoint(others if rank() else folder, "run")
    except ValueError as error:
        return str(error)


def test_a_folder_of_one_node_is_an_error_on_all(tmp_path):
    lost = str(tmp_path / "lost")
    messages = run_on_ranks(locate_on_rank, 2, str(tmp_path), lost)
    assert messages == [
        f"{path} is not the same on all processes: choose a folder that all nodes share" for path in (tmp_path, lost)
    ]


def test_a_hub_that_is_gone_does_not_end_a_run(saved_folder, tmp_path, records, hub, caplog, monkeypatch):
    run = trainer(saved_folder, tmp_path / "run", records, max_steps=2, **PUSHING)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nothing listens
    monkeypatch.setattr(
        "huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None)
    )  # between tries
    run.train()
    assert run.state.global_step == 2
    assert "a checkpoint could not be pushed to acme/tiny" in caplog.text


def test_own_checkpoints_are_gone_on_from_first(tmp_path):
    args = arguments(tmp_path / "run", resume_from_checkpoint="acme/tiny")
    assert checkpoint_to_resume(args, resume=False) == "acme/tiny"
    (tmp_path / "run" / "checkpoint-3").mkdir(parents=True)
    (tmp_path / "run" / "checkpoint-3" / "checksums.json").write_text('{"sha256": {}}')
    assert checkpoint_to_resume(args, resume=True) == str(tmp_path / "run" / "checkpoint-3")
    with pytest.raises(ValueError, match="pass --resume to go on"):
        checkpoint_to_resume(args, resume=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hub_strategy": "every_save"}, "must be 'end', 'checkpoint' or 'all_checkpoints', .*, got 'every_save'"),
        ({"hub_strategy": "checkpoint", "save_only_model": True}, "save_only_model leaves out what a run goes on with"),
    ],
)
def test_strategies_that_leave_nothing_to_go_on_from(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, push_to_hub=True, **settings)
