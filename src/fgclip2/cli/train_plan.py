"""`fgclip2 train --dry-run`: what a run would take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import typer

from . import train_benchmarks, train_data
from .train_options import TrainOptions

if TYPE_CHECKING:
    from ..data import Record, RecordDataset, ShardedRecords
    from ..training import FGClip2TrainingArguments
    from ..training.objective import ObjectiveSettings
    from ..training.plan import DataSummary, ParameterCount, StepContents, Steps, Strategy

LOOKED_AT = 512  # records by which the others are judged
_SMALLER_CHUNK = 8  # images, of the gradient cache in a comparison


def make_plan(options: TrainOptions, world_size: int) -> dict[str, Any]:
    """Compute what a run on `world_size` processes would take. Reads no weights, and a few hundred records.

    Raises:
        ValueError: What would stop the run too: settings, checkpoint or data that can't be used.
    """
    from ..data import RecordDataset
    from ..modeling.configuration_fgclip2 import FGClip2Config
    from ..modeling.processing_fgclip2 import FGClip2Processor
    from ..training import FGClip2Objective, plan
    from ..training.parameters import freeze, unused_parameters
    from ..training.start import base_checkpoint
    from .train import adapter_config

    args, name = options.args, options.model.model
    checkpoint, revision = base_checkpoint(str(name), options.model.revision)
    config = FGClip2Config.from_pretrained(checkpoint, revision=revision)
    image_processor = FGClip2Processor.from_pretrained(checkpoint, revision=revision).image_processor
    settings = FGClip2Objective(args.objective, **args.settings).settings
    model: Any = plan.meta_model(config)
    if adapter := adapter_config(options.model):
        from ..training.lora import add_lora

        model = add_lora(model, adapter)
    freeze(model, unused_parameters(settings))
    freeze(model, args.freeze, args.freeze_vision_layers, args.freeze_text_layers)

    records = train_data.open_train_data(options.data, args, world_size)
    held_out = train_data.open_eval_data(options.data)
    budget = args.patch_budget or image_processor.max_num_patches
    attempts = _attempts(records, options)
    summary = plan.summarize(attempts, args.max_regions, budget, image_processor.patch_size)
    data, samples = _describe_data(records, options, world_size)
    steps = plan.count_steps(
        samples,
        args.per_device_train_batch_size,
        args.gradient_accumulation_steps,
        args.num_train_epochs,
        args.max_steps,
        args.warmup_steps,
        str(getattr(args.save_strategy, "value", args.save_strategy)),
        args.save_steps,
    )
    contents = plan.StepContents.expected(args.per_device_train_batch_size, summary, settings, args.num_hard_negatives)
    counts = plan.count_parameters(model)
    layers = {tower: plan.layers_with_gradients(model, f"{tower}_model") for tower in ("vision", "text")}
    return {
        "model": {"name": name, "lora": adapter is not None, "parameters": {k: asdict(v) for k, v in counts.items()}},
        "objective": {"preset": args.objective, **asdict(settings)},
        "data": {**data, "held_out": 0 if held_out is None else len(held_out), "sample": asdict(summary)},
        "benchmarks": train_benchmarks.describe_benchmarks(options.benchmarks),
        "steps": {
            **_describe_steps(args, world_size, steps, budget, contents),
            "language_batches": args.language_batches if isinstance(records, RecordDataset) else "mixed",
        },
        "memory": _describe_memory(args, config, settings, counts["total"], contents, layers, world_size),
        "disk": _describe_disk(args, counts, steps),
        "traffic": _describe_traffic(args, config, counts["total"], contents, world_size),
        "advice": _advice(settings, summary),
    }


def _advice(settings: ObjectiveSettings, data: DataSummary) -> list[str]:
    """Settings that don't fit the data. Heads without data get no gradient, but decay."""
    advice = []
    if settings.uses_regions and not data.regions:
        advice.append("no regions were found: set region_weight and tic_weight to 0 (objective_settings)")
    if settings.uses_hard_negatives and not data.hard_regions:
        advice.append("no hard negatives were found: fgclip2 data hard-negatives, or hard_negative_weight 0")
    for name, share in (("short", data.short_captions), ("long", data.long_captions)):
        if getattr(settings, f"{name}_weight") and not share:
            advice.append(f"no {name} captions were found: set {name}_weight to 0")
    return advice


