"""Plan a run: its parameters, data, steps, memory, disk and traffic. Reads no weights, and a few hundred records."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any

import torch

from ..data import Record, RecordDataset, ShardedRecords
from ..data.validation import shard_attempts
from ..languages import LANGUAGES
from . import estimates
from .arguments import FGClip2TrainingArguments
from .collator import check_patch_budget
from .estimates import DataSummary, ParameterCount, StepContents, Steps, Strategy
from .losses.sigmoid_over_ranks import SIGMOID_FORMS
from .objective import TERMS, FGClip2Objective, ObjectiveSettings
from .parameters import count_parameters, freeze, layers_with_gradients
from .sampler import BatchOrderSampler
from .settings import RunSettings
from .sources import describe_sources, open_eval_data, open_train_data, shards_language
from .start import adapter_config, base_checkpoint, load_processor
from .tasks import TRAINING_MODELS, family_to_train

LOOKED_AT = 512  # records by which the others are judged
_SMALLER_CHUNK = 8  # images, of the gradient cache in a comparison


def plan_run(run: RunSettings, world_size: int | None = None) -> dict[str, Any]:
    """Compute what a run would take. Memory and traffic are estimates, in bytes of one process.

    Args:
        run: Settings of the run.
        world_size: Number of processes; `None`: those that run.

    Returns:
        `model` (parameters by part), `objective`, `terms` (of the objective: their weight, and the share of the records
        looked at that have data for them), `data`, `steps`, `memory`, `disk`, `traffic` and `advice`, of numbers and
        texts that can be written as JSON.

    Raises:
        ValueError: What would stop the run too: settings, checkpoint or data that can't be used.

    Example:
        >>> args = FGClip2TrainingArguments("run", per_device_train_batch_size=64)
        >>> plan = plan_run(RunSettings(ModelSettings("checkpoint"), DataSettings(["pairs.csv"]), args), world_size=8)
        >>> plan["steps"]["total"], plan["memory"]["total"]
    """
    args, world_size = run.args, world_size or run.args.world_size
    model, config = _unfilled_model(run)
    processor = load_processor(str(run.model.model), run.model.revision)
    check_patch_budget(processor, args.patch_budget)
    preset = args.objective or model.default_objective
    settings = FGClip2Objective(preset, **args.settings).settings
    freeze(model, model.unused_parameters(settings))
    freeze(model, args.freeze, args.freeze_vision_layers, args.freeze_text_layers)
    records, held_out = open_train_data(run.data, args, world_size), open_eval_data(run.data)
    count_patches = partial(model.count_patches, processor, max_num_patches=args.patch_budget)
    summary = estimates.summarize(_attempts(records, run), args.max_regions, count_patches)
    data, samples = _describe_data(records, run, world_size)
    steps = estimates.count_steps(
        samples,
        args.per_device_train_batch_size,
        args.gradient_accumulation_steps,
        args.num_train_epochs,
        args.max_steps,
        args.warmup_steps,
        str(getattr(args.save_strategy, "value", args.save_strategy)),
        args.save_steps,
    )
    contents = StepContents.expected(args.per_device_train_batch_size, summary, settings, args.num_hard_negatives)
    counts = count_parameters(model)
    return {
        "model": {
            "name": run.model.model,
            "lora": "adapters" in counts,
            "parameters": {part: asdict(count) for part, count in counts.items()},
        },
        "objective": {"preset": preset, **asdict(settings)},
        "terms": _describe_terms(settings, summary),
        "data": {**data, "held_out": 0 if held_out is None else len(held_out), "sample": asdict(summary)},
        "steps": {
            "batch_per_process": args.per_device_train_batch_size,
            "processes": world_size,
            "contrastive_batch": args.per_device_train_batch_size * world_size,
            "accumulation": args.gradient_accumulation_steps,
            "samples_per_step": args.per_device_train_batch_size * world_size * args.gradient_accumulation_steps,
            "max_num_patches": args.patch_budget or getattr(processor.image_processor, "max_num_patches", None),
            "contents": asdict(contents),  # of a batch of one process
            **asdict(steps),
            "epochs": steps.total / steps.per_epoch,
            "learning_rate": args.learning_rate,
            "language_batches": args.language_batches,
        },
        "memory": _describe_memory(args, model, config, settings, contents, world_size),
        "disk": _describe_disk(args, counts, steps),
        "traffic": _describe_traffic(args, model, counts["total"], settings, contents, world_size),
        "advice": _advice(settings, summary),
    }


def _unfilled_model(run: RunSettings) -> tuple[Any, Any]:
    """Make the model of a run without memory for its weights, with its configuration.

    Raises:
        ValueError: The checkpoint is of no family that can be trained.
    """
    name = str(run.model.model)
    checkpoint, revision = base_checkpoint(name, run.model.revision)
    model_class = TRAINING_MODELS[family_to_train(name, run.model.revision).model_type]
    config = model_class.config_class.from_pretrained(checkpoint, revision=revision)
    with torch.device("meta"):
        model = model_class(config)
    if adapter := adapter_config(run.model):
        from .lora import add_lora  # needs peft

        model = add_lora(model, adapter)
    return model, config


def _describe_terms(settings: ObjectiveSettings, data: DataSummary) -> dict[str, dict[str, float]]:
    """Return the weight of each term, and the share of the records looked at that have data for it."""
    shares = {
        "short": data.short_captions,
        "long": data.long_captions,
        "region": data.with_regions,
        "tic": data.with_regions,
        "hard_negative": data.with_hard_negatives,
    }
    return {term: {"weight": getattr(settings, f"{term}_weight"), "records": shares[term]} for term in TERMS}


def _advice(settings: ObjectiveSettings, data: DataSummary) -> list[str]:
    """Name settings that don't fit the data. Heads without data get no gradient, but decay."""
    advice = []
    if settings.uses_regions and not data.regions:
        advice.append("no regions were found: without any in the data, region and tic count 0")
    if settings.uses_hard_negatives and not data.hard_regions:
        advice.append(
            "no hard negatives were found: make them by `fgclip2 data hard-negatives`, else hard_negative counts 0"
        )
    for name, share in (("short", data.short_captions), ("long", data.long_captions)):
        if getattr(settings, f"{name}_weight") and not share:
            advice.append(f"no {name} captions were found: without any in the data, {name} counts 0")
    return advice


