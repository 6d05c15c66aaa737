"""After R2D2's description: steps of two processes are those of one with all pairs, and so are queue and teacher."""

import torch
from torch.nn.parallel import DistributedDataParallel

from fgclip2.training import AfterR2D2ForPreTraining, AfterR2D2Settings
from tests import golden_of_r2d2

from ..ranks import run_on_ranks

INPUTS = golden_of_r2d2.tensors("inputs")
# Batches of two pairs: each has one other image and one other text, so that negatives need no chance.
STEPS = (slice(0, 2), slice(2, 4), slice(4, 6))
PLACES = 5  # of the queue, which the third step fills and wraps around


def pairs(rows: slice) -> dict[str, torch.Tensor]:
    """As many tokens masked in each text, for a rank's mean is of its own."""
    part = {name: INPUTS[name][rows] for name in ("pixel_values", "input_ids", "attention_mask")}
    labels = torch.full_like(part["input_ids"], -100)
    labels[:, 1:3] = part["input_ids"][:, 1:3]
    masked = part["input_ids"].clone()
    masked[:, 1:3] = 4
    return part | {"masked_input_ids": masked, "masked_labels": labels, "ids": torch.arange(6)[rows]}


def without_dropout(model: torch.nn.Module) -> torch.nn.Module:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model


def trained(form: str) -> dict[str, torch.Tensor]:
    """Three steps of SGD on this rank's pairs."""
    from fgclip2.distributed import rank, world_size

    torch.manual_seed(0)  # of the new head
    model = without_dropout(AfterR2D2ForPreTraining.from_model(golden_of_r2d2.model())).train()
    memory = model.start(
        AfterR2D2Settings(queue_size=PLACES, momentum=0.5, alpha_epochs=0.0, mlm_alpha=0.4, fgd_form=form)
    )
    wrapped = DistributedDataParallel(model) if world_size() > 1 else model
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    for step, rows in enumerate(STEPS):
        own = slice(rows.start + rank(), rows.start + rank() + 1) if world_size() > 1 else rows
        outputs = wrapped(**pairs(own))
        optimizer.zero_grad()
        outputs["loss"].backward()
        optimizer.step()
        memory.end_step(float(step))
        losses.append(torch.stack([outputs[name].detach() for name in sorted(outputs)]))
    queue = {"images": memory.queue.images, "texts": memory.queue.texts, "ids": memory.queue.ids}
    state = {**queue, **{f"teacher.{name}": p for name, p in memory.teacher.named_parameters()}}
    state |= {name: p.detach() for name, p in model.named_parameters()}
    return {"losses": torch.stack(losses), **state}


def test_steps_of_two_processes_are_those_of_one():
    one, two = trained("relational"), run_on_ranks(trained, 2, "relational")
    assert one["ids"].tolist() == [5, 1, 2, 3, 4]
    torch.testing.assert_close(
        (two[0].pop("losses") + two[1].pop("losses")) / 2, one.pop("losses"), rtol=1e-4, atol=1e-5
    )
    for name, expected in one.items():
        assert torch.equal(two[0][name], two[1][name]), name  # bit by bit: ranks must not part
        torch.testing.assert_close(two[0][name], expected, rtol=1e-4, atol=5e-6, msg=name)
