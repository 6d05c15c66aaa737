"""Losses and parameter gradients on 1, 2 and 3 processes, against one process and against the official code."""

import pytest
import torch
from torch import Tensor

from fgclip2.training.losses.sigmoid_over_ranks import SIGMOID_FORMS
from fgclip2.training.objective import DISTILLED, FGClip2Objective

from ..ranks import run_on_ranks
from ..training import golden
from ..training.test_objective import COMPONENTS

# Of the images of golden batches 0 and 1 after another: which go to which rank. Unevenly, and once to one rank alone.
SHARES = {1: [8], 2: [5, 3], 3: [4, 1, 3]}


def joined_batch() -> dict[str, Tensor]:
    first, second = golden.batch(0), golden.batch(1)
    for name in ("region_index", "hard_index"):
        second[name] = second[name] + torch.tensor([4, 0])
    return {name: torch.cat([first[name], second[name]]) for name in first}


def share(batch: dict[str, Tensor], first: int, last: int, with_regions: bool = True) -> dict[str, Tensor]:
    """The images from `first` to before `last`, with all that is theirs."""
    part = {}
    for name, value in batch.items():
        if name.startswith(("region_", "hard_")):
            index = batch[f"{name.split('_')[0]}_index"]
            kept = (index[:, 0] >= first) & (index[:, 0] < last) & with_regions
            part[name] = value[kept] - torch.tensor([first, 0]) if name.endswith("_index") else value[kept]
        else:
            part[name] = value[first:last]
    return part


