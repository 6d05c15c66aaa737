"""Distillation from the frozen start: the loss, what it is of, and runs that go on with the same one."""

import json
from dataclasses import replace

import pytest
import torch

from fgclip2.data import RecordDataset
from fgclip2.training import FGClip2Objective, FGClipForTraining
from fgclip2.training.distillation import FrozenStart
from fgclip2.training.estimates import DataSummary
from fgclip2.training.losses import feature_distillation_loss
from fgclip2.training.objective import DISTILLED
from fgclip2.training.parameters import belongs_to

from . import golden
from .test_fgclip import MODEL, golden_batch
from .test_trainer import logs, trainer

WEIGHT = {"objective_settings": {"distillation_weight": 2.0}, "logging_steps": 1, "max_grad_norm": 1.0}


def test_the_distance_of_unit_vectors():
    embeds = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
    targets = torch.tensor([[1.0, 0.0], [0.6, 0.8]], requires_grad=True)
    loss = feature_distillation_loss(embeds, targets)
    assert loss.item() == pytest.approx((0.0 + 2 - 2 * 0.8) / 2)
    loss.backward()
    assert embeds.grad is not None
    assert targets.grad is None
    assert feature_distillation_loss(embeds[:0], targets[:0]).item() == 0.0


def test_the_start_is_no_distance_from_itself_and_stays_as_it_is():
    model, batch = golden.model().train(), golden.batch(0)
    start = FrozenStart(model, torch.device("cpu"))
    before = start.embed(batch)
    assert set(before) == {
        f"start_{name}_embeds" for name in ("image", "short_text", "long_text", "region", "region_text")
    }
    objective = FGClip2Objective("released", distillation_weight=1.0)
    assert objective(model(**batch), batch | before)["distillation"].item() == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    losses = objective(model(**batch), batch | before)
    assert losses["distillation"].item() > 0.01
    weighted = [getattr(objective.settings, f"{term}_weight") * losses[term] for term in objective.terms]
    torch.testing.assert_close(losses["loss"], sum(weighted))
    for chunk_size in (None, 1, 3):
        again = start.embed(batch, chunk_size)
        for name, rows in before.items():
            torch.testing.assert_close(again[name], rows, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["released", "fgclip"])
def test_a_start_of_half_precision_takes_what_deepspeed_makes_of_a_batch(family):
    """Which casts all floats of a batch, boxes and pixels among them, and has no autocast."""
    if family == "released":
        model, batch = golden.model(), golden.batch(0)
    else:
        model, batch = FGClipForTraining.from_pretrained(MODEL), golden_batch(0)
    cast = {name: value.bfloat16() if value.is_floating_point() else value for name, value in batch.items()}
    start = FrozenStart(model, torch.device("cpu"), torch.bfloat16)
    assert next(model.parameters()).dtype == torch.float32
    for name, rows in FrozenStart(model, torch.device("cpu")).embed(batch).items():
        torch.testing.assert_close(start.embed(cast)[name].float(), rows, rtol=0, atol=0.05)
    objective = FGClip2Objective(family, distillation_weight=1.0)
    outputs = model.bfloat16().train()(**cast)  # the same weights and inputs: no distance at the start
    assert objective(outputs, cast | start.embed(cast))["distillation"].item() == pytest.approx(0, abs=1e-9)


def test_with_lora_the_start_is_the_base_and_its_parameters_stay_as_they_were(tmp_path):
    pytest.importorskip("peft")
    from fgclip2.training.lora import add_lora, lora_config

    model, batch = golden.model(), golden.batch(0)
    plain = FrozenStart(model, torch.device("cpu")).embed(batch)
    adapted = add_lora(model, lora_config(rank=2, dropout=0.5)).train()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    frozen = next(parameter for name, parameter in adapted.named_parameters() if "lora_" in name)
    frozen.requires_grad_(False)
    trained = {name: parameter.requires_grad for name, parameter in adapted.named_parameters()}
    start = FrozenStart(adapted, torch.device("cpu"))
    for name, rows in start.embed(batch).items():
        assert torch.equal(rows, plain[name]), name
    assert {name: parameter.requires_grad for name, parameter in adapted.named_parameters()} == trained
    assert adapted.training

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    try:
        ddp = torch.nn.parallel.DistributedDataParallel(adapted)
        for _ in range(2):  # the second step raises if the first left a gradient out
            targets = start.embed(batch)
            sum(value.sum() for value in ddp(**batch | targets).values()).backward()
        assert all(parameter.grad is not None for parameter in adapted.parameters() if parameter.requires_grad)
    finally:
        torch.distributed.destroy_process_group()


