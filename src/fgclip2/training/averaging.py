"""A moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..distributed import rank


class WeightAverage:
    """Exponential moving average of a model's trained parameters, of this rank's part where they are sharded.

    The decay of early updates is smaller, (1 + updates) / (10 + updates), so that the average soon leaves the start.

    Args:
        model: Whose parameters are averaged; its values now are the first average.
        decay: Share of the old average in each update.
    """

    def __init__(self, model: nn.Module, decay: float):
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._average = {name: local_part(p).float().clone() for name, p in self._parameters.items()}
        self._decay, self._updates = decay, 0
        self._is_sharded = any(hasattr(parameter, "to_local") for parameter in self._parameters.values())

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters' values into the average."""
        self._updates += 1
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        for name, parameter in self._parameters.items():
            self._average[name].lerp_(local_part(parameter).float(), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the averages within the context."""
        kept = {name: local_part(parameter).clone() for name, parameter in self._parameters.items()}
        self._set(self._average)
        try:
            yield
        finally:
            self._set(kept)

    def save(self, folder: str | Path) -> None:
        """Write `ema.safetensors`, or, where parameters are sharded, this rank's part to `ema_RANK.safetensors`."""
        if rank() > 0 and not self._is_sharded:
            return
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self._average.items()}
        save_file(tensors, Path(folder) / self._file_name(), {"updates": str(self._updates)})

    def load(self, folder: str | Path) -> None:
        """Read what `save` wrote.

        Raises:
            ValueError: There is no such file, or it is of other parameters.
        """
        path = Path(folder) / self._file_name()
        if not path.is_file():
            raise ValueError(f"{path} is missing: the run was not one with ema_decay, or had other ranks")
        with safe_open(path, "pt") as file:
            if set(file.keys()) != set(self._average):
                raise ValueError(f"{path} is of other parameters than those that are trained")
            for name, average in self._average.items():
                average.copy_(file.get_tensor(name))
            self._updates = int(file.metadata()["updates"])

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            local_part(parameter).copy_(values[name])

    def _file_name(self) -> str:
        return f"ema_{rank()}.safetensors" if self._is_sharded else "ema.safetensors"


def local_part(parameter: Tensor) -> Tensor:
    """Return this rank's part of a parameter, sharing its memory."""
    detached = parameter.detach()
    return detached.to_local() if hasattr(detached, "to_local") else detached