def _attempts(records: RecordDataset | ShardedRecords, run: RunSettings) -> Iterator[Callable[[], Record]]:
    """Yield ways to get a few records: spread over a data set; of shards the first."""
    if isinstance(records, RecordDataset):
        count = min(LOOKED_AT, len(records))
        yield from (partial(records.__getitem__, number * len(records) // count) for number in range(count))
    else:
        yield from islice(shard_attempts(records.shards, shards_language(run.data)), LOOKED_AT)


def _describe_data(
    records: RecordDataset | ShardedRecords, run: RunSettings, world_size: int
) -> tuple[dict[str, Any], int]:
    """Return what is known of all records, and how many of them a process gets in an epoch."""
    described: dict[str, Any] = {"sources": describe_sources(run.data)}
    if not isinstance(records, RecordDataset):
        described |= {"records": records.total, "left_out": records.left_out, "never_drawn": records.never_drawn}
        return described, len(records)
    batch_size = run.args.per_device_train_batch_size
    sampler = BatchOrderSampler(records.languages, batch_size, world_size, run.args.language_batches)
    languages = {language: int((records.languages == number).sum()) for number, language in enumerate(LANGUAGES)}
    described |= {"records": len(records), "languages": languages, "left_out": sampler.left_out}
    described["never_drawn"] = sampler.never_drawn
    return described, len(sampler) // world_size


def _describe_memory(
    args: FGClip2TrainingArguments,
    model: Any,
    config: Any,
    settings: ObjectiveSettings,
    contents: StepContents,
    world_size: int,
) -> dict[str, Any]:
    """Return the bytes of one process, as configured, and of activations in other ways."""
    count, mixed, strategy = count_parameters(model)["total"], bool(args.bf16 or args.fp16), strategy_of(args)
    averaged = args.ema_decay is not None
    state = estimates.state_memory(count, strategy, world_size, mixed, optimizer_values(args), averaged)
    layers = {f"{tower}_layers": layers_with_gradients(model, tower) for tower in model.towers}
    activations_of = partial(model.activation_memory, config, mixed=mixed, **layers)
    chunk = args.gradient_cache_chunk_size
    activations = activations_of(
        contents.share(chunk) if chunk else contents, checkpointing=bool(args.gradient_checkpointing)
    )
    form = settings.sigmoid_form if settings.caption_loss == "sigmoid" else settings.caption_loss
    similarity = estimates.similarity_memory(model.embedding_size, contents, world_size, form)
    smaller = contents.share(chunk or _SMALLER_CHUNK)
    ways = {
        "plain": activations_of(contents),
        "gradient_checkpointing": activations_of(contents, checkpointing=True),
        f"gradient_cache_chunk_size={chunk or _SMALLER_CHUNK}": activations_of(smaller),
        "both": activations_of(smaller, checkpointing=True),
    }
    return {
        "strategy": strategy,
        **state,
        **{f"{tower}_activations": value for tower, value in activations.items()},
        "similarity": similarity,
        "total": sum(state.values()) + sum(activations.values()) + similarity,
        "activations_by_way": ways,
    }


def _describe_disk(args: FGClip2TrainingArguments, counts: dict[str, ParameterCount], steps: Steps) -> dict[str, Any]:
    count = counts["total"]
    if "adapters" in counts:  # what is saved is what is trained
        count = ParameterCount(count.trained, count.trained)
    one = estimates.checkpoint_size(count, optimizer_values(args), args.ema_decay is not None)
    kept = min(steps.checkpoints, args.save_total_limit or steps.checkpoints)
    model = estimates.checkpoint_size(count, 0)
    return {"checkpoint": one, "checkpoints": kept, "model": model, "total": kept * one + model}


def _describe_traffic(
    args: FGClip2TrainingArguments,
    model: Any,
    count: ParameterCount,
    settings: ObjectiveSettings,
    contents: StepContents,
    world_size: int,
) -> dict[str, float]:
    gradients = estimates.gradient_traffic(count, strategy_of(args), world_size, bool(args.bf16 or args.fp16))
    forms = SIGMOID_FORMS if settings.caption_loss == "sigmoid" else (settings.caption_loss,)
    embeddings = {form: estimates.embedding_traffic(model.embedding_size, contents, world_size, form) for form in forms}
    per_step = args.gradient_accumulation_steps
    return {"gradients": gradients, **{form: per_step * value for form, value in embeddings.items()}}


def strategy_of(args: FGClip2TrainingArguments) -> Strategy:
    """Return how weights are divided, by the arguments or by what `accelerate launch` has set."""
    if args.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return "zero2"
    if args.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true":
        return "fsdp"
    return "ddp"


def optimizer_values(args: FGClip2TrainingArguments) -> int:
    """Return how many float32 values the optimizer keeps per parameter; where unknown, as many as AdamW."""
    name = str(getattr(args.optim, "value", args.optim))
    return {"sgd": 0, "adagrad": 1, "rmsprop": 1, "adafactor": 0}.get(name, 2)
