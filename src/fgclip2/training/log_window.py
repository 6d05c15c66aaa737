"""What a training run did between two lines of its log."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from ..distributed import mean_over_ranks, world_size


class LogWindow:
    """Counts samples, waiting time and losses; all but [`close`] is of this rank."""

    def __init__(self) -> None:
        self._total_samples, self._total_waited, self._total_elapsed = 0, 0.0, 0.0
        self.restart()

    def restart(self) -> None:
        self.steps, self.samples, self.waited = 0, 0, 0.0
        self._sums: dict[str, Tensor] = {}
        self._start = time.perf_counter()

    def leave_out(self, seconds: float) -> None:
        self._start += seconds

    def add(self, losses: Mapping[str, Tensor]) -> None:
        self.steps += 1
        for name, value in losses.items():
            if name != "loss":  # transformers logs that one
                self._sums[name] = self._sums.get(name, 0.0) + value.detach().float()

    def close(self, device: torch.device) -> dict[str, float]:
        """Means over ranks and steps, and rates; the same keys on every rank, for there are collectives."""
        elapsed = time.perf_counter() - self._start
        self._total_waited, self._total_elapsed = self._total_waited + self.waited, self._total_elapsed + elapsed
        self._total_samples += self.samples
        rates = torch.tensor([self.samples / elapsed * world_size(), self.waited / elapsed], device=device)
        means = [total / self.steps for total in self._sums.values()]
        values = mean_over_ranks(torch.stack([*means, *rates])).tolist()
        names = [*(f"{name}_loss" for name in self._sums), "samples_per_second", "data_wait"]
        self.restart()
        return dict(zip(names, values, strict=True))

    @property
    def all_samples(self) -> int:
        return self._total_samples + self.samples

    @property
    def total_waited_share(self) -> float:
        return self._total_waited / self._total_elapsed if self._total_elapsed else 0.0
