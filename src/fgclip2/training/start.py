"""What a run starts from: a checkpoint, or an adapter that is trained further on its base model."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from transformers.utils.peft_utils import find_adapter_config_file

from .modeling import FGClip2ForTraining


def is_adapter(name: str | Path, revision: str | None = None) -> bool:
    """Whether a folder or hub id holds an adapter of PEFT."""
    return find_adapter_config_file(str(name), revision=revision) is not None


def base_checkpoint(name: str | Path, revision: str | None = None) -> tuple[str, str]:
    """Name and revision of the checkpoint with configuration and processor: of an adapter the one it was trained on.

    Raises:
        ValueError: An adapter names none, or is of another kind than LoRA.
    """
    if not is_adapter(name, revision):
        return str(name), revision or "main"
    from .lora import read_config  # needs peft

    config = read_config(name, revision)
    return str(config.base_model_name_or_path), config.revision or "main"


def load_for_training(name: str | Path, revision: str | None = None) -> nn.Module:
    """Load a checkpoint in float32, to train it; of an adapter, on its base model, what the adapter trains.

    Raises:
        ValueError: As [`base_checkpoint`]; or an adapter has no safetensors, or does not fit its base model.
    """
    if is_adapter(name, revision):
        from .lora import load_lora

        return load_lora(name, trainable=True, revision=revision)
    return FGClip2ForTraining.from_pretrained(name, dtype=torch.float32, revision=revision or "main")
