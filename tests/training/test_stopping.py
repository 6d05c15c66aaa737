"""What ends a run before its last step."""

import math
import multiprocessing
import os
import signal
import subprocess

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback

from fgclip2.errors import NotFiniteError
from fgclip2.training import FGClip2Trainer
from fgclip2.training.checkpoints import last_checkpoint
from fgclip2.training.start import load_for_training
from fgclip2.training.stopping import NotedSigterm, check_step, check_weights, heed_parent_only, losses_in_order

from ..ranks import run_on_ranks
from .test_trainer import arguments, logs, trainer


class Poison(TrainerCallback):
    """Calls a function before a step."""

    def __init__(self, step, function):
        self.step, self.function = step, function

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step + 1 == self.step:
            self.function()


def scale(model):
    return next(parameter for name, parameter in model.named_parameters() if name.endswith("logit_scale_hardneg"))


@pytest.mark.parametrize(
    ("settings", "lora"),
    [
        ({}, False),
        ({"gradient_accumulation_steps": 2}, False),
        ({"gradient_cache_chunk_size": 2}, False),
        ({"gradient_cache_chunk_size": 2, "gradient_accumulation_steps": 2, "max_grad_norm": 0.0}, True),
    ],
)
def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing(saved_folder, tmp_path, records, settings, lora):
    settings = {"max_steps": 5, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 1, **settings}
    run = trainer(saved_folder, tmp_path, records, **settings)
    if lora:
        from fgclip2.training.lora import add_lora, lora_config

        model = add_lora(load_for_training(saved_folder), lora_config(2))
        run = FGClip2Trainer(model, arguments(tmp_path, **settings), records, processing_class=run.processing_class)
    run.add_callback(Poison(3, lambda: scale(run.model).data.fill_(math.nan)))
    # The terms before it are finite: losses of captions and regions don't have this scale.
    with pytest.raises(NotFiniteError, match=r"^contrast_loss is not finite \(nan\) at step 3, so .*is checkpoint-2\."):
        run.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert last_checkpoint(tmp_path)
    assert run.state.global_step == 2


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_step(saved_folder, tmp_path, records):
    run = trainer(saved_folder, tmp_path, records, max_steps=3)
    weight = run.model.vision_model.encoder.layers[0].mlp.fc1.weight
    before = {}

    def poison():
        before["weight"] = weight.detach().clone()
        weight.register_hook(lambda gradient: gradient.fill_(math.inf))

    run.add_callback(Poison(2, poison))
    with pytest.raises(
        NotFiniteError, match=r"^the gradient norm is not finite \((inf|nan)\) at step 2, .*no checkpoint"
    ):
        run.train()
    assert torch.equal(weight, before["weight"])


def test_weights_that_are_not_finite_are_not_saved(saved_folder, tmp_path, records):
    """The loss shows them in the next step only."""
    run = trainer(saved_folder, tmp_path, records, max_steps=2)
    run.train()
    with torch.no_grad():
        run.model.longtext_head.bias[0] = math.inf
    with pytest.raises(NotFiniteError, match=r"^the weight longtext_head.bias is not finite after step 2, "):
        run._save_checkpoint(run.model, None)
    assert not any(tmp_path.glob("checkpoint-*"))


def on_each_rank(margin: float) -> list[str]:
    """The texts of what is raised: first of a step whose region loss is bad on rank 1 alone, then of its margin."""
    from fgclip2.distributed import rank

    messages = []
    for bad in (rank() == 1, False):
        losses = {"loss": torch.tensor(1.0), "region": torch.tensor(math.inf if bad else 1.0)}
        values = [*losses_in_order(losses), ("margin", torch.tensor(margin))]
        try:
            check_step(7, values, "无")
        except NotFiniteError as error:
            messages.append(str(error))
    layer = torch.nn.Linear(1, 1)
    layer.bias.data.fill_(1.0 if rank() == 0 else math.nan)
    try:
        check_weights(7, layer.named_parameters(), "无")
    except NotFiniteError as error:
        messages.append(str(error))
    return messages


def told_to_stop() -> list[bool]:
    from fgclip2.distributed import rank

    values = [("loss", torch.tensor(1.0))]
    return [check_step(1, values, "无", told) for told in (False, rank() == 1)]


def test_all_ranks_stop_if_one_is_told_to():
    assert run_on_ranks(told_to_stop, 2) == [[False, True], [False, True]]


def terminate_from_outside(process) -> None:
    subprocess.run(["kill", "-TERM", str(process.pid)], check=True)


@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_workers_end_by_their_parent_only(context):
    """Under `forkserver` the parent of the system is another process than the one that has started them."""
    loader = DataLoader(range(8), num_workers=1, multiprocessing_context=context, worker_init_fn=heed_parent_only)
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    terminate_from_outside(worker)
    assert [int(batch) for batch in batches] == list(range(1, 8))
    batches = iter(loader)
    next(batches)
    (worker,) = batches._workers
    worker.terminate()
    worker.join(10)
    assert worker.exitcode is not None


def test_workers_of_an_evaluation_go_on(saved_folder, tmp_path, records):
    loader = trainer(saved_folder, tmp_path, records, dataloader_num_workers=1).get_eval_dataloader(records)
    batches = iter(loader)
    next(batches)
    terminate_from_outside(batches._workers[0])
    assert len(list(batches)) == len(loader) - 1


def terminate_all() -> None:
    """As a scheduler does: from outside, and the loader's workers too."""
    workers = [str(child.pid) for child in multiprocessing.active_children()]
    assert len(workers) == 2
    subprocess.run(["kill", "-TERM", *workers, str(os.getpid())], check=True)


def test_sigterm_saves_and_exits(saved_folder, tmp_path, records, caplog):
    settings = {
        "max_steps": 3,
        "save_strategy": "steps",
        "save_steps": 100,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "dataloader_num_workers": 2,
    }
    whole = trainer(saved_folder, tmp_path / "whole", records, **settings)
    whole.train()
    before = signal.getsignal(signal.SIGTERM)
    run = trainer(saved_folder, tmp_path / "run", records, **settings)
    run.add_callback(Poison(2, terminate_all))
    with pytest.raises(SystemExit) as raised:
        run.train()
    assert raised.value.code == 143
    assert "SIGTERM: saved step 2, and stopped; --resume goes on from there" in caplog.text
    assert signal.getsignal(signal.SIGTERM) is before
    assert last_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "checkpoint-2")
    again = trainer(saved_folder, tmp_path / "run", records, **settings)
    again.train(resume_from_checkpoint=True)
    assert [row["loss"] for row in logs(again)] == [row["loss"] for row in logs(whole)]


def test_a_signal_that_nobody_heeds_is_not_lost():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
    try:
        with NotedSigterm() as noted:
            os.kill(os.getpid(), signal.SIGTERM)
            assert noted.received
            assert not heard
        assert heard == [1]
        with NotedSigterm():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # the second is one too many
            assert heard == [1, 1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_all_ranks_stop_together():
    for messages in run_on_ranks(on_each_rank, 2, math.nan):
        region, margin, weight = messages
        assert region.startswith("region_loss is not finite (inf) at step 7 on rank 1, so the run stops")
        assert margin.startswith("margin is not finite (nan) at step 7 on rank 0, so")
        assert weight.startswith("the weight bias is not finite after step 7 on rank 1, so")