def test_a_run_stays_nearer_to_its_start_and_goes_on_bit_equal(saved_folder, tmp_path, records):
    settings = {"max_steps": 4, "save_steps": 2, "save_strategy": "steps", "learning_rate": 1e-2, **WEIGHT}
    run = trainer(saved_folder, tmp_path / "whole", records, **settings)
    run.train()
    distances = [row["distillation_loss"] for row in logs(run)]
    assert distances[0] == pytest.approx(0, abs=1e-9)
    assert distances[-1] > 0
    free = trainer(
        saved_folder, tmp_path / "free", records, **settings | {"objective_settings": {"distillation_weight": 1e-9}}
    )
    free.train()
    assert distances[-1] < logs(free)[-1]["distillation_loss"]
    start = json.loads((tmp_path / "whole" / "checkpoint-2" / "start.json").read_text())
    assert list(start) == ["fingerprint"]

    checkpoint = str(tmp_path / "whole" / "checkpoint-2")
    again = trainer(saved_folder, tmp_path / "again", records, **settings)
    again.train(resume_from_checkpoint=checkpoint)
    assert [row["loss"] for row in logs(again)][-2:] == [row["loss"] for row in logs(run)][-2:]
    for (name, value), other in zip(run.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(value, other), name

    other_start = trainer(checkpoint, tmp_path / "other", records, **settings)
    with pytest.raises(ValueError, match="of another start than the model that this run was given"):
        other_start.train(resume_from_checkpoint=checkpoint)


def test_the_plan_counts_the_copy_but_not_in_checkpoints():
    model, settings = golden.model(), FGClip2Objective("released", distillation_weight=1.0).settings
    bytes_of_weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert model.task.kept_memory(model, settings) == bytes_of_weights
    assert model.task.saved_memory(model, settings) == 0
    plain = FGClip2Objective("released").settings
    assert model.task.kept_memory(model, plain) == 0
    data = DataSummary(1)
    assert model.task.describe_terms(settings, data)["distillation"] == {"weight": 1.0, "records": 1.0}
    assert "distillation" not in model.task.describe_terms(plain, data)


def test_gradient_cache_gives_the_same_run(saved_folder, tmp_path, records):
    settings = {"max_steps": 3, **WEIGHT}
    plain = trainer(saved_folder, tmp_path / "plain", records, **settings)
    cached = trainer(saved_folder, tmp_path / "cached", records, gradient_cache_chunk_size=3, **settings)
    plain.train()
    cached.train()
    for row, other in zip(logs(plain), logs(cached), strict=True):
        assert other["distillation_loss"] == pytest.approx(row["distillation_loss"], rel=1e-3, abs=1e-6)
        assert other["loss"] == pytest.approx(row["loss"], rel=1e-4)


def test_the_first_version_too():
    model, batch = FGClipForTraining.from_pretrained(MODEL).train(), golden_batch(0)
    objective, before = FGClip2Objective("fgclip", distillation_weight=1.0), FrozenStart(model, torch.device("cpu"))
    targets = before.embed(batch, chunk_size=2)
    assert len(targets) == len(DISTILLED)
    assert objective(model(**batch), batch | targets)["distillation"].item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("weights", [{"short_weight": 0.0}, {"short_weight": 0.0, "long_weight": 0.0}])
@pytest.mark.parametrize("family", ["released", "fgclip"])
def test_what_is_distilled_is_trained(family, weights):
    """A head whose captions have no weight still has a gradient, from their distance."""
    if family == "released":
        model, batch = golden.model(), golden.batch(0)
    else:
        model, batch = FGClipForTraining.from_pretrained(MODEL), golden_batch(0)
    if "long_weight" in weights:  # as the collator leaves them out
        batch.pop("long_input_ids")
    objective = FGClip2Objective(family, distillation_weight=1.0, **weights)
    targets = FrozenStart(model, torch.device("cpu")).embed(batch)
    objective(model.train()(**batch), batch | targets)["loss"].backward()
    unused = model.unused_parameters(objective.settings)
    untrained = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert {name for name, _ in model.named_parameters() if belongs_to(name, unused)} == untrained


def test_without_short_captions_their_head_stays_as_it_is(saved_folder, tmp_path, records):
    class OnlyLong(RecordDataset):
        languages = records.languages

        def _read(self, index):
            return replace(records[index], short_caption=None)

        def _source(self, index):
            return records.source(index)

    run = trainer(saved_folder, tmp_path, OnlyLong(), **WEIGHT, weight_decay=0.5)
    before = run.model.text_model.head.weight.detach().clone()
    run.train()
    assert torch.equal(run.model.text_model.head.weight, before)
