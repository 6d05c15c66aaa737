"""The trainer on several processes gives the run of one process on the same batches."""

import json
import math

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from fgclip2.training import FGClip2ForTraining, FGClip2Objective
from fgclip2.training.gradient_cache import cached_step, split_batch

from ..checkpoints import official_folder, saved_folder  # noqa: F401
from ..ranks import run_on_ranks
from ..training import golden
from ..training.conftest import records_folder  # noqa: F401
from ..training.test_resuming import losses, run

# A lack of torch's CPU streams, not of CUDA's.
needs_fsdp2_on_cpu = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="FSDP2 of torch 2.6 does not run on a CPU"
)

GLOBAL = '--objective_settings={"region_negatives": "global"}'


def history(output) -> tuple[list[dict], dict]:
    rows = json.loads((output / "log.json").read_text())
    names = ("loss", "short_loss", "region_loss", "tic_loss", "hard_negative_loss", "margin", "logit_scale")
    trained = [[row[name] for name in names] for row in rows if "loss" in row]
    evaluated = next(row for row in rows if "eval_loss" in row)
    return trained, {name: value for name, value in evaluated.items() if "second" not in name and "runtime" not in name}


# What `accelerate launch` sets for recipes/accelerate/fsdp2.yaml, in float32.
FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "FGClip2EncoderLayer",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}


COMMON = ("--num_train_epochs=1", "--save_strategy=no", "--eval_strategy=epoch", GLOBAL, "--max_grad_norm=1.0")


@pytest.fixture(scope="module")
def run_of_one(saved_folder, records_folder, tmp_path_factory) -> tuple[list[dict], dict]:  # noqa: F811
    output = tmp_path_factory.mktemp("one")
    run(saved_folder, records_folder, output, *COMMON, "--per_device_eval_batch_size=7")
    return history(output)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "environment"),
    [
        pytest.param((), None, id="DDP"),
        pytest.param(("--gradient_cache_chunk_size=1",), None, id="DDP, gradient cache"),
        pytest.param(("--gradient_cache_chunk_size=1",), FSDP2, id="FSDP2, gradient cache", marks=needs_fsdp2_on_cpu),
        pytest.param(("--text_chunk_size=3",), None, id="DDP, texts in chunks"),
        pytest.param(
            ("--text_chunk_size=3", "--gradient_checkpointing", "true"),
            FSDP2,
            id="FSDP2, texts in chunks",
            marks=needs_fsdp2_on_cpu,
        ),
        pytest.param(
            ("--text_chunk_size=3", "--gradient_cache_chunk_size=1"),
            FSDP2,
            id="FSDP2, texts in chunks, gradient cache",
            marks=needs_fsdp2_on_cpu,
        ),
    ],
)
def test_two_processes_give_the_run_of_one(
    run_of_one,
    saved_folder,  # noqa: F811
    records_folder,  # noqa: F811
    tmp_path,
    options,
    environment,
):
    run(
        saved_folder,
        records_folder,
        tmp_path / "two",
        *COMMON,
        *options,
        "--per_device_train_batch_size=2",
        "--per_device_eval_batch_size=7",
        environment=environment,
        processes=2,
    )
    (one, evaluated_one), (two, evaluated_two) = run_of_one, history(tmp_path / "two")
    assert len(one) == 9
    for ours, theirs in zip(two, one, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)
    assert evaluated_two == pytest.approx(evaluated_one, rel=2e-3, abs=2e-3)


DISTILLED = '--objective_settings={"region_negatives": "global", "distillation_weight": 20.0}'


@pytest.mark.slow
@needs_fsdp2_on_cpu
def test_distillation_from_the_start_is_that_of_one_process(saved_folder, records_folder, tmp_path):  # noqa: F811
    """A high learning rate, so that the model leaves its start, and the distance counts."""
    options = ("--num_train_epochs=1", "--save_strategy=no", DISTILLED, "--max_grad_norm=1.0", "--learning_rate=1e-2")
    run(saved_folder, records_folder, tmp_path / "one", *options)
    for name, environment in (("DDP", None), ("FSDP2", FSDP2)):
        divided = ("--per_device_train_batch_size=2",)
        run(saved_folder, records_folder, tmp_path / name, *options, *divided, environment=environment, processes=2)
    one, *two = [losses_of_distillation(tmp_path / name) for name in ("one", "DDP", "FSDP2")]
    assert len(one) == 9
    assert one[0]["distillation_loss"] == pytest.approx(0, abs=1e-9)
    assert 20 * one[-1]["distillation_loss"] > 0.1 * one[-1]["loss"]
    for rows in two:
        for ours, theirs in zip(rows, one, strict=True):
            assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-5)


