"""The start of a run, frozen: the teacher of distillation against forgetting."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..distributed import rank
from ..embedding.fingerprint import model_fingerprint
from ..files import read_json
from .gradient_cache import split_batch
from .momentum import frozen_copy
from .objective import START
from .pixel_values import normalize_pixels

_FILE = "start.json"  # in checkpoints


class FrozenStart:
    """Model as it was when the run began; meets [`TrainingMemory`] with nothing but a fingerprint in checkpoints.

    A run that goes on makes it again of the same start. With LoRA it is the base model, whose weights stay as they are,
    without its adapter, so that no copy is needed. A copy is no part of the model: what wraps, divides, trains or
    saves the model leaves it alone, and it is whole on each process.

    Args:
        model: A model of [`EmbeddingTask`], or PEFT's wrapper of one, as the run begins with it, not yet divided.
        device: Where the copy lies.
        dtype: Of the copy's weights; `None`: as the model has them.
    """

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype | None = None):
        self._adapted = model if hasattr(model, "peft_config") else None
        self._copy = None if self._adapted is not None else frozen_copy(model).to(device, dtype)

    @torch.no_grad()
    def embed(self, batch: Mapping[str, Any], chunk_size: int | None = None) -> dict[str, Tensor]:
        """Embed a batch of the collator but for its hard negatives, which are most of the texts.

        Args:
            batch: Its pixels may be normalised or not.
            chunk_size: Images in memory at once; `None`: all.

        Returns:
            `start_image_embeds` (B, D), and of the captions, regions and their texts that the batch has, in the order
            of its rows, what [`FGClip2Objective`] takes of a batch.
        """
        rest = {name: value for name, value in batch.items() if not name.startswith("hard_")}
        with _without_adapter(self._adapted) if self._copy is None else nullcontext(self._copy) as model:
            chunks = [rest] if chunk_size is None else split_batch(rest, chunk_size)
            pieces = [model(**normalize_pixels(chunk)) for chunk in chunks]
        names = [name for name in pieces[0] if name.endswith("_embeds")]
        return {f"{START}{name}": torch.cat([piece[name] for piece in pieces]) for name in names}

    def end_step(self, epoch: float) -> None:
        """Stay as it is."""

    def save(self, folder: str | Path) -> None:
        """Write the fingerprint of the start."""
        if rank() == 0 and self._copy is not None:
            (Path(folder) / _FILE).write_text(json.dumps({"fingerprint": self._fingerprint}), encoding="utf-8")

    def load(self, folder: str | Path) -> None:
        """Make sure that the run began with the same start.

        Raises:
            ValueError: It began with another one, or without distillation.
        """
        if self._copy is None:
            return
        path = Path(folder) / _FILE
        if not path.is_file():
            raise ValueError(f"{path} is missing: the run was not one with distillation_weight")
        if read_json(path)["fingerprint"] != self._fingerprint:
            raise ValueError(
                f"{path} is of another start than the model that this run was given: distillation goes on with the "
                "model that the run began with"
            )

    @cached_property
    def _fingerprint(self) -> str:
        assert self._copy is not None
        return model_fingerprint(self._copy)


@contextmanager
def _without_adapter(model: Any) -> Iterator[nn.Module]:
    """Let PEFT's wrapper be the base model in evaluation mode, and leave all as it was."""
    was_training = model.training
    trained = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval()
    try:
        with model.disable_adapter():
            yield model
    finally:
        model.train(was_training)
        for parameter, is_trained in trained.items():  # PEFT has set them anew, also those that the run froze
            parameter.requires_grad_(is_trained)
