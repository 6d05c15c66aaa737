"""FG-CLIP, the first version, in training: losses and gradients of the official code, its scales, its checkpoints."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from fgclip2 import FGClipConfig, FGClipModel
from fgclip2.training import FGClip2Objective, FGClipForTraining
from fgclip2.training.losses import info_nce_loss
from fgclip2.training.parameters import belongs_to

from ..golden_of_v1 import GOLDEN_V1, LOGITS
from ..ranks import run_on_ranks
from . import golden
from .golden import valid

MODEL = GOLDEN_V1 / "model"
TENSORS = load_file(GOLDEN_V1 / "train_outputs.safetensors")
RESULTS = json.loads((GOLDEN_V1 / "train.json").read_text())["results"]
SCALES = ("logit_scale", "logit_scale_finegraind", "logit_scale_hardneg")
WITHOUT = {
    "full": {},
    "global_only": {"region_weight": 0.0, "hard_negative_weight": 0.0},
    "box_only": {"hard_negative_weight": 0.0},
    "hard_only": {"region_weight": 0.0},
}


def golden_batch(rank: int, regions: int | None = None, hard: int | None = None) -> dict[str, torch.Tensor]:
    """The batch of a rank; at most so many regions and regions with hard negatives, from the first on."""
    inputs = load_file(GOLDEN_V1 / f"train_inputs_rank{rank}.safetensors")
    region_index, region_boxes = valid(inputs["box_nums"], 0)
    hard_index, _ = valid(inputs["hard_nums"], 4)
    return {
        "pixel_values": inputs["image"],
        "short_input_ids": inputs["text_short"],
        "long_input_ids": inputs["text_long"],
        "boxes": torch.cat([inputs["box_infos"].view(4, 4, 4), inputs["hard_infos"].view(4, 4, 4)], 1),
        "region_index": region_index[:regions],
        "region_input_ids": inputs["box_texts"][region_boxes][:regions],
        "hard_index": hard_index[:hard],
        "hard_input_ids": inputs["hard_texts"].view(-1, 11, 77)[:hard],
    }


def run(batch: dict, **settings) -> dict:
    """Losses and gradients of the golden model."""
    model, objective = FGClipForTraining.from_pretrained(MODEL).train(), FGClip2Objective("fgclip", **settings)
    losses = objective(model(**batch), batch)
    losses["loss"].backward()
    return {
        "losses": {name: value.item() for name, value in losses.items()},
        "gradients": {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
        "untrained": [name for name, p in model.named_parameters() if p.grad is None],
        "unused": model.unused_parameters(objective.settings),
    }


def assert_golden(found: dict, case: str) -> None:
    result, prefix = RESULTS[case], f"{case}.grad."
    for name, key in {"loss": "loss", "short": "short", "long": "long", "region": "region"}.items():
        if key in result:
            assert found["losses"][name] == pytest.approx(result[key], rel=LOGITS["rtol"], abs=LOGITS["atol"]), name
    if "hard" in result:
        assert found["losses"]["hard_negative"] == pytest.approx(result["hard"], rel=1e-5, abs=2e-5)
    expected = {key.removeprefix(prefix): value for key, value in TENSORS.items() if key.startswith(prefix)}
    assert len(expected) >= 12
    for name, gradient in expected.items():
        actual = found["gradients"][name]
        tolerance = 1e-6 + 1e-4 * gradient.abs().max().item()
        torch.testing.assert_close(actual, gradient.view_as(actual), rtol=0, atol=tolerance, msg=name)
    for name, norm in result["grad_norm"].items():
        if norm is None:
            assert name in found["untrained"]
        elif not name.endswith("k_proj.bias"):  # nothing but rounding
            assert found["gradients"][name].norm().item() == pytest.approx(norm, rel=2e-4, abs=1e-6), name


@pytest.mark.parametrize("case", WITHOUT)
def test_losses_and_gradients_are_the_official_ones(case):
    found = run(golden_batch(0), **WITHOUT[case])
    assert set(found["losses"]) == {"loss", "short", "long"} | (
        {"region"} if "region" in RESULTS[f"w1.{case}.rank0"] else set()
    ) | ({"hard_negative", "pair"} if "hard" in RESULTS[f"w1.{case}.rank0"] else set())
    assert_golden(found, f"w1.{case}.rank0")
    assert sorted(found["untrained"]) == sorted(found["unused"])


@pytest.mark.parametrize(
    "settings",
    [
        {"short_weight": 0.0, "long_weight": 0.0},
        {"long_weight": 0.0, "region_weight": 0.0},
        {"short_weight": 0.0, "region_weight": 0.0, "hard_negative_weight": 0.0},
    ],
)
def test_what_an_objective_gives_no_gradient_to_is_named(settings):
    """DDP would wait for it."""
    found = run(golden_batch(0), **settings)
    names = [*found["untrained"], *found["gradients"]]
    assert {name for name in names if belongs_to(name, found["unused"])} == set(found["untrained"])


def test_its_objective_trains_fg_clip_2_too():
    model, batch, objective = golden.model(), golden.batch(0), FGClip2Objective("fgclip")
    losses = objective(model(**batch), batch)
    losses["loss"].backward()
    assert set(losses) == {"loss", "short", "long", "region", "hard_negative", "pair"}
    untrained = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert untrained == set(model.unused_parameters(objective.settings)) == {"dense_feature_head.probe", "logit_bias"}


def on_rank(case: str) -> dict:
    from fgclip2.distributed import rank

    return run(golden_batch(rank()), **WITHOUT[case])


@pytest.mark.parametrize("case", ["full", "global_only"])
def test_two_ranks_give_the_official_losses_and_gradients(case):
    for rank, found in enumerate(run_on_ranks(on_rank, 2, case)):
        assert_golden(found, f"w2.{case}.rank{rank}")


def sharded_on_rank() -> dict:
    from torch.distributed.fsdp import fully_shard

    from fgclip2.distributed import rank

    model = FGClipForTraining.from_pretrained(MODEL).train()
    for module in model.modules():
        if type(module).__name__ == "FGClipEncoderLayer":
            fully_shard(module)
    fully_shard(model)
    batch = golden_batch(rank())
    loss = FGClip2Objective("fgclip")(model(**batch), batch)["loss"]
    loss.backward()
    return {
        "loss": loss.item(),
        "gradients": {name: parameter.grad.full_tensor() for name, parameter in model.named_parameters()},
    }


@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="FSDP2 of torch 2.6 does not run on a CPU")
def test_sharded_ranks_give_the_official_losses_and_gradients():
    results = run_on_ranks(sharded_on_rank, 2)
    for rank, result in enumerate(results):
        assert result["loss"] == pytest.approx(RESULTS[f"w2.full.rank{rank}"]["loss"], rel=1e-5)
    prefixes = [f"w2.full.rank{rank}.grad." for rank in range(2)]
    names = {key.removeprefix(prefixes[0]) for key in TENSORS if key.startswith(prefixes[0])}
    assert "logit_scale_hardneg" in names
    for name in names:
        expected = (TENSORS[prefixes[0] + name] + TENSORS[prefixes[1] + name]) / 2
        actual, tolerance = results[0]["gradients"][name], 1e-6 + 1e-4 * expected.abs().max().item()
        torch.testing.assert_close(actual, expected.view_as(actual), rtol=0, atol=tolerance, msg=name)


def test_embeddings_that_enter_the_losses():
    batch = golden_batch(0)
    with torch.no_grad():
        outputs = FGClipForTraining.from_pretrained(MODEL)(**batch)
    hard = torch.cat([outputs["hard_positive_embeds"][:, None], outputs["hard_negative_embeds"]], 1).flatten(0, 1)
    for ours, theirs in (
        (outputs["image_embeds"], "image"),
        (outputs["short_text_embeds"], "short"),
        (outputs["long_text_embeds"], "long"),
        (outputs["region_embeds"], "region"),
        (outputs["region_text_embeds"], "region_text"),
        (outputs["hard_region_embeds"], "hard_region"),
        (hard, "hard_text"),
    ):
        torch.testing.assert_close(ours, TENSORS[f"w1.full.rank0.emb.{theirs}"], rtol=1e-4, atol=2e-5, msg=theirs)


@pytest.mark.parametrize(("regions", "hard"), [(1, 1), (0, 0)])
def test_few_regions_or_none_are_finite_where_the_official_code_fails(regions, hard):
    found = run(golden_batch(0, regions, hard))
    assert found["losses"]["short"] == pytest.approx(RESULTS["w1.full.rank0"]["short"], rel=1e-5)
    assert found["losses"]["region"] == 0  # the only text is the right one
    assert (found["losses"]["hard_negative"] > 0) == (hard > 0)
    assert not found["untrained"]
    assert all(gradient.isfinite().all() for gradient in found["gradients"].values())


def test_a_box_without_area_is_finite():
    batch = golden_batch(0)
    batch["boxes"][0, 0, 2] = batch["boxes"][0, 0, 0]
    found = run(batch)
    assert all(map(math.isfinite, found["losses"].values()))
    assert all(gradient.isfinite().all() for gradient in found["gradients"].values())


def test_without_images_every_parameter_gets_a_gradient_of_zero():
    batch = golden_batch(0, 0, 0)
    empty = {name: value[:0] for name, value in batch.items()}
    found = run(empty)
    assert set(found["losses"].values()) == {0.0}
    assert not found["untrained"]
    assert not any(gradient.any() for gradient in found["gradients"].values())


def test_captions_of_any_number_per_image_and_padding_change_nothing_else():
    """Two captions of one image, cut behind their end tokens, and masked negatives, against a slow form."""
    torch.manual_seed(0)
    batch, model = golden_batch(0), FGClipForTraining.from_pretrained(MODEL)
    index = torch.tensor([0, 0, 2, 3])
    end = (batch["short_input_ids"] == model.config.text_config.eos_token_id).int().argmax(1).max()
    batch |= {"short_image_index": index, "short_input_ids": batch["short_input_ids"][:, : end + 1]}
    batch["hard_negative_mask"] = torch.rand(batch["hard_input_ids"].shape[0], 10) < 0.5
    with torch.no_grad():
        outputs = model(**batch)
        losses = FGClip2Objective("fgclip")(outputs, batch)
        padded = F.normalize(model.get_text_features(golden_batch(0)["short_input_ids"], walk_type="short"), dim=-1)
    torch.testing.assert_close(outputs["short_text_embeds"], padded, rtol=1e-4, atol=2e-5)
    logits = outputs["logit_scale"].exp() * outputs["image_embeds"][index] @ outputs["short_text_embeds"].T
    rows = [-(logits[i, i] - logits[i].logsumexp(0)) - (logits[i, i] - logits[:, i].logsumexp(0)) for i in range(4)]
    assert losses["short"].item() == pytest.approx(sum(rows).item() / 8, rel=1e-5)
    scale, expected = outputs["logit_scale_hardneg"].exp(), []
    for region, positive, negatives, mask in zip(
        outputs["hard_region_embeds"],
        outputs["hard_positive_embeds"],
        outputs["hard_negative_embeds"],
        batch["hard_negative_mask"],
        strict=True,
    ):
        row = scale * torch.stack([positive @ region, *(negatives[mask] @ region)])
        expected.append(row.logsumexp(0) - row[0])
    assert losses["hard_negative"].item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def uneven_part(counts: list[int]) -> dict:
    from fgclip2.distributed import rank
    from fgclip2.training.losses.info_nce import info_nce_loss_over_ranks

    images, texts, scale = pairs(sum(counts))
    rows = slice(sum(counts[: rank()]), sum(counts[: rank() + 1]))
    loss = info_nce_loss_over_ranks(images[rows], texts[rows], scale, counts)
    loss.backward()
    return {"loss": loss.detach(), "gradients": [tensor.grad for tensor in (images, texts, scale)]}


def pairs(count: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    images, texts = F.normalize(torch.randn(2, count, 6), dim=-1).unbind()
    return [tensor.clone().requires_grad_() for tensor in (images, texts, torch.tensor([2.0]))]


def test_uneven_ranks_give_the_loss_and_gradients_of_one_process():
    counts = [3, 0, 2]
    results = run_on_ranks(uneven_part, 3, counts)
    images, texts, scale = pairs(5)
    loss = info_nce_loss(images, texts, scale)
    loss.backward()
    torch.testing.assert_close(torch.stack([result["loss"] for result in results]).mean(), loss.detach())
    for number, tensor in enumerate((images, texts, scale)):
        mean = torch.stack([result["gradients"][number] for result in results]).mean(0)
        torch.testing.assert_close(mean, tensor.grad)


def test_scales_have_a_dimension_in_training_only(tmp_path):
    model = FGClipForTraining.from_pretrained(MODEL)
    for name, value in zip(SCALES, (3.2, 2.9, 2.4), strict=True):
        torch.testing.assert_close(getattr(model, name).detach(), torch.tensor([value]))
    model.save_pretrained(tmp_path)
    assert {load_file(tmp_path / "model.safetensors")[name].shape for name in SCALES} == {()}
    for loaded in (FGClipModel.from_pretrained(tmp_path), FGClipForTraining.from_pretrained(tmp_path)):
        for name, parameter in FGClipModel.from_pretrained(MODEL).state_dict().items():
            assert torch.equal(loaded.state_dict()[name].reshape(parameter.shape), parameter), name
    model.load_state_dict(load_file(tmp_path / "model.safetensors"))  # as a run goes on from a checkpoint
    plain = FGClipModel.from_pretrained(MODEL)
    shared = FGClipForTraining.from_model(plain)
    assert shared.visual_projection.weight.data_ptr() == plain.visual_projection.weight.data_ptr()


def test_a_fresh_model_and_gradient_checkpointing_give_the_same_gradients():
    torch.manual_seed(0)
    model = FGClipForTraining(FGClipConfig.from_pretrained(MODEL)).train()
    gradients = []
    for _ in range(2):
        outputs = model(**golden_batch(0))
        sum((value * torch.linspace(0, 1, value.shape[-1])).sum() for value in outputs.values()).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        model.zero_grad()
        model.gradient_checkpointing_enable()
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)


def test_an_objective_that_does_not_fit_is_an_error():
    model = FGClipForTraining(FGClipConfig.from_pretrained(MODEL))
    with pytest.raises(ValueError, match=r"`caption_loss` must be 'info_nce' for FG-CLIP.*take the objective 'fgclip'"):
        model.unused_parameters(FGClip2Objective("released").settings)
    with pytest.raises(ValueError, match="`sigmoid_form` must be 'gather' where `caption_loss` is 'info_nce'"):
        FGClip2Objective("fgclip", sigmoid_form="ring")
