"""A training step in two passes, whose memory does not depend on the contrastive batch (GradCache, Gao et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed import max_over_ranks
from .image_rows import ROWS_OF, count_images, take_images
from .pixel_values import normalize_pixels


def count_chunks(batch: Mapping[str, Any], chunk_size: int) -> int:
    """Return how many batches of at most `chunk_size` images a batch is cut into; one if it has none."""
    return max(1, -(-count_images(batch) // chunk_size))


def split_batch(batch: Mapping[str, Any], chunk_size: int, count: int | None = None) -> list[dict[str, Tensor]]:
    """Cut a batch of the collator into batches of at most `chunk_size` images, with the captions and regions of each.

    Rows must be sorted by image, as the collator has them; put together again they are in the same order.

    Args:
        batch: Batch of the collator.
        chunk_size: Images of each batch.
        count: How many, the last ones empty if the batch has fewer; `None`: [`count_chunks`].
    """
    starts = range(0, (count or count_chunks(batch, chunk_size)) * chunk_size, chunk_size)
    return [take_images(batch, start, start + chunk_size) for start in starts]


def cached_step(
    model: nn.Module,
    objective: nn.Module,
    batch: Mapping[str, Any],
    chunk_size: int,
    scale: float = 1.0,
    backward: Callable[[Tensor], None] = Tensor.backward,
    no_sync: Callable[[], AbstractContextManager] = nullcontext,
) -> dict[str, Tensor]:
    """Add the gradient of the objective on the whole batch to the parameters, `chunk_size` images at a time.

    All embeddings are computed without a graph, the objective gives their gradients, and a second forward of each
    chunk, with the random state of the first, carries them into the parameters. Costs one more forward pass; values
    and gradients are those of the plain step, but that each chunk draws dropout masks of its own. All ranks take as
    many chunks as the one with most images: each forward pass has collectives of its own where parameters are sharded.

    Args:
        model: Training model, or what DDP made of it.
        objective: Objective of the run.
        batch: Batch of the collator.
        chunk_size: Images in memory at once.
        scale: Factor of the loss, e.g. one over the number of accumulated steps.
        backward: How a loss is sent back; accelerate has its own.
        no_sync: Context in which gradients are not exchanged between ranks: all chunks but the last.

    Returns:
        What the objective returns, detached.
    """
    device = next(model.parameters()).device
    count = max_over_ranks(count_chunks(batch, chunk_size), device)
    chunks = split_batch(batch, chunk_size, count)
    states, pieces = [], []
    for chunk in chunks:
        states.append(_RandomState(device))
        with torch.no_grad():
            pieces.append(model(**normalize_pixels(chunk)))
    outputs = {
        name: (torch.cat([piece[name] for piece in pieces]) if name in ROWS_OF else pieces[0][name]).requires_grad_()
        for name in pieces[0]
    }
    losses = objective(outputs, batch)
    (losses["loss"] * scale).backward()
    starts = dict.fromkeys(outputs, 0)
    for number, (chunk, piece, state) in enumerate(zip(chunks, pieces, states, strict=True)):
        gradients = {}
        for name, output in outputs.items():
            gradient = torch.zeros_like(output) if output.grad is None else output.grad
            if name not in ROWS_OF:  # a scale, one parameter for all chunks: its gradient goes into the first
                gradients[name] = gradient if number == 0 else torch.zeros_like(gradient)
            else:
                gradients[name] = gradient[starts[name] : starts[name] + len(piece[name])]
                starts[name] += len(piece[name])
        with nullcontext() if number == len(chunks) - 1 else no_sync(), state:
            again = model(**normalize_pixels(chunk))
            backward(torch.stack([(again[name] * gradients[name]).sum() for name in again]).sum())
    return {name: value.detach() for name, value in losses.items()}


class _RandomState:
    """Remembers the random state; as a context, it goes back to it and afterwards on from where it was."""

    def __init__(self, device: torch.device):
        self._device = device
        self._fork: AbstractContextManager | None = None
        self._cpu = torch.get_rng_state()
        self._own = None if device.type == "cpu" else getattr(torch, device.type).get_rng_state(device)

    def __enter__(self) -> None:
        if self._own is None:
            self._fork = torch.random.fork_rng(devices=[])
        else:
            self._fork = torch.random.fork_rng(devices=[self._device], device_type=self._device.type)
        self._fork.__enter__()
        torch.set_rng_state(self._cpu)
        if self._own is not None:
            getattr(torch, self._device.type).set_rng_state(self._own, self._device)

    def __exit__(self, *error: Any) -> None:
        assert self._fork is not None
        self._fork.__exit__(*error)
