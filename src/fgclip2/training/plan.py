"""What a training run will take: parameters, steps, memory, disk, traffic. Estimates by arithmetic; nothing is run."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from PIL import Image
from torch import nn

from ..data.records import Record
from ..modeling.configuration_fgclip2 import FGClip2Config, FGClip2TextConfig, FGClip2VisionConfig
from ..modeling.image_processing_fgclip2 import naflex_size, patch_budget
from .modeling import FGClip2ForTraining
from .objective import ObjectiveSettings

Strategy = Literal["ddp", "fsdp", "zero2"]

_WRAPPER = "base_model.model."  # PEFT's
_FLOAT32 = 4  # bytes
_DDP_COPIES = 2  # of gradients: DDP keeps them once more, in the buckets that it sends
_LOGIT_BYTES = 20  # per pair of image and text: logits, what their loss keeps, and their gradient; measured
_PARTS = {
    "vision embeddings": r"vision_model\.embeddings",
    "vision encoder": r"vision_model\.(encoder|post_layernorm)",
    "image head": r"vision_model\.head",
    "dense head": r"dense_feature_head",
    "text embeddings": r"text_model\.embeddings",
    "text encoder": r"text_model\.(encoder|final_layer_norm)",
    "text heads": r"text_model\.head|longtext_head|boxtext_head",
    "scales": r"logit_",
}


# ---------------------------------------------------------------------------------------------------------------------
# Parameters
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParameterCount:
    """How many values, and how many of them are trained."""

    all: int
    trained: int


def count_parameters(model: nn.Module) -> dict[str, ParameterCount]:
    """Count the values of a model, also of one on the meta device or in PEFT's wrapper, by part and in all (`total`).

    What LoRA adds is the part `adapters`.
    """
    sums: dict[str, list[int]] = {}
    for name, parameter in model.named_parameters():
        plain = name.removeprefix(_WRAPPER)
        part = "adapters" if "lora_" in name else next(p for p, pattern in _PARTS.items() if re.match(pattern, plain))
        for key in (part, "total"):
            count = sums.setdefault(key, [0, 0])
            count[0] += parameter.numel()
            count[1] += parameter.numel() * parameter.requires_grad
    order = [part for part in (*_PARTS, "adapters", "total") if part in sums]
    return {part: ParameterCount(*sums[part]) for part in order}


def layers_with_gradients(model: nn.Module, tower: str) -> int:
    """Number of a tower's encoder layers that keep activations: those with a trained parameter in or below them."""
    layers: dict[int, bool] = {}
    below = False
    for name, parameter in model.named_parameters():
        plain = name.removeprefix(_WRAPPER)
        if plain.startswith(f"{tower}.embeddings."):
            below |= parameter.requires_grad
        elif match := re.match(rf"{tower}\.encoder\.layers\.(\d+)\.", plain):
            number = int(match[1])
            layers[number] = layers.get(number, False) or parameter.requires_grad
    first = next((number for number in sorted(layers) if below or layers[number]), len(layers))
    return len(layers) - first


# ---------------------------------------------------------------------------------------------------------------------
# Data
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataSummary:
    """What some records of a data set hold, by which a step is estimated.

    Attributes:
        looked_at: Records.
        unusable: Of these, those that can't be used.
        first_problem: Of the first of those, or `None`.
        short_captions, long_captions, with_regions: Shares of the usable records.
        regions: Per record, at most as many as a step takes.
        hard_regions: Of these, those with hard negatives.
        mean_patches, max_patches: Per image.
    """

    looked_at: int
    unusable: int = 0
    first_problem: str | None = None
    short_captions: float = 1.0
    long_captions: float = 1.0
    with_regions: float = 0.0
    regions: float = 0.0
    hard_regions: float = 0.0
    mean_patches: float = 256.0
    max_patches: int = 256


