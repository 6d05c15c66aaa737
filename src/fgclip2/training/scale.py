"""How long a step takes on many devices, by arithmetic: operations, traffic and memory. Nothing is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .estimates import StepContents

FORWARD_AND_BACKWARD = 3  # a backward pass has twice the operations of the forward pass


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
    """

    operations: float
    bandwidth: float
    latency: float
    at_once: int | None = None
    overhead: float = 0.0
    overlap: float = 0.0


@dataclass(frozen=True)
class Work:
    """What one process does in one step.

    Attributes:
        operations: Floating-point operations.
        gradient_bytes: Bytes that it sends for gradients and sharded weights.
        text_bytes: Bytes that it sends for the losses of captions.
        gradient_messages, text_messages: Messages one after the other.
    """

    operations: float
    gradient_bytes: float = 0.0
    text_bytes: float = 0.0
    gradient_messages: int = 0
    text_messages: int = 0


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step: computation, and what is waited for beside it."""

    compute: float
    gradients: float
    texts: float

    @property
    def total(self) -> float:
        """Seconds in all."""
        return self.compute + self.gradients + self.texts

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
    return StepTime(compute, max(0.0, gradients - machine.overlap * compute), texts)


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
