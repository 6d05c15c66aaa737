"""How long a step takes on many devices, by arithmetic: operations, traffic and memory. Nothing is run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .estimates import FLOAT32, StepContents

FORWARD_AND_BACKWARD = 3  # a backward pass has twice the operations of the forward pass
# That AdamW reads and writes for a parameter: weight, gradient and two moments, and again all but the gradient.
ADAMW_BYTES = 7 * FLOAT32


@dataclass(frozen=True)
class Machine:
    """What a time follows from.

    Attributes:
        operations: Floating-point operations that a process gets done in a second, by itself.
        bandwidth: Bytes that a process sends in a second, to its neighbour in a ring.
        latency: Seconds that a message takes beside its bytes.
        at_once: Processes that compute at full speed at the same time; more of them share the time. `None`: all.
        overhead: Seconds of each step beside operations.
        overlap: Share of the computation behind which gradients can be sent.
        memory: Bytes that a process reads and writes in a second.
    """

    operations: float
    bandwidth: float
    latency: float
    at_once: int | None = None
    overhead: float = 0.0
    overlap: float = 0.0
    memory: float = math.inf


@dataclass(frozen=True)
class Work:
    """What one process does in one step.

    Attributes:
        operations: Floating-point operations.
        gradient_bytes: Bytes that it sends for gradients and sharded weights.
        text_bytes: Bytes that it sends for the losses of captions.
        gradient_messages, text_messages: Messages one after the other.
        update_bytes: Bytes that its optimizer reads and writes.
    """

    operations: float
    gradient_bytes: float = 0.0
    text_bytes: float = 0.0
    gradient_messages: int = 0
    text_messages: int = 0
    update_bytes: float = 0.0


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step: computation, update of the weights, and what is waited for beside these."""

    compute: float
    update: float
    gradients: float
    texts: float

    @property
    def total(self) -> float:
        """Seconds in all."""
        return self.compute + self.update + self.gradients + self.texts

    @property
    def waiting(self) -> float:
        """Share of the step that is neither computation nor hidden behind it."""
        return (self.gradients + self.texts) / self.total


def step_time(work: Work, machine: Machine, processes: int) -> StepTime:
    """Return how long a step takes where each of `processes` does the same work."""
    sharing = 1.0 if machine.at_once is None else max(1.0, processes / machine.at_once)
    compute = sharing * (work.operations / machine.operations + machine.overhead)
    gradients = sharing * work.gradient_bytes / machine.bandwidth + work.gradient_messages * machine.latency
    texts = sharing * work.text_bytes / machine.bandwidth + work.text_messages * machine.latency
    update = sharing * work.update_bytes / machine.memory
    return StepTime(compute, update, max(0.0, gradients - machine.overlap * compute), texts)


def encoder_operations(config: Any, tokens: float, length: float, layers: int | None = None) -> float:
    """Return the operations of a forward pass through encoder layers.

    Args:
        config: Configuration of the tower, by the names that transformers has for sizes.
        tokens: Tokens of all sequences.
        length: Tokens of a sequence, to which each attends.
        layers: How many layers; `None`: all.
    """
    width, layers = config.hidden_size, config.num_hidden_layers if layers is None else layers
    matrices = 2 * width * (4 * width + 2 * config.intermediate_size)
    return layers * tokens * (matrices + 4 * length * width)


def step_operations(
    config: Any,
    contents: StepContents,
    processes: int,
    checkpointing: bool = False,
    cached: bool = False,
    text_in_chunks: bool = False,
    ring: bool = False,
) -> float:
    """Return the operations of a step of FG-CLIP 2 in one process.

    Args:
        config: Configuration of the model.
        contents: Of one process.
        processes: Number of processes, whose texts this one's images are compared with.
        checkpointing: Use gradient checkpointing, which computes layers again.
        cached: Use the gradient cache, which has one more forward pass.
        text_in_chunks: Texts are encoded in chunks, which are computed again.
        ring: The sigmoid losses come in a ring, which computes logits twice.
    """
    vision, text = config.vision_config, config.text_config
    width, patches = vision.hidden_size, contents.images * contents.patches
    patch_size = vision.num_channels * vision.patch_size**2
    of_images = encoder_operations(vision, patches, contents.patches)
    of_images += 2 * patches * width * (patch_size + 2 * width)  # pixels; keys and values of the image head
    if contents.regions:
        of_images += encoder_operations(vision, patches, contents.patches, layers=1)  # the dense head
    of_texts = sum(
        encoder_operations(text, count * length, length)
        for count, length in (
            (contents.short_texts, text.max_position_embeddings),
            (contents.long_texts, text.longtext_len),
        )
    )
    passes = FORWARD_AND_BACKWARD + cached
    logits = 2 * width * contents.images * (contents.captions + contents.long_texts) * processes
    return (
        (passes + checkpointing) * of_images
        + (passes + (checkpointing or text_in_chunks)) * of_texts
        + (FORWARD_AND_BACKWARD + ring) * logits
    )
