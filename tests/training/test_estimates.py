"""Estimates of a run against what is really kept, counted and sent."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from fgclip2 import FGClip2Config, FGClip2Processor, embedded_checkpoint
from fgclip2.data.records import InvalidRecordError, Record, Region
from fgclip2.training import FGClip2ForTraining, FGClip2Objective, estimates
from fgclip2.training.estimates import DataSummary, ParameterCount, StepContents
from fgclip2.training.parameters import count_parameters, freeze, layers_with_gradients

from .peak_memory import make_batch

WIDTH, MLP, LAYERS = 128, 512, 3
SIZES = {"hidden_size": WIDTH, "intermediate_size": MLP, "num_hidden_layers": LAYERS, "num_attention_heads": 4}


def small_config() -> FGClip2Config:
    return FGClip2Config(text_config={**SIZES, "vocab_size": 20_000}, vision_config=dict(SIZES))


def meta_model(config: FGClip2Config) -> FGClip2ForTraining:
    with torch.device("meta"):
        return FGClip2ForTraining(config)


# -- parameters -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "published"), [("base", 383_803_394), ("large", 896_622_594), ("so400m", 1_154_017_410)]
)
def test_parameters_of_the_published_sizes_without_memory_for_them(preset, published):
    counts = count_parameters(meta_model(FGClip2Config.from_preset(preset)))
    assert counts["total"].all == published + 2  # the scales of the region losses
    assert counts["total"].all == sum(count.all for part, count in counts.items() if part != "total")
    assert counts["total"].all - counts["total"].trained == FGClip2Config.from_preset(preset).vision_config.hidden_size


def test_what_is_frozen_is_not_trained():
    model = meta_model(small_config())
    settings = FGClip2Objective(region_weight=0.0, tic_weight=0.0, hard_negative_weight=0.0).settings
    freeze(model, model.unused_parameters(settings))
    freeze(model, ["text_model"], vision_layers=2)
    counts = count_parameters(model)
    for part in ("dense head", "text embeddings", "text encoder", "vision embeddings"):
        assert counts[part].trained == 0 < counts[part].all
    assert 0 < counts["vision encoder"].trained < counts["vision encoder"].all
    assert counts["scales"].trained == 2
    assert layers_with_gradients(model, "vision") == LAYERS - 2
    assert layers_with_gradients(model, "text") == 0


def test_lora():
    from fgclip2.training.lora import add_lora, lora_config

    model = add_lora(meta_model(small_config()), lora_config(rank=4, target="attention", train_heads=False))
    counts = count_parameters(model)
    assert counts["adapters"] == ParameterCount(*[2 * LAYERS * 4 * (2 * 4 * WIDTH)] * 2)
    assert counts["total"].trained == counts["adapters"].trained + 4
    assert layers_with_gradients(model, "vision") == LAYERS


# -- data -------------------------------------------------------------------------------------------------------------


PROCESSOR = FGClip2Processor.from_pretrained(embedded_checkpoint())
count_patches = partial(FGClip2ForTraining.count_patches, PROCESSOR, max_num_patches="auto")


def test_a_summary_counts_what_a_step_takes():
    image = Image.new("RGB", (320, 160))
    region = Region((0.1, 0.1, 0.5, 0.5), "a cat")
    hard = Region((0.1, 0.1, 0.5, 0.5), "一只猫", hard_negatives=("一只狗",))
    records = [
        Record(image, "a cat", None, "en", (region, hard, hard, hard), "a:1"),
        Record(image, "一只猫", "草地上的一只猫", "zh", (), "a:2"),
    ]

    def broken() -> Record:
        raise InvalidRecordError("a:3", "bbox", "[1]", "a box")

    attempts = [*(partial(lambda record: record, record) for record in records), broken]
    summary = estimates.summarize(attempts, 2, count_patches)
    assert (summary.looked_at, summary.unusable) == (3, 1)
    assert summary.first_problem == "a:3: bbox is [1]; it must be a box"
    assert (summary.short_captions, summary.long_captions, summary.with_regions) == (1.0, 0.5, 0.5)
    assert (summary.regions, summary.hard_regions) == (1.0, 0.75)
    assert summary.mean_patches == summary.max_patches == 242  # 11 x 22 of the 256 that fit 10 x 20
    contents = StepContents.expected(8, summary, FGClip2Objective().settings, negatives=10)
    assert contents == StepContents(8, 242, 8 + 8 + 6 * 11, 8, 4, 8)
    with pytest.raises(ValueError, match="a:3: bbox"):
        estimates.summarize([broken], 4, count_patches)


def test_an_image_that_is_not_there_is_a_problem(tmp_path):
    records = [Record(str(tmp_path / "没有.png"), "a cat", None, "en", (), "a:1")]
    with pytest.raises(ValueError, match=r"a:1.*没有"):
        estimates.summarize([lambda: records[0]], 4, count_patches)


# -- steps ------------------------------------------------------------------------------------------------------------


def test_steps():
    assert estimates.count_steps(40, 4, 1, 2.0, save_steps=6) == estimates.Steps(10, 20, 1, 4)
    assert estimates.count_steps(40, 4, 4, 1.0, warmup=2, save_strategy="no") == estimates.Steps(3, 3, 2, 0)
    assert estimates.count_steps(40, 4, 1, 9.0, max_steps=25, save_strategy="epoch") == estimates.Steps(10, 25, 1, 3)


# -- memory -----------------------------------------------------------------------------------------------------------


# Of weights, which autocast copies to bfloat16, and of the parts of one that the dense head takes.
WEIGHT_SHAPES = {(WIDTH, WIDTH), (WIDTH, 2 * WIDTH), (WIDTH, 3 * WIDTH), (WIDTH, MLP), (WIDTH, 768)}


def kept_for_backward(config: FGClip2Config, batch: dict, mixed: bool, checkpointing: bool) -> int:
    """Bytes that autograd keeps of a forward pass, weights apart."""
    model = FGClip2ForTraining(config).train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tuple(sorted(tensor.shape)) not in WEIGHT_SHAPES:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=mixed),
    ):
        model(**batch)
    return sum(kept.values())


@pytest.mark.parametrize("regions", [0, 1])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
def test_activations_are_what_autograd_keeps(regions, mixed, checkpointing):
    config, settings = small_config(), FGClip2Objective().settings
    data = DataSummary(1, regions=regions, hard_regions=regions, max_patches=64)
    contents = StepContents.expected(3, data, settings, negatives=10)
    batch = make_batch(3, 64, regions)
    if not regions:
        batch = {name: value for name, value in batch.items() if name.split("_")[0] not in ("boxes", "region", "hard")}
    estimate = FGClip2ForTraining.activation_memory(config, contents, mixed, checkpointing)
    kept = sum(part.kept for part in estimate.values())
    assert kept == pytest.approx(kept_for_backward(config, batch, mixed, checkpointing), rel=0.25)


def test_frozen_layers_and_the_gradient_cache_keep_less():
    config = small_config()
    contents = StepContents(64, 256, 64, 64, 64, 0)
    whole = FGClip2ForTraining.activation_memory(config, contents)
    part = FGClip2ForTraining.activation_memory(config, contents.share(8))
    for name, its in whole.items():
        assert part[name].kept == pytest.approx(its.kept / 8)
        assert part[name].working == pytest.approx(its.working / 8)
    frozen = FGClip2ForTraining.activation_memory(config, contents, vision_layers=0)
    assert frozen["vision"].kept < 0.4 * whole["vision"].kept
    assert frozen["text"] == whole["text"]
    config.vision_config._attn_implementation = "eager"
    eager = FGClip2ForTraining.activation_memory(config, contents)
    assert eager["vision"].kept > 1.5 * whole["vision"].kept


def test_memory_of_the_sigmoid_losses_by_form():
    contents = StepContents(384, 256, 384, 384, 384, 0)
    few, many = (
        {form: estimates.similarity_memory(768, contents, world, form) for form in ("gather", "ring")}
        for world in (16, 160)
    )
    assert many["gather"] == pytest.approx(10 * few["gather"])
    assert many["ring"] == few["ring"] < many["gather"]


def test_state_by_strategy():
    count = ParameterCount(1000, 900)
    assert estimates.state_memory(count) == {"weights": 4000, "gradients": 3600, "optimizer": 7200}
    assert estimates.state_memory(count, world_size=2)["gradients"] == 7200  # DDP's buckets
    assert estimates.state_memory(count, "fsdp", 4) == {"weights": 1000, "gradients": 900, "optimizer": 1800}
    zero2 = estimates.state_memory(count, "zero2", 4, mixed=True, averaged=True, buckets=100)
    assert zero2 == {"weights": 2000 + 900, "gradients": 450 + 200, "optimizer": 1800, "average": 3600}
    assert estimates.state_memory(count, "zero2", 4, buckets=100) == {
        "weights": 4000 + 900,  # the optimizer has a part of the weights by itself in any precision
        "gradients": 900 + 400,
        "optimizer": 1800,
    }


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 500_000_000),
        ({"reduce_bucket_size": 5e7}, 50_000_000),
        ({"reduce_bucket_size": 5e7, "overlap_comm": True}, 100_000_000),  # one is filled while the other is sent
        ({"reduce_bucket_size": 5e7, "overlap_comm": False}, 50_000_000),
        ({"reduce_bucket_size": "auto", "overlap_comm": "auto"}, 768**2),
    ],
)
def test_buckets_of_zero2(settings, expected):
    assert estimates.zero2_buckets(settings, 768) == expected


def test_batches_that_wait_for_the_published_step():
    batch = estimates.pixel_memory(StepContents(512, 1024, 512, 512, 512, 2048), patch_size=16)
    assert batch == 512 * 1024 * 768 <= 0.4 * 2**30
    assert estimates.queue_memory(batch, workers=8, prefetch=4) == 32 * batch
    assert estimates.queue_memory(batch, workers=8, prefetch=None) == 16 * batch
    assert estimates.queue_memory(batch, workers=0, prefetch=None) == 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak resident set from /proc")
@pytest.mark.parametrize("case", ["16 256 0", "8 256 2", "8 256 2 bf16", "8 256 2 checkpointing"])
def test_peak_memory_is_within_a_fifth_of_the_estimate(case):
    """Where the allocator gives back what is freed; glibc by default does not, and took 1.2 to 1.8 times as much."""
    script = Path(__file__).with_name("peak_memory.py")
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"}
    command = [sys.executable, script, *case.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    result = json.loads(done.stdout)
    assert 0.8 < result["measured"] / result["estimated"] < 1.2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak resident set from /proc")
@pytest.mark.parametrize("case", ["retrieval 16", "matching 24", "after-r2d2 8"])
def test_peak_memory_of_r2d2_is_within_a_fifth_of_the_estimate(case):
    """As above; without dropout, with which attention on a CPU keeps its scores: 1.5 times as much was measured."""
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"}
    command = [sys.executable, "-m", "tests.training.peak_memory_r2d2", *case.split()]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=root)
    result = json.loads(done.stdout)
    assert 0.8 < result["measured"] / result["estimated"] < 1.2


# -- disk and traffic -------------------------------------------------------------------------------------------------


def test_disk_and_traffic():
    count = ParameterCount(1000, 900)
    assert estimates.checkpoint_size(count) == 4000 + 7200
    assert estimates.checkpoint_size(count, averaged=True) == 4000 + 7200 + 3600
    assert estimates.gradient_traffic(count, "ddp", 1) == 0
    assert estimates.gradient_traffic(count, "ddp", 4) == pytest.approx(2 * 0.75 * 3600)
    assert estimates.gradient_traffic(count, "zero2", 4, mixed=True) == pytest.approx(2 * 0.75 * 1800)
    assert estimates.gradient_traffic(count, "fsdp", 4) == pytest.approx(0.75 * (8000 + 3600))
    assert estimates.gathers_of_step(2) == 4
    assert estimates.gathers_of_step(2, chunks=5) == 30
    assert estimates.gradient_traffic(count, "fsdp", 4, gathers=30) == pytest.approx(0.75 * (120_000 + 3600))
    contents = StepContents(8, 256, 8, 8, 4, 0)
    texts = 12 * 16 * 4  # of 16 values
    assert estimates.embedding_traffic(16, contents, 1) == 0
    assert estimates.embedding_traffic(16, contents, 3) == 6 * texts
    assert estimates.embedding_traffic(16, contents, 3, "ring") == 7 * texts