def _attempts(records: RecordDataset | ShardedRecords, options: TrainOptions) -> Iterator[Callable[[], Record]]:
    """Ways to get a few records: spread over a data set; of shards the first."""
    from ..data import RecordDataset

    if isinstance(records, RecordDataset):
        count = min(LOOKED_AT, len(records))
        yield from (partial(records.__getitem__, number * len(records) // count) for number in range(count))
        return
    stream = train_data.open_shards(options.data, options.args, world_size=1, shuffle=False)
    stream.on_error = "skip"
    for found in islice(stream, LOOKED_AT):
        yield partial(_record_or_raise, found)


def _record_or_raise(found: Any) -> Record:
    if isinstance(found, Exception):
        raise found
    return found


def _describe_data(
    records: RecordDataset | ShardedRecords, options: TrainOptions, world_size: int
) -> tuple[dict[str, Any], int]:
    """What is known of all records, and how many of them a process gets in an epoch."""
    from ..data import RecordDataset
    from ..languages import LANGUAGES
    from ..training.sampler import BatchOrderSampler

    args = options.args
    described: dict[str, Any] = {"sources": train_data.sources(options.data)}
    if not isinstance(records, RecordDataset):
        return {**described, "records": records.total, "left_out": records.left_out}, len(records)
    sampler = BatchOrderSampler(records.languages, args.per_device_train_batch_size, world_size, args.language_batches)
    languages = {language: int((records.languages == number).sum()) for number, language in enumerate(LANGUAGES)}
    described |= {"records": len(records), "languages": languages, "left_out": sampler.left_out}
    described["never_drawn"] = sampler.never_drawn
    return described, len(sampler) // world_size


def _describe_steps(
    args: FGClip2TrainingArguments, world_size: int, steps: Steps, budget: int | str, contents: StepContents
) -> dict[str, Any]:
    return {
        "batch_per_process": args.per_device_train_batch_size,
        "processes": world_size,
        "contrastive_batch": args.per_device_train_batch_size * world_size,
        "accumulation": args.gradient_accumulation_steps,
        "samples_per_step": args.per_device_train_batch_size * world_size * args.gradient_accumulation_steps,
        "max_num_patches": budget,
        "contents": asdict(contents),  # of a batch of one process
        **asdict(steps),
        "epochs": steps.total / steps.per_epoch,
        "learning_rate": args.learning_rate,
    }


def _describe_memory(
    args: FGClip2TrainingArguments,
    config: Any,
    settings: Any,
    count: ParameterCount,
    contents: StepContents,
    layers: dict[str, int],
    world_size: int,
) -> dict[str, Any]:
    """Bytes of one process, as configured, and the activations in other ways."""
    from ..training import plan

    mixed = bool(args.bf16 or args.fp16)
    strategy = strategy_of(args)
    state = plan.state_memory(count, strategy, world_size, mixed, optimizer_values(args), args.ema_decay is not None)
    own: dict[str, Any] = {"mixed": mixed, "vision_layers": layers["vision"], "text_layers": layers["text"]}
    chunk = args.gradient_cache_chunk_size
    cached = contents.share(chunk) if chunk else contents
    checkpointing = bool(args.gradient_checkpointing)
    activations = plan.activation_memory(config, cached, checkpointing=checkpointing, **own)
    similarity = plan.similarity_memory(
        config.vision_config.hidden_size, contents, world_size, settings.sigmoid_form, settings.sigmoid_chunk_size
    )
    smaller = contents.share(chunk or _SMALLER_CHUNK)
    ways = {
        "plain": plan.activation_memory(config, contents, **own),
        "gradient_checkpointing": plan.activation_memory(config, contents, checkpointing=True, **own),
        f"gradient_cache_chunk_size={chunk or _SMALLER_CHUNK}": plan.activation_memory(config, smaller, **own),
        "both": plan.activation_memory(config, smaller, checkpointing=True, **own),
    }
    return {
        "strategy": strategy,
        **state,
        "vision_activations": activations["vision"],
        "text_activations": activations["text"],
        "similarity": similarity,
        "total": sum(state.values()) + sum(activations.values()) + similarity,
        "activations_by_way": ways,
    }


def _describe_disk(args: FGClip2TrainingArguments, counts: dict[str, ParameterCount], steps: Steps) -> dict[str, Any]:
    from ..training import plan

    count = counts["total"]
    if "adapters" in counts:  # what is saved is what is trained
        count = plan.ParameterCount(count.trained, count.trained)
    one = plan.checkpoint_size(count, optimizer_values(args), args.ema_decay is not None)
    kept = min(steps.checkpoints, args.save_total_limit or steps.checkpoints)
    model = plan.checkpoint_size(count, 0)
    return {"checkpoint": one, "checkpoints": kept, "model": model, "total": kept * one + model}


def _describe_traffic(
    args: FGClip2TrainingArguments, config: Any, count: ParameterCount, contents: StepContents, world_size: int
) -> dict[str, float]:
    from ..training import plan

    width, mixed = config.vision_config.hidden_size, bool(args.bf16 or args.fp16)
    embeddings = {
        form: args.gradient_accumulation_steps * plan.embedding_traffic(width, contents, world_size, form)
        for form in ("gather", "ring")
    }
    return {"gradients": plan.gradient_traffic(count, strategy_of(args), world_size, mixed), **embeddings}


def strategy_of(args: FGClip2TrainingArguments) -> Strategy:
    """How weights are divided, by the arguments or by what `accelerate launch` has set."""
    if args.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return "zero2"
    if args.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true":
        return "fsdp"
    return "ddp"


def optimizer_values(args: FGClip2TrainingArguments) -> int:
    """Float32 values that the optimizer keeps per parameter; where unknown, as many as AdamW."""
    name = str(getattr(args.optim, "value", args.optim))
    return {"sgd": 0, "adagrad": 1, "rmsprop": 1, "adafactor": 0}.get(name, 2)


# ---------------------------------------------------------------------------------------------------------------------
# Print
# ---------------------------------------------------------------------------------------------------------------------


def print_plan(plan: dict[str, Any]) -> None:
    """Print a plan for people."""
    for title, rows in _sections(plan):
        typer.echo(title)
        for name, value in rows:
            typer.echo(f"  {name:<42}{value}".rstrip())


def _sections(plan: dict[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    model, steps, disk = plan["model"], plan["steps"], plan["disk"]
    yield f"model {model['name']}{' with LoRA' if model['lora'] else ''}", _parameter_rows(model["parameters"])
    yield "objective", [(name, str(value)) for name, value in plan["objective"].items()]
    yield "data", _data_rows(plan["data"])
    if plan["benchmarks"]:
        yield "benchmarks", [(each["name"], _counts(each)) for each in plan["benchmarks"]]
    yield "steps", _step_rows(steps)
    yield "memory of one process, an estimate", _memory_rows(plan["memory"])
    checkpoints = f"{disk['checkpoints']} of {_bytes(disk['checkpoint'])}"
    yield "disk", [("checkpoints", checkpoints), ("model", _bytes(disk["model"])), ("in all", _bytes(disk["total"]))]
    if steps["processes"] > 1:
        traffic = plan["traffic"]
        yield "sent by one process in a step, an estimate", [(name, _bytes(value)) for name, value in traffic.items()]
    if plan["advice"]:
        yield "advice", [(text, "") for text in plan["advice"]]


def _parameter_rows(parameters: dict[str, dict[str, int]]) -> list[tuple[str, str]]:
    rows = [("parameters", f"{'all':>15}{'trained':>15}")]
    return rows + [(part, f"{count['all']:>15,}{count['trained']:>15,}") for part, count in parameters.items()]


def _data_rows(data: dict[str, Any]) -> list[tuple[str, str]]:
    sample = data["sample"]
    rows = [(source["path"], source["format"]) for source in data["sources"]]
    rows.append(("records", f"{data['records']:,}"))
    rows += [(f"  {language}", f"{count:,}") for language, count in data.get("languages", {}).items()]
    never = data.get("never_drawn", {})
    others = data["left_out"] - sum(never.values())
    rows.append(("left out of each epoch", f"{others:,} (others each time)"))
    rows += [(f"never trained on: {language}", f"{count:,}, too few for a batch") for language, count in never.items()]
    rows.append(("held out, to be evaluated on", f"{data['held_out']:,}"))
    rows.append(("looked at", f"{sample['looked_at']:,}, for these shares:"))
    if sample["unusable"]:
        rows.append(
            ("  unusable", f"{sample['unusable']}: {sample['first_problem']} (fgclip2 data validate lists all)")
        )
    for name in ("short_captions", "long_captions", "with_regions"):
        rows.append((f"  {name.replace('_', ' ')}", f"{sample[name]:.0%}"))
    rows.append(("  regions taken per image", f"{sample['regions']:.2f}"))
    rows.append(("  of these with hard negatives", f"{sample['hard_regions']:.2f}"))
    return [*rows, ("  patches per image", f"{sample['mean_patches']:.0f} on average, at most {sample['max_patches']}")]


def _counts(benchmark: dict[str, Any]) -> str:
    left_out = f", {benchmark['left_out']} left out" if benchmark["left_out"] else ""
    return f"{benchmark['images']:,} images, {benchmark['items']:,} items{left_out}"


def _step_rows(steps: dict[str, Any]) -> list[tuple[str, str]]:
    contents = steps["contents"]
    batch = f"{steps['batch_per_process']} per process x {steps['processes']} = {steps['contrastive_batch']:,}"
    texts = f"{contents['short_texts']:.0f} short or of regions, {contents['long_texts']:.0f} long"
    return [
        ("contrastive batch", f"{batch}, {steps['language_batches']} in language"),
        (
            "samples per step",
            f"{steps['samples_per_step']:,} (accumulation {steps['accumulation']}, adds no negatives)",
        ),
        ("patches per image", f"{steps['max_num_patches']}"),
        ("texts per process and batch", texts),
        ("steps per epoch", f"{steps['per_epoch']:,}"),
        ("steps", f"{steps['total']:,} ({steps['epochs']:.2f} epochs)"),
        ("warm-up", f"{steps['warmup']:,} steps, to a learning rate of {steps['learning_rate']:g}"),
    ]


def _memory_rows(memory: dict[str, Any]) -> list[tuple[str, str]]:
    names = ("weights", "gradients", "optimizer", "average", "vision_activations", "text_activations", "similarity")
    rows = [(name.replace("_", " "), _bytes(memory[name])) for name in names if name in memory]
    rows.append(("in all", f"{_bytes(memory['total'])} ({memory['strategy']}; beside what torch itself takes)"))
    for way, activations in memory["activations_by_way"].items():
        rows.append((f"activations: {way}", " + ".join(_bytes(value) for value in activations.values())))
    return rows


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"


__all__ = ["make_plan", "optimizer_values", "print_plan", "strategy_of"]
