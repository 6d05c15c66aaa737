"""Put together the memory of one process in a training step, from estimates of its parts. Nothing is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from . import estimates
from .arguments import FGClip2TrainingArguments
from .estimates import FLOAT32, Activations, StepContents
from .parameters import count_parameters, layers_with_gradients

_SMALLER_CHUNK = 8  # images, of the gradient cache in a comparison
TEXT_CHUNK_SIZES = (512, 256, 128, 64, 32)  # that are tried where a step does not fit
USABLE = 0.9  # of a device's memory: the rest is for its context and for what its allocator can't use


@dataclass(frozen=True)
class Gradients:
    """Bytes of the gradients that a backward pass makes.

    Attributes:
        text: Those of the text tower.
        all: Those of the whole model.
        token_embeddings: Those of the token embeddings, which each pass of the text tower makes as a whole.
    """

    text: float
    all: float
    token_embeddings: float

    @classmethod
    def of(cls, model: Any, value: int = FLOAT32) -> Gradients:
        """Count those of a model, which may be on the meta device, with so many bytes for each value."""
        counts = {part: value * count.trained for part, count in count_parameters(model).items()}
        text = sum(size for part, size in counts.items() if part.startswith("text"))
        return cls(text, counts["total"], counts.get("text embeddings", 0.0))


def step_memory(
    activations: Mapping[str, Activations],
    gradients: Gradients,
    similarity: float,
    text_in_chunks: bool = False,
    accumulated: bool = False,
) -> float:
    """Return the bytes that a forward and a backward pass take at their worst moment, beside what stays between steps.

    The backward pass goes through the parts from the last to the first, frees their activations and makes gradients.
    The worst moment is in the loss, in one of the parts, at the end of the text tower, when two gradients of the token
    embeddings are about to be added, or at the end, when all gradients are there.

    Args:
        activations: As `activation_memory` of a training model returns them.
        gradients: Of the model.
        similarity: Bytes of the losses.
        text_in_chunks: Texts are encoded in chunks, so that gradients of the tower meet the activations of a chunk.
        accumulated: Gradients of a backward pass before are there all the time.
    """
    kept = sum(part.kept for part in activations.values())
    moments, made = [kept + similarity], 0.0
    for name, part in reversed(list(activations.items())):
        meets = gradients.text if name == "text" and text_in_chunks else 0.0
        moments.append(kept + part.working + made + meets)
        kept -= part.kept
        if name == "text":
            made = 0.0 if accumulated else gradients.text  # what is made goes into what is there
            moments.append(kept + gradients.token_embeddings + (gradients.token_embeddings if accumulated else made))
    return max(moments) + gradients.all if accumulated else max(*moments, gradients.all)


def activations_at_most(activations: Mapping[str, Activations]) -> float:
    """Return the bytes of activations at the worst moment of a step, without losses and gradients."""
    return step_memory(activations, Gradients(0.0, 0.0, 0.0), 0.0)


def device_memory(args: FGClip2TrainingArguments) -> float | None:
    """Return bytes of memory that the device has by the arguments, or by itself; `None` without an accelerator."""
    if args.device_memory is not None:
        return args.device_memory * 2**30
    if args.use_cpu or not torch.cuda.is_available():
        return None
    return float(torch.cuda.get_device_properties(args.device).total_memory)


def choose_text_chunk_size(
    args: FGClip2TrainingArguments, model: Any, config: Any, settings: Any, contents: StepContents, world_size: int
) -> int:
    """Return how many texts are encoded at once: as the arguments say, else as many as fit the device.

    Args:
        args, model, config, settings, contents, world_size: As in [`describe_memory`].

    Returns:
        0, which is all, where a step fits the device or nothing is known of it; else the largest number with which a
        step fits, or the least that is tried.
    """
    if args.text_chunk_size is not None or not model.task.has_gradient_cache:
        return args.text_chunk_size or 0
    memory = device_memory(args)
    if memory is None:
        return 0
    sizes = (0, *TEXT_CHUNK_SIZES)
    step = StepPlan(args, model, config, settings, contents, world_size)
    return next((size for size in sizes if step.at_most(size) <= USABLE * memory), sizes[-1])


@dataclass(frozen=True)
class StepPlan:
    """Plan of the memory of a step of one process.

    Attributes:
        args: Arguments of the run.
        model: Training model, which may be on the meta device.
        config: Its configuration.
        settings: Settings of the objective.
        contents: Of a batch of one process.
        world_size: Number of processes.
    """

    args: FGClip2TrainingArguments
    model: Any
    config: Any
    settings: Any
    contents: StepContents
    world_size: int

    @cached_property
    def state(self) -> dict[str, float]:
        """Bytes of what stays from step to step, and of gradients."""
        args = self.args
        state = estimates.state_memory(
            count_parameters(self.model)["total"],
            args.strategy,
            self.world_size,
            mixed=self.is_mixed,
            values_per_optimizer=optimizer_values(args),
            averaged=args.ema_decay is not None,
            buckets=estimates.zero2_buckets(args.zero_optimization, self.config.text_config.hidden_size),
        )
        beside = self.model.task.kept_memory(self.model, self.settings) * self._value / FLOAT32
        return {**state, "teacher": beside} if beside else state

    @property
    def is_mixed(self) -> bool:
        """Return whether the run computes in half precision."""
        return bool(self.args.bf16 or self.args.fp16)

    @property
    def _value(self) -> int:
        """Bytes of a weight that computes, and of its gradient: DeepSpeed makes both of the dtype of the run."""
        return 2 if self.args.strategy == "zero2" and self.is_mixed else FLOAT32

    @cached_property
    def similarity(self) -> float:
        """Bytes of the losses."""
        return self.model.task.exchange_memory(self.model, self.settings, self.contents, self.world_size)

    @property
    def pixels(self) -> float:
        """Bytes of a batch's pixels, which are on the device all through a step."""
        return estimates.pixel_memory(self.contents, self.config.vision_config.patch_size)

    @cached_property
    def gradients(self) -> Gradients:
        """Gradients of a backward pass; where they are divided, what each process keeps of them beside buckets."""
        whole = Gradients.of(self.model, self._value)
        if self.args.strategy == "ddp":
            return whole
        # They come and go layer by layer, or go into the buckets of ZeRO-2.
        return Gradients(whole.text / self.world_size, whole.all / self.world_size, whole.token_embeddings)

    @cached_property
    def _layers(self) -> dict[str, int]:
        return {f"{tower}_layers": layers_with_gradients(self.model, tower) for tower in self.model.towers}

    def activations(self, images: int | None = None, checkpointing: bool = False, text_chunk_size: int = 0) -> Any:
        """Return bytes of the activations by part, of so many images at once; `None`: of all."""
        contents = self.contents if images is None else self.contents.share(images)
        options: dict[str, Any] = {"mixed": self.is_mixed, "checkpointing": checkpointing, **self._layers}
        if text_chunk_size:
            options["text_chunk_size"] = text_chunk_size
        return self.model.activation_memory(self.config, contents, **options)

    def configured(self, text_chunk_size: int) -> Any:
        """Return the activations as the run is configured, but for the texts that are encoded at once."""
        args = self.args
        return self.activations(args.gradient_cache_chunk_size, bool(args.gradient_checkpointing), text_chunk_size)

    def at_most(self, text_chunk_size: int) -> float:
        """Return bytes at the worst moment of a step."""
        buckets = max(0.0, self.state["gradients"] - self.gradients.all)  # of DDP and ZeRO-2
        stays = sum(size for name, size in self.state.items() if name != "gradients") + buckets + self.pixels
        step = step_memory(
            self.configured(text_chunk_size),
            self.gradients,
            self.similarity,
            text_in_chunks=text_chunk_size > 0,
            accumulated=self.args.gradient_accumulation_steps > 1 or self.args.gradient_cache_chunk_size is not None,
        )
        return stays + step


