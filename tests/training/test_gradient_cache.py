"""The cached step equals the plain one, whatever the chunks."""

import pytest
import torch

from fgclip2.modeling.modeling_fgclip2 import SCALES
from fgclip2.training.gradient_cache import cached_step, split_batch
from fgclip2.training.objective import FGClip2Objective

from . import golden


def plain_step(batch):
    model, objective = golden.model(), FGClip2Objective()
    losses = objective(model(**batch), batch)
    losses["loss"].backward()
    return model, objective, losses


def assert_same_gradients(model, other):
    for (name, parameter), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        if parameter.requires_grad:
            tolerance = 1e-6 + 2e-5 * theirs.grad.abs().max().item()
            torch.testing.assert_close(parameter.grad, theirs.grad, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 8])
def test_values_gradients_and_margin_are_those_of_the_plain_step(chunk_size):
    batch = golden.batch(0)
    plain, plain_objective, expected = plain_step(batch)
    model, objective = golden.model(), FGClip2Objective()
    losses = cached_step(model, objective, batch, chunk_size)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value.detach(), msg=name)
    torch.testing.assert_close(objective.margin, plain_objective.margin)
    assert_same_gradients(model, plain)


def test_gradients_add_up_and_are_scaled():
    batch = golden.batch(0)
    plain, _, _ = plain_step(batch)
    model = golden.model()
    for _ in range(2):
        cached_step(model, FGClip2Objective(), batch, 2, scale=0.5)
    assert_same_gradients(model, plain)


def model_with_dropout():
    model = golden.model()
    for module in model.modules():
        if hasattr(module, "dropout"):
            module.dropout = 0.3
    return model


@pytest.mark.parametrize("chunk_size", [1, 2, 4])
def test_dropout_is_the_same_in_both_passes(chunk_size):
    """With other masks in the second pass the gradients would belong to another function."""
    batch = golden.batch(0)
    model, plain = model_with_dropout(), model_with_dropout()
    torch.manual_seed(3)
    losses = cached_step(model, FGClip2Objective(), batch, chunk_size)
    torch.manual_seed(3)
    pieces = [plain(**chunk) for chunk in split_batch(batch, chunk_size)]  # each draws masks of its own
    together = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0] if name not in SCALES}
    expected = FGClip2Objective()({**pieces[0], **together}, batch)["loss"]
    expected.backward()
    torch.testing.assert_close(losses["loss"], expected.detach())
    assert_same_gradients(model, plain)


def test_random_state_goes_on_where_the_first_pass_left_it():
    batch, model = golden.batch(0), model_with_dropout()
    torch.manual_seed(0)
    cached_step(model, FGClip2Objective(), batch, 2)
    after = torch.rand(1)
    torch.manual_seed(0)
    untouched = torch.rand(1)
    torch.manual_seed(0)
    with torch.no_grad():
        for chunk in split_batch(batch, 2):
            model(**chunk)
    assert torch.equal(torch.rand(1), after)
    assert not torch.equal(untouched, after)


def test_captions_of_some_images_and_no_regions():
    batch = golden.batch(0, regions=0, hard=0)
    batch["long_input_ids"], batch["long_image_index"] = batch["long_input_ids"][1:3], torch.tensor([1, 2])
    plain, _, expected = plain_step(batch)
    model = golden.model()
    losses = cached_step(model, FGClip2Objective(), batch, 2)
    torch.testing.assert_close(losses["loss"], expected["loss"].detach())
    assert_same_gradients(model, plain)


def test_chunks_hold_each_row_once_with_its_image():
    batch = golden.batch(0)
    chunks = split_batch(batch, 3)
    assert [len(chunk["pixel_values"]) for chunk in chunks] == [3, 1]
    assert torch.equal(torch.cat([chunk["hard_input_ids"] for chunk in chunks]), batch["hard_input_ids"])
    boxes = torch.cat([chunk["boxes"][tuple(chunk["region_index"].T)] for chunk in chunks])
    assert torch.equal(boxes, batch["boxes"][tuple(batch["region_index"].T)])
