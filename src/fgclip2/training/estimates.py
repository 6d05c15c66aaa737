"""Estimate by arithmetic what a training run takes: steps, memory, disk, traffic. Nothing is run.

[`plan.plan_run`] puts these together for the settings of a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..data.records import Record, read_image_size
from .objective import ObjectiveSettings

Strategy = Literal["ddp", "fsdp", "zero2"]

FLOAT32 = 4  # bytes
_DDP_COPIES = 2  # of gradients: DDP keeps them once more, in the buckets that it sends
_ZERO2_BUCKET = 500_000_000  # values; DeepSpeed's default
_LOGIT_BYTES = 20  # per pair of image and text: logits, what their loss keeps, and their gradient; measured


@dataclass(frozen=True)
class ParameterCount:
    """Numbers of values: all, and those that are trained."""

    all: int
    trained: int


# ---------------------------------------------------------------------------------------------------------------------
# Data
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataSummary:
    """Describe what some records of a data set hold, by which a step is estimated.

    Attributes:
        looked_at: Number of records.
        unusable: How many of these can't be used.
        first_problem: What is wrong with the first of those, or `None`.
        short_captions, long_captions, with_regions, with_hard_negatives: Shares of the usable records.
        regions: Per record, at most as many as a step takes.
        hard_regions: How many of these have hard negatives.
        mean_patches, max_patches: Per image.
    """

    looked_at: int
    unusable: int = 0
    first_problem: str | None = None
    short_captions: float = 1.0
    long_captions: float = 1.0
    with_regions: float = 0.0
    with_hard_negatives: float = 0.0
    regions: float = 0.0
    hard_regions: float = 0.0
    mean_patches: float = 256.0
    max_patches: int = 256


def summarize(
    attempts: Iterable[Callable[[], Record]], max_regions: int, count_patches: Callable[[int, int], int]
) -> DataSummary:
    """Look at records and at the sizes of their images, without decoding these.

    Args:
        attempts: Functions that give a record, or raise what is wrong with it.
        max_regions: Regions per image and step.
        count_patches: Takes height and width of an image in pixels, and returns how many patches it becomes.

    Raises:
        ValueError: None of the records can be used; names what is wrong with the first.
    """
    records, patches, problems = [], [], []
    for attempt in attempts:
        try:
            record = attempt()
            patches.append(count_patches(*read_image_size(record)))
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        records.append(record)
    if not records:
        raise ValueError(problems[0] if problems else "there are no records")
    hard_shares = [
        sum(bool(r.hard_negatives) for r in record.regions) / max(1, len(record.regions)) for record in records
    ]
    taken = [min(max_regions, len(record.regions)) for record in records]

    def mean(values: list[Any]) -> float:
        return sum(values) / len(records)

    return DataSummary(
        looked_at=len(records) + len(problems),
        unusable=len(problems),
        first_problem=problems[0] if problems else None,
        short_captions=mean([record.short_caption is not None for record in records]),
        long_captions=mean([record.long_caption is not None for record in records]),
        with_regions=mean([bool(record.regions) for record in records]),
        with_hard_negatives=mean([share > 0 for share in hard_shares]),
        regions=mean(taken),
        hard_regions=mean([share * count for share, count in zip(hard_shares, taken, strict=True)]),
        mean_patches=mean(patches),
        max_patches=max(patches),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Steps
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """Steps of the optimizer in a run, and the checkpoints that it writes."""

    per_epoch: int
    total: int
    warmup: int
    checkpoints: int


def count_steps(
    samples_per_epoch: int,
    batch_size: int,
    accumulation: int,
    epochs: float,
    max_steps: int = -1,
    warmup: float = 0.03,
    save_strategy: str = "steps",
    save_steps: float = 500,
) -> Steps:
    """Count as transformers' Trainer does.

    Args:
        samples_per_epoch: Samples that one process gets, a multiple of `batch_size`.
        batch_size: Samples per batch of a process.
        accumulation: Batches per step.
        epochs, max_steps: The length of the run; `max_steps` counts if positive.
        warmup: Steps, or below 1 their share of the run.
        save_strategy, save_steps: When checkpoints are written; `save_steps` below 1 is a share of the run.
    """
    per_epoch = max(1, math.ceil(samples_per_epoch // batch_size / accumulation))
    total = max_steps if max_steps > 0 else math.ceil(epochs * per_epoch)
    if save_strategy == "steps":
        checkpoints = math.ceil(total / (save_steps if save_steps >= 1 else math.ceil(total * save_steps)))
    else:
        checkpoints = math.ceil(total / per_epoch) if save_strategy == "epoch" else 0
    warmup_steps = int(warmup) if warmup >= 1 else math.ceil(total * warmup)
    return Steps(per_epoch, total, warmup_steps, checkpoints)


# ---------------------------------------------------------------------------------------------------------------------
# Memory of one process, in bytes
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepContents:
    """Count what one process embeds in one step on average: images of `patches` patches each, and texts."""

    images: float
    patches: int  # those that patch dropout leaves
    short_texts: float  # captions, texts of regions and hard negatives: all that are as long as a short caption
    captions: float  # short captions, which are compared with all images
    long_texts: float
    regions: float

    @classmethod
    def expected(cls, batch_size: int, data: DataSummary, settings: ObjectiveSettings, negatives: int) -> StepContents:
        """Return what a batch is expected to hold under an objective, with `negatives` hard negatives per region."""
        captions = data.short_captions * batch_size
        regions = data.regions * batch_size if settings.uses_regions else 0.0
        hard = data.hard_regions * batch_size if settings.uses_hard_negatives else 0.0
        return cls(
            images=batch_size,
            patches=data.max_patches,
            short_texts=captions + regions + hard * (1 + negatives),
            captions=captions if settings.short_weight else 0.0,
            long_texts=data.long_captions * batch_size if settings.long_weight else 0.0,
            regions=max(regions, hard),
        )

    def share(self, images: int) -> StepContents:
        """Return the part that `images` of the images have, with their texts and regions."""
        part = min(1.0, images / self.images)
        numbers = {name: getattr(self, name) * part for name in ("images", "short_texts", "long_texts", "regions")}
        return replace(self, **numbers)


def zero2_buckets(zero_optimization: Mapping[str, Any], text_width: int) -> int:
    """Return how many values the buckets have into which DeepSpeed's ZeRO-2 moves gradients to send them.

    They are there all through a backward pass, full or not.

    Args:
        zero_optimization: What DeepSpeed's configuration has under this name. DeepSpeed takes its default for what is
            absent or `"auto"`, but transformers makes a `reduce_bucket_size` of `"auto"` the square of the width.
        text_width: Width of the text tower.
    """
    size = zero_optimization.get("reduce_bucket_size", _ZERO2_BUCKET)
    # One bucket is filled while the other is sent.
    count = 2 if zero_optimization.get("overlap_comm") is True else 1
    return count * (text_width**2 if size == "auto" else int(size))


def state_memory(
    count: ParameterCount,
    strategy: Strategy = "ddp",
    world_size: int = 1,
    mixed: bool = False,
    values_per_optimizer: int = 2,
    averaged: bool = False,
    buckets: int = _ZERO2_BUCKET,
) -> dict[str, float]:
    """Return bytes of what stays from step to step: `weights`, `gradients`, `optimizer`, and `average` if averaged.

    Gradients count with the buckets in which they are sent, where there are any beside them.

    Args:
        count: Parameters of the whole model.
        strategy: `"ddp"`, `"fsdp"` (all is divided), `"zero2"` (gradients and optimizer are).
        world_size: Number of processes.
        mixed: Compute in bfloat16, under `"ddp"` and `"fsdp"` by autocast, which keeps copies of the weights.
        values_per_optimizer: Float32 values that the optimizer keeps per parameter; AdamW keeps two.
        averaged: Keep a moving average of the weights.
        buckets: Values of [`zero2_buckets`], which count under `"zero2"`.
    """
    divisor = world_size if strategy == "fsdp" else 1
    optimizer_divisor = world_size if strategy in ("fsdp", "zero2") else 1
    if strategy == "zero2":
        value = 2 if mixed else FLOAT32
        weights = value * count.all + FLOAT32 * count.trained / world_size  # the optimizer has float32 ones of its own
        gradients = value * (count.trained / world_size + buckets)
    else:
        weights = (FLOAT32 + 2 * mixed) * count.all / divisor
        copies = _DDP_COPIES if strategy == "ddp" and world_size > 1 else 1
        gradients = copies * FLOAT32 * count.trained / divisor
    memory = {
        "weights": weights,
        "gradients": gradients,
        "optimizer": FLOAT32 * values_per_optimizer * count.trained / optimizer_divisor,
    }
    return {**memory, "average": FLOAT32 * count.trained / divisor} if averaged else memory


@dataclass(frozen=True)
class Activations:
    """Bytes that a step takes for a part of a model.

    Attributes:
        kept: What the forward pass keeps for the backward pass.
        working: What the backward pass through the part takes beside it, at most at once.
    """

    kept: float
    working: float = 0.0


def layer_activations(config: Any, mixed: bool = False, length: int = 0) -> float:
    """Return the bytes that the backward pass needs of one encoder layer, for each token.

    A layer keeps the inputs and outputs of both norms, queries, keys, values and their attention (8 vectors of the
    width), and both sides of the activation function; attention by blocks keeps no scores.

    Args:
        config: Configuration of the tower, by the names that transformers has for sizes.
        mixed: Compute in bfloat16 by autocast; the inputs of norms stay float32.
        length: Tokens of a sequence; counts where attention is `"eager"`, which keeps its scores.
    """
    width, mlp, low = config.hidden_size, config.intermediate_size, 2 if mixed else FLOAT32
    one = 2 * FLOAT32 * width + low * (6 * width + 2 * mlp)
    if config._attn_implementation == "eager":
        one += 2 * low * config.num_attention_heads * length
    return one


def tower_activations(
    config: Any,
    tokens: float,
    layers: int | None = None,
    mixed: bool = False,
    checkpointing: bool = False,
    length: int = 0,
) -> float:
    """Return the bytes that an encoder keeps for the backward pass.

    Args:
        config: Configuration of the tower.
        tokens: Tokens of all its sequences, padding included.
        layers: How many layers keep activations; `None`: all.
        mixed, length: As in [`layer_activations`].
        checkpointing: Use gradient checkpointing, with which each layer keeps only its input.
    """
    layers = config.num_hidden_layers if layers is None else layers
    one = FLOAT32 * config.hidden_size if checkpointing else layer_activations(config, mixed, length)
    return tokens * layers * one


def working_memory(
    config: Any,
    tokens: float,
    layers: int | None = None,
    mixed: bool = False,
    checkpointing: bool = False,
    length: int = 0,
) -> float:
    """Return the bytes that the backward pass through one layer takes beside what was kept; arguments as above.

    These are gradients of the layer's output and of one side of the activation function; and with checkpointing all
    that the layer would have kept beside its input, which it computes again.
    """
    if layers == 0:
        return 0.0
    gradients = FLOAT32 * config.hidden_size + (2 if mixed else FLOAT32) * config.intermediate_size
    again = layer_activations(config, mixed, length) - FLOAT32 * config.hidden_size if checkpointing else 0.0
    return tokens * (gradients + again)


def text_activations(
    config: Any,
    contents: StepContents,
    layers: int | None = None,
    mixed: bool = False,
    checkpointing: bool = False,
    chunk_size: int = 0,
) -> Activations:
    """Return the bytes that a step takes for a text tower.

    Texts count with all positions of their walk: less is taken where they are padded to the longest of a batch only.

    Args:
        config: Configuration of the tower.
        contents: Of one process.
        layers, mixed, checkpointing: As in [`tower_activations`].
        chunk_size: Texts that are encoded at once, and again for the gradient, which keeps nothing of the others; 0:
            all.
    """
    kept = working = 0.0
    for count, length in (
        (contents.short_texts, config.max_position_embeddings),
        (contents.long_texts, config.longtext_len),
    ):
        tokens = length * (min(count, chunk_size) if chunk_size else count)
        # A chunk is computed again as a whole, so its layers are not.
        options = (layers, mixed, checkpointing and not chunk_size, length)
        # Input and output of the last norm, whose last position is the text's; gone before the layers' turn.
        norm = 2 * FLOAT32 * config.hidden_size * tokens
        encoder = tower_activations(config, tokens, *options)
        kept += 0.0 if chunk_size else norm + encoder
        at_work = working_memory(config, tokens, *options)
        working = max(working, at_work + encoder if chunk_size else at_work - norm)
    return Activations(kept, max(0.0, working))


def similarity_memory(width: int, contents: StepContents, world_size: int, form: str = "gather") -> float:
    """Return bytes of the losses of captions: texts of other ranks with their gradient, and logits of this rank.

    Args:
        width: Length of the embeddings.
        contents: Of one process.
        world_size: Number of processes.
        form: Form of the sigmoid loss; only `"gather"` keeps the logits of both losses until the backward pass.
            `"info_nce"` gathers images too, and has logits of images and of texts.
    """
    kinds = (contents.captions, contents.long_texts)
    if form == "ring":
        texts, columns = 2 * max(kinds), max(kinds)
    else:
        texts = columns = sum(kinds) * world_size
    memory = 2 * FLOAT32 * width * texts + _LOGIT_BYTES * contents.images * columns
    return 2 * memory if form == "info_nce" else memory


# ---------------------------------------------------------------------------------------------------------------------
# Host memory of one process's loader, in bytes
# ---------------------------------------------------------------------------------------------------------------------

_CHANNELS = 3


def pixel_memory(contents: StepContents, patch_size: int) -> float:
    """Return bytes of the pixels of a batch, which travel as 8-bit values; texts add a few per cent."""
    return contents.images * contents.patches * _CHANNELS * patch_size**2


def queue_memory(batch: float, workers: int, prefetch: int | None) -> float:
    """Return bytes of the batches that the loader's workers have ready at most; without workers there are none.

    Args:
        batch: Bytes of a batch.
        workers: Worker processes.
        prefetch: Batches that each makes ahead; `None`: 2, as torch's DataLoader has it.
    """
    return batch * workers * (2 if prefetch is None else prefetch)


# ---------------------------------------------------------------------------------------------------------------------
# Disk and traffic, in bytes
# ---------------------------------------------------------------------------------------------------------------------


def checkpoint_size(count: ParameterCount, values_per_optimizer: int = 2, averaged: bool = False) -> int:
    """Return bytes of one checkpoint to go on from: weights, optimizer, average. With LoRA, count the adapter alone."""
    return FLOAT32 * (count.all + (values_per_optimizer + averaged) * count.trained)


def gathers_of_step(accumulation: int, chunks: int = 0) -> int:
    """Return how often a step gathers weights that FSDP2 has divided: for each forward and each backward pass.

    The gradient cache has two forward passes and one backward pass of each chunk.

    Args:
        accumulation: Batches of the step.
        chunks: Of the gradient cache, for each batch; 0 without it.
    """
    return accumulation * (3 * chunks if chunks else 2)


def gradient_traffic(
    count: ParameterCount, strategy: Strategy, world_size: int, mixed: bool = False, gathers: int = 2
) -> float:
    """Return bytes that a process sends in rings in each step: gradients, and weights where these are divided.

    Args:
        count: Parameters of the model.
        strategy: As in [`state_memory`].
        world_size: Number of processes.
        mixed: Compute in bfloat16.
        gathers: How often divided weights are gathered, of [`gathers_of_step`].
    """
    passed = (world_size - 1) / world_size
    if strategy == "fsdp":
        return passed * (gathers * (2 if mixed else FLOAT32) * count.all + FLOAT32 * count.trained)
    return 2 * passed * (2 if strategy == "zero2" and mixed else FLOAT32) * count.trained


def embedding_traffic(width: int, contents: StepContents, world_size: int, form: str = "gather") -> float:
    """Return bytes that a process sends in each step for the losses of captions; `form` as in [`similarity_memory`].

    Gathering sends each text once, and its gradient twice (an all-reduce); the ring sends each text in the forward and
    again in the backward pass, and its gradient behind it. `"info_nce"` gathers images too.
    """
    if world_size == 1:
        return 0.0
    blocks = 3 * world_size - 2 if form == "ring" else 3 * (world_size - 1) * (2 if form == "info_nce" else 1)
    return blocks * FLOAT32 * width * (contents.captions + contents.long_texts)
