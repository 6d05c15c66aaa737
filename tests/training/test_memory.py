"""The memory of a step by the plan against what lives in one, and texts in chunks where it would not fit."""

import copy
import json

import pytest
import torch

from fgclip2 import FGClip2Config
from fgclip2.training import FGClip2ForTraining, FGClip2Objective
from fgclip2.training.arguments import FGClip2TrainingArguments
from fgclip2.training.estimates import Activations, StepContents
from fgclip2.training.memory import (
    TEXT_CHUNK_SIZES,
    USABLE,
    Gradients,
    StepPlan,
    choose_text_chunk_size,
    describe_memory,
    step_memory,
)
from fgclip2.training.parameters import count_parameters, freeze
from fgclip2.training.tasks.rows import set_text_chunk_size

from .live_memory import peak_of_live_tensors
from .peak_memory import make_batch

SIZES = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 2}
IMAGES, PATCHES, REGIONS = 2, 64, 2
CONTENTS = StepContents(IMAGES, PATCHES, IMAGES * (1 + REGIONS * 12), IMAGES, IMAGES, IMAGES * REGIONS)
GIB = 2**30
ZERO2 = {"zero_optimization": {"stage": 2, "reduce_bucket_size": 5e7, "overlap_comm": True}}

# Its name before transformers 6.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")


@pytest.fixture(scope="module")
def model() -> FGClip2ForTraining:
    torch.manual_seed(0)
    config = FGClip2Config(text_config={**SIZES, "vocab_size": 20_000}, vision_config=dict(SIZES))
    training = FGClip2ForTraining(config).train()
    freeze(training, training.unused_parameters(FGClip2Objective().settings))
    return training


@pytest.fixture(scope="module")
def batch() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return make_batch(IMAGES, PATCHES, REGIONS)