def summarize(
    attempts: Iterable[Callable[[], Record]], max_regions: int, max_num_patches: int | str, patch_size: int = 16
) -> DataSummary:
    """Look at records and at the sizes of their images, without decoding these.

    Args:
        attempts: Functions that give a record, or raise what is wrong with it.
        max_regions: Regions per image and step.
        max_num_patches: Patches per image, or `"auto"`, by its size.
        patch_size: Side of a patch in pixels.

    Raises:
        ValueError: None of the records can be used; names what is wrong with the first.
    """
    records, patches, problems = [], [], []
    for attempt in attempts:
        try:
            record = attempt()
            patches.append(_patches(record, max_num_patches, patch_size))
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
    return DataSummary(
        looked_at=len(records) + len(problems),
        unusable=len(problems),
        first_problem=problems[0] if problems else None,
        short_captions=_mean([record.short_caption is not None for record in records]),
        long_captions=_mean([record.long_caption is not None for record in records]),
        with_regions=_mean([bool(record.regions) for record in records]),
        regions=_mean(taken),
        hard_regions=_mean([share * count for share, count in zip(hard_shares, taken, strict=True)]),
        mean_patches=_mean(patches),
        max_patches=max(patches),
    )


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def _patches(record: Record, max_num_patches: int | str, patch_size: int) -> int:
    image = io.BytesIO(record.image) if isinstance(record.image, bytes) else record.image
    if isinstance(image, Image.Image):
        width, height = image.size
    else:
        try:
            with Image.open(image) as opened:  # reads no more than the header
                width, height = opened.size
        except OSError as error:
            raise ValueError(f"{record.source}: {error}") from error
    budget = patch_budget(height, width, patch_size) if max_num_patches == "auto" else int(max_num_patches)
    height, width = naflex_size(height, width, patch_size, budget)
    return (height // patch_size) * (width // patch_size)


# ---------------------------------------------------------------------------------------------------------------------
# Steps
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """Of the optimizer."""

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
        samples_per_epoch: That one process gets, a multiple of `batch_size`.
        batch_size: Per process.
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
    """What one process embeds in one step: images of `patches` patches each, and texts, on average."""

    images: float
    patches: int
    short_texts: float  # captions, texts of regions and hard negatives: all of the short walk
    captions: float  # short captions, which are compared with all images
    long_texts: float
    regions: float

    @classmethod
    def expected(cls, batch_size: int, data: DataSummary, settings: ObjectiveSettings, negatives: int) -> StepContents:
        """Expected contents of a batch under an objective; `negatives`: hard negatives per region."""
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
        """Of `images` of the images."""
        part = min(1.0, images / self.images)
        numbers = {name: getattr(self, name) * part for name in ("images", "short_texts", "long_texts", "regions")}
        return replace(self, **numbers)


def state_memory(
    count: ParameterCount,
    strategy: Strategy = "ddp",
    world_size: int = 1,
    mixed: bool = False,
    values_per_optimizer: int = 2,
    averaged: bool = False,
) -> dict[str, float]:
    """Bytes of what stays from step to step: `weights`, `gradients`, `optimizer`, and `average` with `averaged`.

    Args:
        count: Of the whole model.
        strategy: `"ddp"`, `"fsdp"` (all is divided), `"zero2"` (gradients and optimizer are).
        world_size: Processes.
        mixed: bfloat16: under `"ddp"` and `"fsdp"` by autocast, which keeps copies of the weights during a step.
        values_per_optimizer: Float32 values that the optimizer keeps per parameter; of AdamW two.
        averaged: Whether a moving average of the weights is kept.
    """
    divisor = world_size if strategy == "fsdp" else 1
    optimizer_divisor = world_size if strategy in ("fsdp", "zero2") else 1
    if strategy == "zero2":
        value = 2 if mixed else _FLOAT32
        weights = value * count.all + (_FLOAT32 * count.trained / world_size if mixed else 0)  # and those of float32
        gradients = value * count.trained / world_size
    else:
        weights = (_FLOAT32 + 2 * mixed) * count.all / divisor
        copies = _DDP_COPIES if strategy == "ddp" and world_size > 1 else 1
        gradients = copies * _FLOAT32 * count.trained / divisor
    memory = {
        "weights": weights,
        "gradients": gradients,
        "optimizer": _FLOAT32 * values_per_optimizer * count.trained / optimizer_divisor,
    }
    return {**memory, "average": _FLOAT32 * count.trained / divisor} if averaged else memory


def tower_activations(
    config: FGClip2TextConfig | FGClip2VisionConfig,
    tokens: float,
    layers: int | None = None,
    mixed: bool = False,
    checkpointing: bool = False,
    length: int = 0,
) -> float:
    """Bytes that the backward pass needs of an encoder.

    A layer keeps the inputs and outputs of both norms, queries, keys, values and their attention (8 vectors of the
    width), and both sides of the activation function; attention by blocks keeps no scores. With checkpointing, each
    keeps only its input, and one at a time has all again.

    Args:
        config: Of the tower.
        tokens: Of all its sequences, padding included.
        layers: That keep activations; `None`: all.
        mixed: bfloat16 by autocast; the inputs of norms stay float32.
        checkpointing: Of gradients.
        length: Tokens of a sequence; counts where attention is `"eager"`, which keeps its scores.
    """
    layers = config.num_hidden_layers if layers is None else layers
    width, mlp, low = config.hidden_size, config.intermediate_size, 2 if mixed else _FLOAT32
    one = 2 * _FLOAT32 * width + low * (6 * width + 2 * mlp)
    if config._attn_implementation == "eager":
        one += 2 * low * config.num_attention_heads * length
    kept = layers * _FLOAT32 * width + min(1, layers) * one if checkpointing else layers * one
    return tokens * kept


def activation_memory(
    config: FGClip2Config,
    contents: StepContents,
    mixed: bool = False,
    checkpointing: bool = False,
    vision_layers: int | None = None,
    text_layers: int | None = None,
) -> dict[str, float]:
    """Bytes of the activations of a step: `vision` tower with its heads, and `text` tower."""
    low = 2 if mixed else _FLOAT32
    vision, text = config.vision_config, config.text_config
    patches = contents.images * contents.patches
    short = contents.short_texts * text.max_position_embeddings
    long = contents.long_texts * text.longtext_len
    inputs = low * vision.num_channels * vision.patch_size**2
    heads = _FLOAT32 * vision.hidden_size + 3 * low * vision.hidden_size  # last norm, keys and values of the image head
    if contents.regions:
        heads += low * (6 * vision.hidden_size + 2 * vision.intermediate_size)  # each patch is a query
    options = {"mixed": mixed, "checkpointing": checkpointing}
    texts = [(short, text.max_position_embeddings), (long, text.longtext_len)]
    return {
        "vision": patches * (inputs + heads)
        + tower_activations(vision, patches, vision_layers, **options, length=contents.patches),
        "text": sum(
            tokens * 2 * _FLOAT32 * text.hidden_size
            + tower_activations(text, tokens, text_layers, **options, length=length)
            for tokens, length in texts
        ),
    }


def similarity_memory(
    width: int, contents: StepContents, world_size: int, form: str = "gather", chunk_size: int = 4096
) -> float:
    """Bytes of the sigmoid losses: texts of other ranks with their gradient, and logits of this rank's images.

    Args:
        width: Of the embeddings.
        contents: Of one process.
        world_size: Processes.
        form, chunk_size: Of the sigmoid loss; only `"gather"` keeps the logits of both losses until the backward pass.
    """
    walks = (contents.captions, contents.long_texts)
    everywhere = [own * world_size for own in walks]
    if form == "ring":
        texts, columns = 2 * max(walks), max(walks)
    elif form == "chunked":
        texts, columns = sum(everywhere), min(max(everywhere), chunk_size)
    else:
        texts, columns = sum(everywhere), sum(everywhere)
    return 2 * _FLOAT32 * width * texts + _LOGIT_BYTES * contents.images * columns


# ---------------------------------------------------------------------------------------------------------------------
# Disk and traffic, in bytes
# ---------------------------------------------------------------------------------------------------------------------


def checkpoint_size(count: ParameterCount, values_per_optimizer: int = 2, averaged: bool = False) -> int:
    """Bytes of one checkpoint to go on from: weights, optimizer, average. With LoRA, of the adapter alone."""
    return _FLOAT32 * (count.all + (values_per_optimizer + averaged) * count.trained)


def gradient_traffic(count: ParameterCount, strategy: Strategy, world_size: int, mixed: bool = False) -> float:
    """Bytes that a process sends in each step for gradients, and for weights where they are divided, in rings."""
    passed = (world_size - 1) / world_size
    if strategy == "fsdp":  # gathered for the forward and the backward pass, gradients scattered
        return passed * (2 * (2 if mixed else _FLOAT32) * count.all + _FLOAT32 * count.trained)
    return 2 * passed * (2 if strategy == "zero2" and mixed else _FLOAT32) * count.trained


def embedding_traffic(width: int, contents: StepContents, world_size: int, form: str = "gather") -> float:
    """Bytes that a process sends in each step for the sigmoid losses.

    Gathering sends each text once, and its gradient twice (an all-reduce); the ring sends each text in the forward and
    again in the backward pass, and its gradient behind it.
    """
    if world_size == 1:
        return 0.0
    blocks = 3 * world_size - 2 if form == "ring" else 3 * (world_size - 1)
    return blocks * _FLOAT32 * width * (contents.captions + contents.long_texts)


def meta_model(config: FGClip2Config) -> nn.Module:
    """A training model without memory for its weights, to count them."""
    with torch.device("meta"):
        return FGClip2ForTraining(config)
