"""Count the bytes of tensors that live while something runs, at most at once."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _LiveStorages(TorchDispatchMode):
    """Sums the storages that operations make, until they are freed."""

    def __init__(self, before: set[int]):
        super().__init__()
        self.now = self.peak = 0
        self._before, self._alive = before, dict[int, Any]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return outputs

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._before or key in self._alive:
            return

        def remove(_: Any) -> None:
            self.now -= size
            del self._alive[key]

        self.now += size
        self._alive[key] = weakref.ref(storage, remove)


def peak_of_live_tensors(function: Callable[[], object], *before: torch.Tensor) -> int:
    """Return how many bytes the tensors that a call makes have at most at once, without those that were there."""
    mode = _LiveStorages({tensor.untyped_storage()._cdata for tensor in before})
    with mode:
        function()
    return mode.peak
