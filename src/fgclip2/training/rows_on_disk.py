"""Rows of a tensor in a temporary file, for what an evaluation looks up later and memory would not hold."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from torch import Tensor


class RowsOnDisk:
    """Keeps float32 rows in a temporary file, which has no name and is gone when this is closed.

    In memory are the rows that are read, and what the operating system has to spare for the file.

    Args:
        shape: Of each row.

    Example:
        >>> with RowsOnDisk(2) as rows:
        ...     rows.append(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        ...     rows[torch.tensor([1])]
        tensor([[3., 4.]])
    """

    def __init__(self, *shape: int):
        self._shape, self._count = shape, 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed with this

    def __enter__(self) -> RowsOnDisk:
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def append(self, rows: Tensor) -> None:
        """Write rows, shape (N, *shape), after those that are there."""
        assert rows.shape[1:] == self._shape
        self._file.write(rows.detach().float().cpu().contiguous().numpy().data)
        self._count += len(rows)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Read the rows, integer (M,), as float32 (M, *shape) on the CPU; at least one has been written."""
        self._file.flush()
        stored = np.memmap(self._file, np.float32, "r", shape=(self._count, *self._shape))
        return torch.from_numpy(np.asarray(stored[rows.cpu().numpy()]))
