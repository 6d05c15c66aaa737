"""The second stage's recipe: its batches, its losses, and the ablation's runs and table."""

import argparse
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fgclip2.languages import detect_language
from fgclip2.modeling.image_processing_fgclip2 import FGClip2ImageProcessor
from fgclip2.training import FGClip2Objective
from recipes.embedded_checkpoint.optimizer import build_optimizer
from recipes.scenes import ablation
from recipes.scenes.ablation import SETTINGS, equal_compute, flops_of_a_step, run_settings, trainer_of
from recipes.scenes.ablation_report import COLUMNS, cell, markdown, t_interval
from recipes.scenes.batches import SceneBatches
from recipes.scenes.experiments import train_and_measure, training_records, write_whole
from recipes.scenes.grammar import facts_of
from recipes.scenes.pool import _write_chunk, build_pool, varied_builder
from recipes.scenes.settings import SceneSettings, lr_factor
from recipes.scenes.train import shipped_model
from recipes.scenes.trainee import SceneTrainee, check_checkpoint, load_start

from .conftest import ASSETS, CONCEPTS


class FakeSingles:
    """Noise in place of drawings, in the layout of the first stage's batches; text t is the name of concept t."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.drawings = SimpleNamespace(rows=[None] * CONCEPTS)
        own = torch.eye(CONCEPTS, dtype=torch.bool)
        self.texts = SimpleNamespace(is_positive=own, is_counted=torch.ones_like(own))

    def singles(self, concepts, step, rng):
        rows = torch.from_numpy(concepts)
        pixels = torch.from_numpy(rng.normal(size=(2 * len(concepts), 3, 32, 32))).float()
        is_positive = self.texts.is_positive[rows][:, rows.repeat(2)].T
        batch = {
            "pixels": pixels,
            "boxes": torch.tensor([[4.0, 4.0, 28.0, 28.0]]).expand(len(pixels), -1),
            "concepts": rows.repeat(2),
            "input_ids": self.tokenizer([f"thing {c} 物" for c in concepts], return_tensors="pt")["input_ids"][:, :16],
            "text_concepts": rows,
            "text_is_name": torch.ones(len(rows), dtype=torch.bool),
            "is_positive": is_positive,
            "is_counted": torch.ones_like(is_positive),
        }
        return batch, rows


@pytest.fixture(scope="session")
def settings():
    return SceneSettings(
        scenes_per_batch=4,
        hard_regions_per_batch=5,
        concepts_per_batch=8,
        shared_concepts=6,
        region_images=4,
        full_text_share=0.0,
        total_steps=4,
        warmup_steps=2,
    )


@pytest.fixture
def batches(settings, pool, tokenizer):
    return SceneBatches(settings, FakeSingles(tokenizer), pool, tokenizer)


def test_patches_are_those_of_the_image_processor(pool, records):
    image = Image.open(ASSETS / "demo" / "scenes" / records["en"][0]["f_path"]).convert("RGB")
    count = int(pool.grids[0].prod())
    expected = FGClip2ImageProcessor(max_num_patches=count)([image], return_tensors="pt")
    assert expected["spatial_shapes"].tolist() == [pool.grids[0].tolist()]
    torch.testing.assert_close(pool.pixel_values(np.array([0])), expected["pixel_values"], atol=1e-5, rtol=0)


def test_batches_follow_from_the_step_alone_and_alternate_languages(batches, tokenizer):
    first, again, second = batches.batch(0), batches.batch(0), batches.batch(1)
    for part in ("singles", "scenes"):
        for name, value in first[part].items():
            assert torch.equal(value, again[part][name]), name
    english = tokenizer.decode(first["scenes"]["short_input_ids"][0], skip_special_tokens=True)
    chinese = tokenizer.decode(second["scenes"]["short_input_ids"][0], skip_special_tokens=True)
    assert (detect_language(english), detect_language(chinese)) == ("en", "zh")


def test_a_chunk_of_scenes_has_what_the_grammar_says(cache, table, tmp_path):
    settings = SceneSettings(num_chunks=1, scenes_per_chunk=3)
    _write_chunk(tmp_path, cache, settings, 0)
    pool = build_pool(tmp_path, cache, settings, 1)
    rng = np.random.default_rng([settings.seed, 0])
    builder = varied_builder(cache, table, settings, rng)
    assert pool.facts == [facts_of(builder.build(rng)) for _ in range(3)]
    for facts, record in zip(pool.facts, pool.records["zh"], strict=True):
        names = [table[said.concept_id].name_zh for said in facts.objects]
        assert names == [info["category"] for info in record["bbox_info"]]


def test_regions_and_hard_negatives_stand_where_their_boxes_are(batches, tokenizer, records):
    rows = batches._rows(0)
    scenes = batches.batch(0)["scenes"]
    assert scenes["long_input_ids"].shape == (4, 196)
    assert scenes["hard_input_ids"].shape[:2] == (5, 11)
    assert len(scenes["region_concepts"]) == len(scenes["region_index"])
    for (image, slot), ids in zip(scenes["hard_index"].tolist(), scenes["hard_input_ids"], strict=True):
        info = records["en"][rows[image]]["bbox_info"][slot]
        assert scenes["boxes"][image, slot].tolist() == pytest.approx(info["bbox"])
        texts = [tokenizer.decode(text, skip_special_tokens=True) for text in ids]
        assert texts == [text.lower() for text in (info["short_expr"], *info["short_expr_negs"].values())]


def test_single_drawings_share_concepts_with_the_scenes(batches):
    batch = batches.batch(0)
    present, chosen = batch["scenes"]["region_concepts"].tolist(), batch["singles"]["text_concepts"].tolist()
    assert len(set(chosen)) == 8
    assert len(set(chosen) & set(present)) >= min(6, len(set(present)))
    named = batch["scenes"]["region_is_positive"]
    assert named.any(1).tolist() == [concept in chosen for concept in present]


def test_a_few_steps_learn_and_reach_every_parameter(batches, settings):
    torch.manual_seed(0)
    model = load_start(ASSETS / "checkpoint", settings.region_scale)
    trainee = SceneTrainee(model, torch.randn(CONCEPTS, 192), settings)
    optimizer, batch, losses = build_optimizer(trainee, 2e-3, 1e-3, 0.05), batches.batch(0), []
    for _ in range(4):
        optimizer.zero_grad()
        named = trainee(batch)
        named["loss"].backward()
        losses.append(named["loss"].item())
        optimizer.step()
    assert {"short", "long", "region", "tic", "pair", "contrast", "rank", "global", "proxy", "scene"} <= set(named)
    without = [name for name, p in trainee.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert losses[-1] < losses[0]
    assert trainee.objective.margin > 0


def test_what_ships_is_a_plain_model_between_both_stages(settings):
    training = load_start(ASSETS / "checkpoint", settings.region_scale)
    before = load_start(ASSETS / "checkpoint", settings.region_scale)
    with torch.no_grad():
        for parameter in training.parameters():
            parameter.add_(1.0)
    shipped = shipped_model(training, before, 0.25)
    assert type(shipped).__name__ == "FGClip2Model"
    weights = before.state_dict()
    assert set(weights) - set(shipped.state_dict()) == {"logit_scale_finegraind", "logit_scale_hardneg"}
    for name, parameter in shipped.named_parameters():
        torch.testing.assert_close(parameter, weights[name] + 0.75, msg=name)


def test_learning_rate_warms_up_and_falls_to_zero(settings):
    assert [lr_factor(settings, step) for step in range(5)] == [0.5, 0.75, 0.5, 0.25, 0.0]


def test_a_missing_first_stage_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors; run: python -m recipes\.embedded_checkpoint"):
        check_checkpoint(tmp_path)


def test_t_interval_of_three_runs():
    mean, half = t_interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert half == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert cell([1.0, 2.0, 3.0], signed=True) == "+2.0 ± 2.5"
    assert cell([5.0]) == "5.0"


def test_each_setting_adds_one_term():
    def terms(changes):
        settings = FGClip2Objective("released", **changes).settings
        weights = {name: getattr(settings, f"{name}_weight") for name in ("region", "hard_negative", "rank", "tic")}
        if not weights["hard_negative"]:
            weights["rank"] = 0.0
        return {name for name, weight in weights.items() if weight > 0}

    added = [terms(changes) for changes in SETTINGS.values()]
    assert added == [
        set(),
        {"region"},
        {"region", "hard_negative"},
        {"region", "hard_negative", "rank"},
        {"region", "hard_negative", "rank", "tic"},
    ]


def ablation_options(folder, **changes):
    values = {
        "checkpoint": ASSETS / "checkpoint",
        "output": folder,
        "work": folder / "work",
        "cache": folder,
        "seeds": [0],
        "steps": 2,
        "batch_size": 2,
        "learning_rate": 5e-4,
        "scenes": 6,
        "max_regions": 2,
        "validation_scenes": 6,
        "bf16": False,
    }
    return argparse.Namespace(**{**values, **changes})


@pytest.fixture
def ablation_records():
    return training_records(SimpleNamespace(folder=ASSETS / "demo" / "scenes"))


@pytest.mark.parametrize("name", ["captions", "+ TIC"])
def test_an_ablation_run_trains_and_says_with_what(tmp_path, name, ablation_records):
    options = ablation_options(tmp_path)
    assert np.bincount(ablation_records.languages).tolist() == [6, 6]
    settings = run_settings(options, name, 2, 0)
    trainer = trainer_of(options, settings, ablation_records)
    result = train_and_measure(trainer, settings, lambda model: {"long_en": 1.0})
    assert result["settings"]["setting"] == name
    assert result["metrics"] == {"long_en": 1.0}
    assert result["seconds"]["cpu"] > 0


def test_settings_get_steps_of_equal_compute(tmp_path, ablation_records):
    options = ablation_options(tmp_path)
    flops = {name: flops_of_a_step(options, name, ablation_records) for name in ("captions", "+ regions", "+ TIC")}
    assert flops["captions"] < flops["+ regions"] < flops["+ TIC"] / 2  # eleven texts for a region instead of one
    steps = equal_compute(flops, 200)
    assert steps["+ TIC"] == 200
    for name in ("captions", "+ regions"):
        assert steps[name] * flops[name] == pytest.approx(200 * flops["+ TIC"], rel=0.01)


def test_results_of_other_settings_are_not_mixed_in(tmp_path):
    path = ablation.result_path(tmp_path, "captions", 3, 0)
    write_whole(path, json.dumps({"settings": {"steps": 1}, "metrics": {}}))
    with pytest.raises(ValueError, match=r"captions-3-steps-seed-0\.json has other settings"):
        ablation.Ablation(ablation_options(tmp_path)).result("captions", 3, 0)


def test_the_table_has_paired_differences():
    def result(value):
        metrics = dict.fromkeys(COLUMNS, value)
        return {"metrics": metrics, "seconds": {"wall": 10.0}, "settings": {"steps": 50}}

    results = {"captions": [result(10.0), result(20.0)], "+ regions": [result(13.0), result(23.0)]}
    text = markdown(results, {"captions": 10**12, "+ regions": 2 * 10**12})
    assert "| captions | 15.0 ± 63.5 " in text
    assert "| 50 | 100 | 10 |" in text
    assert text.splitlines()[-1].startswith("| + regions | +3.0 ± 0.0 ")
