"""A teacher that follows the model in training, and queues of what it has seen: what a run keeps beside its weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from .losses.ranking import PairRows

Module = TypeVar("Module", bound=nn.Module)

EMPTY = -1  # id of a place that nothing has filled yet


@torch.no_grad()
def move_towards(teacher: Iterable[Tensor], student: Iterable[Tensor], momentum: float) -> None:
    """Move each tensor of a teacher a step towards that of the student, whose share is one minus the momentum."""
    for own, other in zip(teacher, student, strict=True):
        own.lerp_(other.detach(), 1 - momentum)


def frozen_copy(module: Module) -> Module:
    """Return a copy of a module that is never trained and has no dropout."""
    return copy.deepcopy(module).requires_grad_(False).eval()


class MomentumTeacher(nn.ModuleDict):
    """Copies of some modules of a model that follow them, are never trained, and have no dropout.

    Args:
        modules: Name -> module of the student.
        momentum: Share of a teacher's weights that stays in each step.
    """

    def __init__(self, modules: Mapping[str, nn.Module], momentum: float):
        super().__init__({name: frozen_copy(module) for name, module in modules.items()})
        self._students, self._momentum = list(modules.values()), momentum

    def follow(self) -> None:
        """Move towards the student; after each step of the optimizer."""
        student = (parameter for module in self._students for parameter in module.parameters())
        move_towards(self.parameters(), student, self._momentum)


class PairQueue:
    """The last pairs that a teacher has embedded, all of which fade with each new step; the same on all ranks.

    Args:
        size: Pairs that it holds.
        width: Length of the embeddings.
        decay: Factor of all embeddings before new ones come.
        device: Where it lies.
    """

    def __init__(self, size: int, width: int, decay: float, device: torch.device):
        self.images, self.texts = (torch.zeros(size, width, device=device) for _ in range(2))
        self.ids = torch.full((size,), EMPTY, device=device)
        self.pointer, self._decay = 0, decay

    def filled(self) -> PairRows:
        """Return what it holds."""
        there = self.ids != EMPTY
        return PairRows(self.images[there], self.texts[there], self.ids[there])

    @torch.no_grad()
    def push(self, pairs: PairRows) -> None:
        """Put pairs in place of the oldest ones, those of all ranks on each of them.

        Raises:
            ValueError: There are more than it holds.
        """
        size = len(self.ids)
        if len(pairs.ids) > size:
            raise ValueError(
                f"`queue_size` must be at least {len(pairs.ids)}, the pairs of a step of all processes, got {size}"
            )
        places = (self.pointer + torch.arange(len(pairs.ids), device=self.ids.device)) % size
        for own, rows in ((self.images, pairs.images), (self.texts, pairs.texts)):
            own.mul_(self._decay).index_copy_(0, places, rows.to(own.dtype))
        self.ids.index_copy_(0, places, pairs.ids)
        self.pointer = (self.pointer + len(pairs.ids)) % size
