"""Refuse what does not go together in a run. The trainer and the plan share these checks."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from itertools import permutations
from typing import Any

from transformers.trainer_utils import HubStrategy

from ..data.records import RecordDataset
from .arguments import FGClip2TrainingArguments


def check_memory_options(args: FGClip2TrainingArguments, model: Any) -> None:
    """Check that a model can be trained in chunks, if the arguments ask for them.

    Args:
        args: Arguments of the run.
        model: A training model.

    Raises:
        ValueError: `gradient_cache_chunk_size` or `text_chunk_size` is set for a model whose losses compare tokens.
    """
    if args.gradient_cache_chunk_size and not model.task.has_gradient_cache:
        raise ValueError(
            f"`gradient_cache_chunk_size` must be None for {type(model).__name__}, whose losses need all pairs of "
            f"a batch at once, got {args.gradient_cache_chunk_size}: take gradient_checkpointing"
        )
    if args.text_chunk_size and not model.task.has_gradient_cache:
        raise ValueError(
            f"`text_chunk_size` must be None or 0 for {type(model).__name__}, which compares tokens of texts, got "
            f"{args.text_chunk_size}: take gradient_checkpointing"
        )


def check_strategy(args: FGClip2TrainingArguments, model: Any, settings: Any) -> None:
    """Check what FSDP and DeepSpeed can't do.

    Args:
        args: Arguments of the run.
        model: A training model, or PEFT's wrapper of one.
        settings: Settings of its objective.

    Raises:
        ValueError: The run has FSDP or DeepSpeed and distils into LoRA or publishes its checkpoints, FSDP and distils
            from weights that one process alone has read, or DeepSpeed and a gradient cache.
    """
    if args.strategy == "ddp":
        return
    weight = getattr(settings, "distillation_weight", 0.0)  # objectives of pairs have none
    if weight and hasattr(model, "peft_config"):
        raise ValueError(
            f"distillation_weight={weight} with LoRA does not go with FSDP or DeepSpeed; "
            "allowed: one process or DDP, or training all weights"
        )
    if weight and args.strategy == "fsdp" and os.environ.get("FSDP_CPU_RAM_EFFICIENT_LOADING", "").lower() == "true":
        raise ValueError(
            f"distillation_weight={weight} needs the weights of the start on each process, which "
            "fsdp_cpu_ram_efficient_loading reads on one alone: set it to false"
        )
    if args.gradient_cache_chunk_size and args.strategy == "zero2":
        raise ValueError("gradient_cache_chunk_size does not go with DeepSpeed, which takes one backward per step")
    if args.push_to_hub and args.hub_strategy != HubStrategy.END:
        raise ValueError(
            f"hub_strategy={args.hub_strategy!s} does not go with FSDP or DeepSpeed, whose checkpoints have "
            "pickles that nobody should go on from: set it to 'end'"
        )


def check_evaluation(args: FGClip2TrainingArguments, eval_dataset: Any, terms: Collection[str]) -> None:
    """Check the records to evaluate on, and that the best checkpoint is chosen by a number that they have.

    Args:
        args: Arguments of the run.
        eval_dataset: A [`RecordDataset`], a dict of them by name, or `None`.
        terms: Names of the objective's terms, which numbers of a set begin with.

    Raises:
        ValueError: It is something else, two sets could have numbers of the same name, or `metric_for_best_model` is of
            none of the sets.
    """
    datasets = eval_dataset.values() if isinstance(eval_dataset, Mapping) else [eval_dataset]
    for dataset in datasets:
        if dataset is not None and not isinstance(dataset, RecordDataset):
            raise ValueError(
                f"`eval_dataset` must be a RecordDataset, or a dict of them, got {type(dataset).__name__} "
                "(fgclip2.data.read_shards reads shards)"
            )
    if not isinstance(eval_dataset, Mapping) or not eval_dataset:
        return
    check_names_of_sets(eval_dataset, terms)
    metric = args.metric_for_best_model
    if metric is None or "/" in metric:
        return  # with a slash it is a number of a benchmark
    if not any(metric.removeprefix("eval_").startswith(f"{name}_") for name in eval_dataset):
        allowed = " or ".join(f"eval_{name}_…" for name in eval_dataset)
        raise ValueError(
            f"`metric_for_best_model` must be a number of one of the sets, {allowed}, e.g. "
            f"eval_{next(iter(eval_dataset))}_loss, got {metric!r}"
        )


def check_names_of_sets(names: Iterable[Any], terms: Collection[str]) -> None:
    """Check that sets to evaluate on share no number: `coco` and `coco_long` would both have `eval_coco_long_loss`.

    Args:
        names: Names of the sets.
        terms: Names of the objective's terms.

    Raises:
        ValueError: One is the name of another and a term.
    """
    for name, longer in permutations(map(str, names), 2):
        term = longer.removeprefix(f"{name}_")
        if term != longer and term in terms:
            raise ValueError(
                "the name of a set to evaluate on must not be that of another one and a term of the objective, got "
                f"{name!r} and {longer!r}: eval_{longer}_loss would be a number of either; rename one, e.g. "
                f"{name}-{term}"
            )
