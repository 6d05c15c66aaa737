"""Plan a run: its parameters, data, steps, memory, disk and traffic. Reads no weights, and a few hundred records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import chain, islice, repeat
from typing import Any

import torch

from ..data import Record, RecordDataset, ShardedRecords
from ..data.sampling import divide_draws
from ..data.validation import shard_attempts
from ..languages import LANGUAGES
from . import estimates
from .arguments import FGClip2TrainingArguments
from .estimates import DataSummary, ParameterCount, StepContents, Steps
from .memory import describe_memory, optimizer_values
from .mixture import sources_of
from .parameters import count_parameters, freeze
from .patch_counts import check_patch_batches
from .run_checks import check_evaluation, check_memory_options, check_strategy
from .sampler import BatchOrderSampler
from .settings import RunSettings
from .sources import describe_sources, open_eval_data, open_train_data
from .start import adapter_config, base_checkpoint, load_processor
from .tasks import family_to_train, training_model

LOOKED_AT = 512  # records by which the others are judged
SHARDS_LOOKED_AT = 16  # of each source


def plan_run(run: RunSettings, world_size: int | None = None) -> dict[str, Any]:
    """Compute what a run would take. Memory and traffic are estimates, in bytes of one process.

    Args:
        run: Settings of the run.
        world_size: Number of processes; `None`: those that run.

    Returns:
        `model` (parameters by part), `objective`, `terms` (of the objective: their weight, and the share of the records
        looked at that have data for them), `data`, `steps`, `memory`, `loader` (batches that its workers have ready, in
        host memory), `disk`, `traffic` and `advice`, of numbers and texts that can be written as JSON.

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
    model.task.check_arguments(args)
    check_memory_options(args, model)
    preset = args.objective or model.default_objective
    objective = model.task.make_objective(preset, args.settings)
    settings = objective.settings
    check_strategy(args, model, settings)
    model.task.make_collator(processor, args, settings)  # for its errors
    freeze(model, model.unused_parameters(settings))
    freeze(model, args.freeze, args.freeze_vision_layers, args.freeze_text_layers)
    records, held_out = open_train_data(run.data, args, world_size), open_eval_data(run.data)
    check_evaluation(args, held_out, objective.terms)
    sets = held_out if isinstance(held_out, dict) else {}
    check_patch_batches(args.patch_batches, processor)
    if args.patch_batches == "alike" and isinstance(records, ShardedRecords):
        # Which warns of a small buffer.
        records.group_by_patches(partial(model.count_patches, processor, max_num_patches=args.patch_budget))
    summary = look_at(records, run, model, processor)
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
    contents = model.task.step_contents(args, summary, settings)
    counts = count_parameters(model)
    return {
        "model": {
            "name": run.model.model,
            "lora": "adapters" in counts,
            "parameters": {part: asdict(count) for part, count in counts.items()},
        },
        "objective": {"preset": preset, **asdict(settings)},
        "terms": model.task.describe_terms(settings, summary),
        "data": {
            **data,
            "held_out": sum(map(len, sets.values())) if sets else len(held_out or ()),
            "held_out_sets": {name: len(of_name) for name, of_name in sets.items()},
            "sample": asdict(summary),
        },
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
        "memory": describe_memory(args, model, config, settings, contents, world_size),
        "loader": _describe_loader(args, config, contents),
        "disk": _describe_disk(args, counts, steps, model.task.saved_memory(model, settings)),
        "traffic": _describe_traffic(args, model, counts["total"], settings, contents, world_size),
        "advice": model.task.advice(settings, summary),
    }


def _unfilled_model(run: RunSettings) -> tuple[Any, Any]:
    """Make the model of a run without memory for its weights, with its configuration.

    Raises:
        ValueError: The checkpoint is of no family that can be trained.
    """
    name = str(run.model.model)
    checkpoint, revision = base_checkpoint(name, run.model.revision)
    model_class = training_model(family_to_train(name, run.model.revision).model_type, run.args.objective)
    config = model_class.config_class.from_pretrained(checkpoint, revision=revision)
    with torch.device("meta"):
        model = model_class(config)
    if adapter := adapter_config(run.model):
        from .lora import add_lora  # needs peft

        model = add_lora(model, adapter)
    return model, config


def look_at(records: RecordDataset | ShardedRecords, run: RunSettings, model: Any, processor: Any) -> DataSummary:
    """Summarise a few hundred records of a run, by which the others are judged.

    Raises:
        ValueError: None of them can be used.
    """
    count_patches = partial(model.count_patches, processor, max_num_patches=run.args.patch_budget)
    return estimates.summarize(_attempts(records, run), run.args.max_regions, count_patches)