def describe_memory(
    args: FGClip2TrainingArguments, model: Any, config: Any, settings: Any, contents: StepContents, world_size: int
) -> dict[str, Any]:
    """Return the bytes of one process, as configured, and of activations in other ways.

    Args:
        args, model, config, settings, contents, world_size: As in [`StepPlan`].

    Returns:
        `strategy`; `text_chunk_size`, as configured or chosen; `device`, bytes that it has, and whether a step
        `fits`, or `None`; bytes of what stays from step to step, and of the parts of a step; `total`, which may be less
        than their sum, for activations go as gradients come; `activations_by_way`.
    """
    step = StepPlan(args, model, config, settings, contents, world_size)
    text_chunk_size = choose_text_chunk_size(args, model, config, settings, contents, world_size)
    total, device = step.at_most(text_chunk_size), device_memory(args)
    activations = step.configured(text_chunk_size)
    ways = {"plain": step.activations(), "gradient_checkpointing": step.activations(checkpointing=True)}
    if model.task.has_gradient_cache:
        chunk = args.gradient_cache_chunk_size or _SMALLER_CHUNK
        texts = text_chunk_size or TEXT_CHUNK_SIZES[0]
        ways |= {
            f"text_chunk_size={texts}": step.activations(text_chunk_size=texts),
            f"gradient_cache_chunk_size={chunk}": step.activations(chunk),
            f"gradient_cache_chunk_size={chunk}, gradient_checkpointing": step.activations(chunk, checkpointing=True),
        }
    return {
        "strategy": args.strategy,
        "text_chunk_size": text_chunk_size,
        "device": device,
        "fits": None if device is None else total <= USABLE * device,
        **step.state,
        "pixels": step.pixels,
        **{f"{part.replace(' ', '_')}_activations": its.kept for part, its in activations.items()},
        "working": max(its.working for its in activations.values()),
        "similarity": step.similarity,
        "total": total,
        "activations_by_way": {way: activations_at_most(its) for way, its in ways.items()},
    }


def optimizer_values(args: FGClip2TrainingArguments) -> int:
    """Return how many float32 values the optimizer keeps per parameter; where unknown, as many as AdamW."""
    name = str(getattr(args.optim, "value", args.optim))
    return {"sgd": 0, "adagrad": 1, "rmsprop": 1, "adafactor": 0}.get(name, 2)