def layout(world_size: int, all_regions_on_first: bool) -> list[dict[str, Tensor]]:
    batch, ends = joined_batch(), torch.tensor(SHARES[world_size]).cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    return [
        share(batch, start, end, with_regions=rank == 0 or not all_regions_on_first)
        for rank, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def compute(batch: dict[str, Tensor], across_ranks: bool = True, **settings) -> dict:
    model, objective = golden.model(), FGClip2Objective("released", **settings)
    objective.margin.fill_(0.8)
    outputs = model(**batch)
    # As if the frozen start had made others of the same rows.
    targets = {f"start_{name}": outputs[name].detach().roll(1, 1) for name in DISTILLED}
    losses = objective(outputs, batch | targets, across_ranks=across_ranks)
    losses["loss"].backward()
    return {
        "losses": {name: value.detach() for name, value in losses.items()},
        "gradients": {
            name: torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in model.named_parameters()
            if p.requires_grad
        },
        "untrained": [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None],
        "margin": objective.margin.clone(),
    }


def mean_over_ranks(results: list[dict]) -> dict:
    """As DDP averages gradients."""
    return {
        kind: {name: torch.stack([result[kind][name] for result in results]).mean(0) for name in results[0][kind]}
        for kind in ("losses", "gradients")
    }


GLOBAL = {"region_negatives": "global", "distillation_weight": 0.7}
CASES = {
    **{f"global {form}": {**GLOBAL, "sigmoid_form": form} for form in SIGMOID_FORMS},
    "local": {"region_negatives": "local", "sigmoid_form": "ring"},
    "paper margin": {"region_negatives": "local", "margin_ranks": "with_hard_negatives"},
}


def on_rank(world_size: int) -> dict:
    from fgclip2.distributed import rank

    results = {}
    for all_on_first in (False, True):
        batch = layout(world_size, all_on_first)[rank()]
        for case, settings in CASES.items():
            results[f"{case} {all_on_first}"] = compute(batch, **settings)
    return results


@pytest.fixture(scope="module", params=[1, 2, 3])
def over_ranks(request):
    return request.param, run_on_ranks(on_rank, request.param, request.param)


def assert_same(actual: dict, expected: dict) -> None:
    for name, value in expected["losses"].items():
        torch.testing.assert_close(actual["losses"][name], value, rtol=1e-5, atol=1e-6, msg=name)
    for name, gradient in expected["gradients"].items():
        # The keys' bias has a gradient of zero but for rounding: softmax does not see what is added to all scores.
        rounding = 1e-5 if name.endswith("k_proj.bias") else 1e-6
        tolerance = rounding + 2e-5 * gradient.abs().max().item()
        torch.testing.assert_close(actual["gradients"][name], gradient, rtol=0, atol=tolerance, msg=name)


def test_every_parameter_gets_a_gradient_on_every_rank(over_ranks):
    """DDP waits for it."""
    for result in over_ranks[1]:
        assert not any(case["untrained"] for case in result.values())


@pytest.mark.parametrize("all_on_first", [False, True])
@pytest.mark.parametrize("form", SIGMOID_FORMS)
def test_global_losses_are_those_of_one_process(over_ranks, form, all_on_first):
    world_size, results = over_ranks
    parts = layout(world_size, all_on_first)
    whole = joined_batch()
    if all_on_first:  # only the first rank's images keep their regions
        whole = {**share(whole, 0, 8), **{k: v for k, v in parts[0].items() if k.startswith(("region_", "hard_"))}}
    expected = compute(whole, **GLOBAL)
    assert expected["losses"]["distillation"] > 0.1
    assert_same(mean_over_ranks([result[f"global {form} {all_on_first}"] for result in results]), expected)
    for result in results:
        torch.testing.assert_close(result[f"global {form} {all_on_first}"]["margin"], expected["margin"])


@pytest.mark.parametrize("all_on_first", [False, True])
def test_local_region_losses_are_the_mean_of_each_rank_by_itself(over_ranks, all_on_first):
    world_size, results = over_ranks
    actual = mean_over_ranks([result[f"local {all_on_first}"] for result in results])
    alone = [compute(part, short_weight=0.0, long_weight=0.0) for part in layout(world_size, all_on_first)]
    whole = compute(joined_batch(), region_weight=0.0, tic_weight=0.0, hard_negative_weight=0.0)
    expected = mean_over_ranks(alone)
    for name in expected["gradients"]:
        expected["gradients"][name] += whole["gradients"][name]
    expected["losses"] |= {name: whole["losses"][name] for name in ("short", "long")}
    expected["losses"]["loss"] = expected["losses"]["loss"] + whole["losses"]["loss"]
    assert_same(actual, expected)


@pytest.mark.parametrize("all_on_first", [False, True])
def test_margins_of_both_presets(over_ranks, all_on_first):
    world_size, results = over_ranks
    alone = [  # one process by itself: its margin, or the old one without hard negatives; clamped only after the mean
        (compute(part, margin_bounds=(-100.0, 100.0))["margin"], len(part["hard_index"]) > 0)
        for part in layout(world_size, all_on_first)
    ]
    released = torch.stack([margin for margin, _ in alone]).mean().clamp(0, 10)
    paper = torch.stack([margin for margin, has_hard in alone if has_hard]).mean().clamp(0, 10)
    for result in results:
        torch.testing.assert_close(result[f"local {all_on_first}"]["margin"], released)
        torch.testing.assert_close(result[f"paper margin {all_on_first}"]["margin"], paper)


def official_on_rank(hard_on_all: bool, margin: float) -> dict:
    from fgclip2.distributed import rank

    batch = golden.batch(rank(), hard=None if hard_on_all or rank() == 0 else 0)
    model, objective = golden.model(), FGClip2Objective("released")
    objective.margin.fill_(margin)
    losses = objective(model(**batch), batch)
    losses["loss"].backward()
    return {
        "losses": {name: value.item() for name, value in losses.items()},
        "gradients": {name: p.grad for name, p in model.named_parameters() if p.requires_grad},
        "margin": objective.margin.item(),
    }


@pytest.mark.parametrize(("case", "hard_on_all"), [("full_reduce.step2", True), ("mixed_hard.step1", False)])
def test_two_processes_are_the_official_two(case, hard_on_all):
    tensors, results = golden.outputs()
    margin = results[f"w2.{case}.rank0"]["threshold_in"]
    for rank, ours in enumerate(run_on_ranks(official_on_rank, 2, hard_on_all, margin)):
        theirs = results[f"w2.{case}.rank{rank}"]
        for name, key in COMPONENTS.items():
            assert ours["losses"][name] == pytest.approx(theirs.get(key, 0.0), rel=2e-5, abs=2e-5), name
        assert ours["losses"]["loss"] == pytest.approx(theirs["total_loss"], rel=2e-5)
        assert ours["margin"] == pytest.approx(theirs["thresholds_after"], abs=2e-5)
        for name, gradient in ours["gradients"].items():
            assert gradient.norm().item() == pytest.approx(theirs["grad_l2_norms"][name] or 0.0, rel=3e-4, abs=1e-6), (
                name
            )
            key = f"w2.{case}.rank{rank}.grad.{name}"
            if key in tensors:
                tolerance = 1e-6 + 1e-4 * tensors[key].abs().max().item()
                torch.testing.assert_close(gradient, tensors[key].view_as(gradient), rtol=0, atol=tolerance, msg=name)