def _attempts(records: RecordDataset | ShardedRecords, run: RunSettings) -> Iterator[Callable[[], Record]]:
    """Yield ways to get some samples of an epoch: records at random; of some shards of each source the first."""
    if isinstance(records, RecordDataset):
        shares = run.args.shares_of_languages
        sampler = BatchOrderSampler(sources_of(records), 1, language_batches="mixed", language_shares=shares)
        drawn = sorted(draw.index for draw in islice(sampler, LOOKED_AT))
        yield from (partial(records.__getitem__, index) for index in drawn)
        return
    draws = records.mixture.draws.sum(axis=1).tolist()  # of each source
    counts = divide_draws(draws, min(LOOKED_AT, sum(draws)))
    for source, count in zip(records.mixture.sources, counts, strict=True):
        shards = [shard for shard in source.shards if shard.samples]
        shards = shards[:: -(-len(shards) // SHARDS_LOOKED_AT)]  # an address may be slow to open
        for shard, its_count in zip(shards, divide_draws([shard.samples for shard in shards], count), strict=True):
            passes = chain.from_iterable(shard_attempts([shard], source.language) for _ in repeat(None))
            yield from islice(passes, its_count)


def _describe_data(
    records: RecordDataset | ShardedRecords, run: RunSettings, world_size: int
) -> tuple[dict[str, Any], int]:
    """Return what is known of all records, and how many of them a process gets in an epoch."""
    order: BatchOrderSampler | ShardedRecords
    sources: list[dict[str, Any]]
    if isinstance(records, RecordDataset):
        args = run.args
        order = BatchOrderSampler(
            sources_of(records),
            args.per_device_train_batch_size,
            world_size,
            args.language_batches,
            language_shares=args.shares_of_languages,
        )
        counts, draws, samples = order.records, order.draws, len(order) // world_size
        sources = list(describe_sources(run.data))
    else:
        order, counts, draws, samples = records, records.mixture.counts, records.mixture.draws, len(records)
        sources = [{"path": source.name, "format": "shards"} for source in records.mixture.sources]
    for source, its_records, its_draws in zip(sources, counts, draws, strict=True):
        source |= {"records": int(its_records.sum()), "draws": int(its_draws.sum())}
    described: dict[str, Any] = {
        "sources": sources,
        "records": int(counts.sum()),
        "left_out": order.left_out,
        "never_drawn": order.never_drawn,
    }
    if counts.shape[1] == len(LANGUAGES):  # not where shards need not be counted by language
        described["languages"] = dict(zip(LANGUAGES, counts.sum(axis=0).tolist(), strict=True))
        described["draws"] = dict(zip(LANGUAGES, draws.sum(axis=0).tolist(), strict=True))
    return described, samples


def _describe_loader(args: FGClip2TrainingArguments, config: Any, contents: StepContents) -> dict[str, float]:
    batch = estimates.pixel_memory(contents, config.vision_config.patch_size)
    workers, prefetch = args.dataloader_num_workers, args.dataloader_prefetch_factor
    return {"batch": batch, "workers": workers, "queues": estimates.queue_memory(batch, workers, prefetch)}


def _describe_disk(
    args: FGClip2TrainingArguments, counts: dict[str, ParameterCount], steps: Steps, beside: float
) -> dict[str, Any]:
    count = counts["total"]
    if "adapters" in counts:  # what is saved is what is trained
        count = ParameterCount(count.trained, count.trained)
    one = estimates.checkpoint_size(count, optimizer_values(args), args.ema_decay is not None) + beside
    kept = min(steps.checkpoints, args.save_total_limit or steps.checkpoints)
    model = estimates.checkpoint_size(count, 0)
    return {"checkpoint": one, "checkpoints": kept, "model": model, "total": kept * one + model}


def _describe_traffic(
    args: FGClip2TrainingArguments,
    model: Any,
    count: ParameterCount,
    settings: Any,
    contents: StepContents,
    world_size: int,
) -> dict[str, float]:
    per_step, chunk = args.gradient_accumulation_steps, args.gradient_cache_chunk_size
    gathers = estimates.gathers_of_step(per_step, math.ceil(contents.images / chunk) if chunk else 0)
    gradients = estimates.gradient_traffic(count, args.strategy, world_size, bool(args.bf16 or args.fp16), gathers)
    exchanged = model.task.exchange_traffic(model, settings, contents, world_size)
    return {"gradients": gradients, **{way: per_step * value for way, value in exchanged.items()}}
