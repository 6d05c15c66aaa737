"""Refuse what does not go together in a run. The trainer and the plan share these checks."""

from __future__ import annotations

from typing import Any

from .arguments import FGClip2TrainingArguments


def check_memory_options(args: FGClip2TrainingArguments, model: Any) -> None:
    """Check that a model can be trained in chunks, if the arguments ask for them.

    Args:
        args: Arguments of the run.
        model: A training model.

    Raises:
        ValueError: `gradient_cache_chunk_size` or `text_chunk_size` is set for a model whose losses compare tokens;
            or the gradient cache would go with DeepSpeed.
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
    if args.gradient_cache_chunk_size and args.strategy == "zero2":
        raise ValueError("gradient_cache_chunk_size does not go with DeepSpeed, which takes one backward per step")