def losses_of_distillation(output) -> list[dict]:
    rows = json.loads((output / "log.json").read_text())
    return [{name: row[name] for name in ("loss", "distillation_loss")} for row in rows if "loss" in row]


@pytest.mark.slow
@needs_fsdp2_on_cpu
def test_a_killed_run_under_fsdp2_goes_on_as_if_it_had_not_been(saved_folder, records_folder, tmp_path):  # noqa: F811
    """Also of what it keeps beside the weights: their average, and the start, which is not what it goes on with."""
    options = ("--per_device_train_batch_size=2", "--num_train_epochs=1", "--ema_decay=0.9", DISTILLED)
    run(saved_folder, records_folder, tmp_path / "whole", *options, environment=FSDP2, processes=2)
    killed = {**FSDP2, "KILL_AT": "5", "KILL_SIGNAL": "SIGKILL"}
    run(saved_folder, records_folder, tmp_path / "killed", *options, environment=killed, processes=2, expect=1)
    run(saved_folder, records_folder, tmp_path / "killed", *options, environment=FSDP2, processes=2)
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    ways = [losses_of_distillation(tmp_path / name) for name in ("killed", "whole")]
    assert ways[0] == ways[1]
    assert ways[0][-1]["distillation_loss"] > 0
    weights = [load_file(tmp_path / name / "final" / "model.safetensors") for name in ("killed", "whole")]
    torch.testing.assert_close(weights[0], weights[1])


def shard_fully(model: torch.nn.Module) -> None:
    """FSDP2 with each encoder layer a unit."""
    from torch.distributed.fsdp import fully_shard

    for module in model.modules():
        if type(module).__name__ == "FGClip2EncoderLayer":
            fully_shard(module)
    fully_shard(model)


def cached_and_plain_loss_of_uneven_ranks() -> list[float]:
    """Four images on rank 0, two on rank 1."""
    from fgclip2.distributed import rank

    batch = split_batch(golden.batch(rank()), 4 - 2 * rank())[0]
    gradients, losses = [], []
    for cached in (True, False):
        model, objective = golden.model(), FGClip2Objective()
        shard_fully(model)
        if cached:
            losses.append(cached_step(model, objective, batch, 1)["loss"].item())
        else:
            loss = objective(model(**batch), batch)["loss"]
            loss.backward()
            losses.append(loss.item())
        gradients.append(model.vision_model.head.probe.grad.full_tensor())
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)
    return losses


@needs_fsdp2_on_cpu
def test_gradient_cache_on_sharded_ranks_with_unequal_numbers_of_images():
    for cached, plain in run_on_ranks(cached_and_plain_loss_of_uneven_ranks, 2):
        assert cached == pytest.approx(plain, rel=1e-5)


def fully_sharded_steps() -> dict:
    """Three steps under FSDP2, each layer a unit, with uneven regions: rank 1 has none."""
    from fgclip2.distributed import rank

    model, objective = golden.model(), FGClip2Objective(region_negatives="global")
    shard_fully(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = golden.batch(rank(), regions=None if rank() == 0 else 0, hard=None if rank() == 0 else 0)
    losses = []
    for _ in range(3):
        loss = objective(model(**batch), batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        total = loss.detach().clone()
        dist.all_reduce(total)
        losses.append((total / dist.get_world_size()).item())
    state = {name: p.full_tensor() for name, p in model.named_parameters()}
    return {"losses": losses, "state": state}


@needs_fsdp2_on_cpu
def test_fully_sharded_training_is_that_of_one_process():
    results = run_on_ranks(fully_sharded_steps, 2)
    model, objective = golden.model(), FGClip2Objective(region_negatives="global")
    first, second = golden.batch(0), golden.batch(1, regions=0, hard=0)
    for name in ("region_index", "hard_index"):
        second[name] = second[name] + torch.tensor([4, 0])
    batch = {name: torch.cat([first[name], second[name]]) for name in first}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(3):
        loss = objective(model(**batch), batch)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    for result in results:
        assert result["losses"] == pytest.approx(losses, rel=1e-4)
        assert all(math.isfinite(value) for value in result["losses"])
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(result["state"][name], parameter.detach(), rtol=1e-3, atol=1e-4, msg=name)
    assert isinstance(model, FGClip2ForTraining)