def step(model: FGClip2ForTraining, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    model.zero_grad()
    loss = FGClip2Objective()(model(**batch), batch)["loss"]
    loss.backward()
    return loss.detach()


# -- the plan against a step ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_size", [0, 16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_takes_what_the_plan_says(model, batch, chunk_size, checkpointing):
    model = copy.deepcopy(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    set_text_chunk_size(model, chunk_size)
    pixels = batch["pixel_values"]
    there = [*model.parameters(), *(value for name, value in batch.items() if name != "pixel_values")]
    found = peak_of_live_tensors(lambda: step(model, {**batch, "pixel_values": pixels.clone()}), *there)
    activations = model.activation_memory(
        model.config, CONTENTS, checkpointing=checkpointing, text_chunk_size=chunk_size
    )
    similarity = model.task.exchange_memory(model, FGClip2Objective().settings, CONTENTS, 1)
    planned = step_memory(activations, Gradients.of(model), similarity, text_in_chunks=chunk_size > 0)
    assert planned == pytest.approx(found, rel=0.1)


def test_the_worst_moment_of_a_step():
    parts = {"vision": Activations(100, 20), "text": Activations(50, 10), "dense head": Activations(5, 2)}
    gradients = Gradients(40.0, 90.0, 30.0)
    assert step_memory(parts, gradients, 5) == 100 + 40 + 30  # two gradients of the token embeddings
    assert step_memory({**parts, "text": Activations(200, 10)}, gradients, 1) == 100 + 200 + 10
    assert step_memory({**parts, "text": Activations(200, 10)}, gradients, 9) == 100 + 200 + 5 + 9
    assert step_memory({**parts, "vision": Activations(100, 45)}, gradients, 0) == 100 + 45 + 40
    assert step_memory({name: Activations(1) for name in parts}, gradients, 0) == 90
    assert step_memory(parts, gradients, 5, text_in_chunks=True) == 100 + 50 + 10 + 40
    later = {**parts, "text": Activations(50, 25)}
    assert step_memory(later, gradients, 5, accumulated=True) == 100 + 50 + 25 + 90
    assert step_memory(parts, Gradients(80.0, 90.0, 70.0), 5, accumulated=True) == 100 + 2 * 70 + 90
    dense = {"vision": Activations(100, 5), "text": Activations(200, 60), "dense head": Activations(30, 70)}
    assert step_memory(dense, gradients, 0, accumulated=True) == 100 + 200 + 30 + 70 + 90


@pytest.mark.parametrize(("mixed", "value"), [(False, 4), (True, 2)])
def test_zero2_makes_gradients_and_the_frozen_start_of_the_dtype_of_the_run(model, mixed, value):
    args, *rest = plan_of(model, bf16=mixed, objective_settings={"distillation_weight": 1.0})
    args.deepspeed = ZERO2  # not passed, where transformers would ask for the package of DeepSpeed
    rest[2], rest[4] = FGClip2Objective(distillation_weight=1.0).settings, 4
    plan, count = StepPlan(args, *rest), count_parameters(model)
    trained = value * count["total"].trained
    # Whole in each pass of the text tower, with those of positions.
    assert plan.gradients.token_embeddings == value * count["text embeddings"].trained >= value * 20_000 * 128
    assert plan.gradients.all == trained / 4
    assert plan.state["gradients"] == trained / 4 + value * 2 * 50_000_000
    assert plan.state["teacher"] == value * count["total"].all
    args.deepspeed = None
    assert StepPlan(args, *rest).state["teacher"] == 4 * count["total"].all


def test_buckets_of_zero2_are_those_that_the_arguments_or_the_launcher_name(model, tmp_path, monkeypatch):
    args, *rest = plan_of(model)
    rest[4] = 4
    file = tmp_path / "zero2.json"
    file.write_text(json.dumps(ZERO2), encoding="utf-8")
    shares = 4 * count_parameters(model)["total"].trained / 4

    def buckets() -> float:
        return (StepPlan(args, *rest).state["gradients"] - shares) / 4

    for source in (ZERO2, str(file)):
        args.deepspeed = source
        assert buckets() == 2 * 50_000_000
    args.deepspeed = {"zero_optimization": {"stage": 2, "reduce_bucket_size": "auto", "overlap_comm": "auto"}}
    assert buckets() == 128**2
    args.deepspeed = None
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert buckets() == 500_000_000  # DeepSpeed's default
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    assert buckets() == 2 * 50_000_000


# -- texts in chunks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpointing", [False, True])
def test_texts_in_chunks_give_the_same_loss_and_gradients(model, batch, checkpointing):
    expected_loss = step(model, batch)
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    in_chunks = copy.deepcopy(model)
    if checkpointing:
        in_chunks.gradient_checkpointing_enable({"use_reentrant": False})
    set_text_chunk_size(in_chunks, 16)  # of 50 short texts and 2 long ones
    torch.testing.assert_close(step(in_chunks, batch), expected_loss)
    gradients = {name: p.grad for name, p in in_chunks.named_parameters() if p.grad is not None}
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)
    outputs = in_chunks.eval()(**batch)
    torch.testing.assert_close(outputs, model.eval()(**batch), rtol=0, atol=0)  # all at once again
    model.train()


def test_dropout_of_a_chunk_is_the_same_when_it_is_computed_again(model, batch):
    """Else the gradient would be that of another network."""
    model = copy.deepcopy(model)
    set_text_chunk_size(model, 16)
    for layer in model.text_model.encoder.layers:
        layer.self_attn.dropout = 0.5
    seen = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    step(model, batch)
    half = len(seen) // 2
    first = seen[:half]
    again = {tuple(chunk.shape): [] for chunk in first}
    for chunk in seen[half:]:
        again[tuple(chunk.shape)].append(chunk)
    assert all(any(torch.equal(chunk, other) for other in again[tuple(chunk.shape)]) for chunk in first)
    assert not torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("missing", ["short", "all"])
def test_no_texts_in_chunks(model, batch, missing):
    model = copy.deepcopy(model)
    set_text_chunk_size(model, 16)
    names = ["short_input_ids"] if missing == "short" else [name for name in batch if name.endswith("input_ids")]
    less = {**batch, **{name: batch[name][:0] for name in names}}
    outputs = model(**less)
    assert all(len(outputs[name.replace("input_ids", "text_embeds")]) == 0 for name in names if "hard" not in name)
    sum(output.sum() for output in outputs.values()).backward()
    assert all(p.grad is not None for p in model.text_model.parameters() if p.requires_grad)


# -- the choice -------------------------------------------------------------------------------------------------------


def plan_of(model: FGClip2ForTraining, **arguments) -> tuple:
    contents = StepContents(64, 256, 64 * 25, 64, 64, 128)
    args = FGClip2TrainingArguments("unused", use_cpu=True, report_to=[], **arguments)
    return args, model, model.config, FGClip2Objective().settings, contents, 1


def test_texts_are_cut_where_a_step_does_not_fit(model):
    whole, cut, least = (StepPlan(*plan_of(model)).at_most(size) for size in (0, 128, TEXT_CHUNK_SIZES[-1]))
    assert whole > cut > least

    def chosen(memory: float, **arguments) -> int:
        return choose_text_chunk_size(*plan_of(model, device_memory=memory / USABLE / GIB, **arguments))

    assert choose_text_chunk_size(*plan_of(model)) == 0  # nothing is known of a device
    assert chosen(1.01 * whole) == 0
    assert chosen(1.01 * cut) == 128
    assert chosen(0.5 * least) == TEXT_CHUNK_SIZES[-1]
    assert chosen(0.5 * least, text_chunk_size=0) == 0
    assert chosen(1.01 * whole, text_chunk_size=7) == 7
    memory = describe_memory(*plan_of(model, device_memory=1.01 * cut / USABLE / GIB))
    assert (memory["text_chunk_size"], memory["fits"]) == (128, True)
    assert memory["total"] == pytest.approx(cut)


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="`text_chunk_size` must be 0 or a positive integer, got -1"):
        FGClip2TrainingArguments("unused", use_cpu=True, text_chunk_size=-1)
    with pytest.raises(ValueError, match=r"`device_memory` must be positive, e\.g\. 80, got 0"):
        FGClip2TrainingArguments("unused", use_cpu=True, device_memory=0)
