"""R2D2's tasks on several processes give the step of one process with all pairs."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from fgclip2.training import R2D2ForImageTextMatching, R2D2ForImageTextRetrieval
from tests import golden_of_r2d2

from ..ranks import run_on_ranks

MODELS = {"retrieval": R2D2ForImageTextRetrieval, "matching": R2D2ForImageTextMatching}
INPUTS = golden_of_r2d2.tensors("inputs")


def batch(objective: str, rows: slice) -> dict[str, torch.Tensor]:
    """Pairs of two images: each has one other image and one other text, so that negatives need no chance."""
    part = {name: INPUTS[name][rows] for name in ("pixel_values", "input_ids", "attention_mask")}
    return part | ({"ids": torch.tensor([7, 9])[rows]} if objective == "retrieval" else {"labels": LABELS[rows]})


LABELS = torch.tensor([1, 0])


def step(objective: str) -> dict[str, torch.Tensor]:
    """One step of SGD on this rank's pair; without dropout, as `eval()` has it."""
    from fgclip2.distributed import rank, world_size

    model = golden_of_r2d2.model(MODELS[objective])
    wrapped = DistributedDataParallel(model) if world_size() > 1 else model
    own = slice(rank(), rank() + 1) if world_size() > 1 else slice(0, 2)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    outputs = wrapped(**batch(objective, own))
    outputs["loss"].backward()
    optimizer.step()
    return {"loss": outputs["loss"].detach(), **{name: p.detach() for name, p in model.named_parameters()}}


@pytest.mark.parametrize("objective", ["retrieval", "matching"])
def test_a_step_of_two_processes_is_that_of_one(objective):
    one, two = step(objective), run_on_ranks(step, 2, objective)
    start = golden_of_r2d2.model()
    assert any(not torch.equal(one[name], p) for name, p in start.named_parameters())
    torch.testing.assert_close(torch.stack([two[0].pop("loss"), two[1].pop("loss")]).mean(), one.pop("loss"))
    for name, expected in one.items():
        for found in two:
            torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=2e-6, msg=name)


def evaluated(objective: str) -> dict[str, float]:
    """Six pairs of an evaluation, three at a time; two processes have a batch each."""
    from fgclip2.distributed import rank, world_size

    model = golden_of_r2d2.model(MODELS[objective])
    settings = {"candidates": 2} if objective == "retrieval" else {}
    own = model.task.make_objective(objective, settings)
    batches = []
    for start in range(3 * rank(), 6, 3 * world_size()):
        rows = slice(start, start + 3)
        hashes = torch.arange(6)[rows]
        part = {name: INPUTS[name][rows] for name in ("pixel_values", "input_ids", "attention_mask")}
        part |= {"ids": hashes} if objective == "retrieval" else {"labels": hashes % 2}
        batches.append(part | {"image_hash": hashes, "text_hash": hashes, "skipped": []})
    embedded, means, _ = model.task.embed_batches(model, batches, own)
    # What is gathered does not grow with the tokens of images or texts.
    assert all(values.ndim <= 2 for values in embedded.values())
    return means | model.task.evaluation_metrics(embedded)


@pytest.mark.parametrize("objective", ["retrieval", "matching"])
def test_two_processes_evaluate_as_one(objective):
    one = evaluated(objective)
    assert len(one) == {"retrieval": 15, "matching": 3}[objective]
    for found in run_on_ranks(evaluated, 2, objective):
        assert found == pytest.approx(one, abs=1e-5)
