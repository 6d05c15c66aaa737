"""Patches that the vision tower does without in training: which they are, and what comes of the others."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fgclip2.modeling.modeling_fgclip2 import position_grids, position_grids_traceable
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor
from fgclip2.training import FGClip2ForTraining
from fgclip2.training.collator import FGClip2Collator
from fgclip2.training.estimates import DataSummary, pixel_memory
from fgclip2.training.gradient_cache import split_batch
from fgclip2.training.patch_dropout import NO_PATCH, check_patch_dropout, draw_kept_patches, take_patches
from fgclip2.training.sampler import DrawnRecord

from . import golden
from .live_memory import peak_of_live_tensors
from .test_trainer import arguments, logs, trainer

CAPTIONS = {"objective_settings": {"region_weight": 0.0, "tic_weight": 0.0, "hard_negative_weight": 0.0}}


def test_kept_patches_are_places_in_order_with_padding_behind():
    rngs = [np.random.default_rng(number) for number in range(3)]
    kept = draw_kept_patches([6, 1, 9], 0.5, rngs)
    assert kept.shape == (3, 4)  # 4.5 rounds to 4
    assert (kept != NO_PATCH).sum(1).tolist() == [3, 1, 4]
    for row, count in zip(kept.tolist(), [6, 1, 9], strict=True):
        places = [place for place in row if place != NO_PATCH]
        assert places == sorted(set(places))
        assert set(places) <= set(range(count))
    patches, mask = take_patches(torch.arange(27.0).view(3, 9, 1), kept)
    assert patches[0, mask[0].bool(), 0].tolist() == kept[0, :3].tolist()
    assert mask.tolist() == (kept != NO_PATCH).int().tolist()
    assert draw_kept_patches([], 0.5, []).shape == (0, 1)


def keep(images: dict[str, torch.Tensor], kept: torch.Tensor) -> dict[str, torch.Tensor]:
    """Images without the patches that are dropped."""
    patches, mask = take_patches(images["pixel_values"], kept)
    return images | {"pixel_values": patches, "pixel_attention_mask": mask, "kept_patches": kept}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_embedding_is_that_of_a_tower_that_sees_the_kept_patches_alone(attention):
    model, batch = golden.model().eval(), golden.batch(0)
    model.set_attn_implementation(attention)
    images = {name: batch[name] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes")}
    counts = images["pixel_attention_mask"].sum(1).tolist()
    with torch.no_grad():
        everything = torch.nn.utils.rnn.pad_sequence(
            [torch.arange(count) for count in counts], batch_first=True, padding_value=NO_PATCH
        )
        whole = model(**images)["image_embeds"]
        all_kept = model(**keep(images, everything))["image_embeds"]
        torch.testing.assert_close(all_kept, whole, rtol=0, atol=1e-6)
        rngs = [np.random.default_rng(number) for number in range(len(counts))]
        kept = draw_kept_patches(counts, 0.5, rngs)
        embeds = model(**keep(images, kept))["image_embeds"]
        assert (embeds - whole).abs().max() > 1e-3
        tower = model.vision_model
        for number, row in enumerate(kept):
            places = row[row != NO_PATCH]
            hidden = tower.embeddings(images["pixel_values"], images["spatial_shapes"])[number : number + 1, places]
            alone = tower.head(tower.post_layernorm(tower.encoder(hidden, None, False)[0]))
            expected = torch.nn.functional.normalize(alone, dim=-1)[0]
            torch.testing.assert_close(embeds[number], expected, rtol=0, atol=1e-6)


def test_positions_of_patches_that_are_dropped_are_not_made():
    torch.manual_seed(0)
    table, shapes = torch.randn(4, 4, 8, requires_grad=True), torch.tensor([[3, 5], [6, 2]] * 32)
    kept = draw_kept_patches(shapes.prod(1).tolist(), 0.5, [np.random.default_rng(number) for number in range(64)])
    weights, places = torch.randn(*kept.shape, 8) * (kept != NO_PATCH)[..., None], kept.clamp(min=0)
    everything = position_grids(table, shapes, 15)
    (expected,) = torch.autograd.grad(everything.gather(1, places[..., None].expand(-1, -1, 8)), table, weights)
    gradients: list[torch.Tensor] = []

    def train() -> None:
        gradients.extend(torch.autograd.grad(position_grids(table, shapes, kept.shape[1], places), table, weights))

    assert peak_of_live_tensors(train, table, shapes, places, weights) < everything.nbytes
    assert torch.equal(gradients[0], expected)


def test_compiled_positions_are_those_of_the_kept_patches():
    torch.manual_seed(0)
    table, shapes = torch.randn(4, 4, 8), torch.tensor([[3, 5], [6, 2]])
    kept = draw_kept_patches([15, 12], 0.5, [np.random.default_rng(number) for number in range(2)]).clamp(min=0)
    expected = position_grids(table, shapes, 15).gather(1, kept[..., None].expand(-1, -1, 8))
    assert torch.equal(position_grids(table, shapes, kept.shape[1], kept), expected)
    compiled = torch.compile(position_grids_traceable, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(table, shapes, kept.shape[1], kept), expected, rtol=0, atol=1e-6)


def test_draws_follow_from_seed_epoch_and_record(saved_folder, records):
    processor = FGClip2Processor.from_pretrained(saved_folder)
    options = {"patch_dropout": 0.5, "with_regions": False, "with_hard_negatives": False}
    collator = FGClip2Collator(processor, seed=3, **options)
    drawn = [DrawnRecord(records[number], 1) for number in range(4)]
    kept = collator(drawn)["kept_patches"]
    assert torch.equal(collator(drawn[2:])["kept_patches"], kept[2:])  # whatever else is in the batch
    assert not torch.equal(collator([item._replace(epoch=2) for item in drawn])["kept_patches"], kept)
    assert not torch.equal(FGClip2Collator(processor, seed=4, **options)(drawn)["kept_patches"], kept)
    assert "kept_patches" not in FGClip2Collator(processor, training=False, **options)(drawn)
    whole, batch = FGClip2Collator(processor, **options | {"patch_dropout": 0.0})(drawn), collator(drawn)
    assert batch["pixels"].shape == (*kept.shape, whole["pixels"].shape[-1])
    assert torch.equal(batch["spatial_shapes"], whole["spatial_shapes"])
    for number, row in enumerate(kept):
        places = row[row != NO_PATCH]
        assert torch.equal(batch["pixels"][number, : len(places)], whole["pixels"][number, places])
        assert batch["pixel_attention_mask"][number].sum() == len(places)
    halves = split_batch(collator(drawn), 2)
    assert torch.equal(torch.cat([half["kept_patches"] for half in halves]), kept)


def test_a_run_goes_on_bit_equal_and_evaluates_whole_images(saved_folder, tmp_path, records):
    settings = {"patch_dropout": 0.5, "max_steps": 4, "save_strategy": "steps", "save_steps": 2, **CAPTIONS}
    run = trainer(saved_folder, tmp_path / "whole", records, **settings)
    run.train()
    again = trainer(saved_folder, tmp_path / "again", records, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert [row["loss"] for row in logs(again)][-2:] == [row["loss"] for row in logs(run)][-2:]
    whole = trainer(saved_folder, tmp_path / "none", records, **settings | {"patch_dropout": 0.0})
    whole.train()
    assert logs(whole)[0]["loss"] != logs(run)[0]["loss"]
    of_whole, of_dropped = (
        trainer(saved_folder, tmp_path / "none", records, **settings | {"patch_dropout": share}).evaluate()
        for share in (0.0, 0.5)
    )
    assert of_whole["eval_short_loss"] == of_dropped["eval_short_loss"]


def test_chunks_of_the_gradient_cache_drop_the_same(saved_folder, tmp_path, records):
    settings = {"patch_dropout": 0.5, "max_steps": 2, **CAPTIONS}
    plain = trainer(saved_folder, tmp_path / "plain", records, **settings)
    cached = trainer(saved_folder, tmp_path / "cached", records, gradient_cache_chunk_size=3, **settings)
    plain.train()
    cached.train()
    for row, other in zip(logs(plain), logs(cached), strict=True):
        assert other["loss"] == pytest.approx(row["loss"], rel=1e-4)


def test_regions_need_all_patches(saved_folder, tmp_path, records):
    with pytest.raises(ValueError, match="it goes with captions alone: objective_settings="):
        trainer(saved_folder, tmp_path, records, patch_dropout=0.5)
    with pytest.raises(ValueError, match="`patch_dropout` must be 0 or more, and below 1"):
        trainer(saved_folder, tmp_path, records, patch_dropout=1.0)


def test_squares_keep_all_patches():
    with pytest.raises(ValueError, match="`patch_dropout` must be 0 for a model whose images are squares of one size"):
        check_patch_dropout(0.5, SimpleNamespace(patch_budgets=None), with_regions=False)


def test_the_plan_counts_what_is_kept(tmp_path):
    args = arguments(tmp_path, patch_dropout=0.25, per_device_train_batch_size=8)
    objective = FGClip2ForTraining.task.make_objective("released", CAPTIONS["objective_settings"])
    contents = FGClip2ForTraining.task.step_contents(args, DataSummary(1, max_patches=100), objective.settings)
    assert contents.patches == 75
    assert pixel_memory(contents, 16) == 8 * 75 * 768
