"""Load what a run starts from: a checkpoint, or an adapter that is trained further on its base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from ..checkpoints import locate_checkpoint
from .settings import ModelSettings
from .tasks import TRAINING_MODELS, family_to_train, training_model


def is_adapter(name: str | Path, revision: str | None = None) -> bool:
    """Tell if a folder or hub id holds an adapter of PEFT."""
    source, hub_arguments = locate_checkpoint(name, revision=revision)
    return find_adapter_config_file(source, **hub_arguments) is not None


def base_checkpoint(name: str | Path, revision: str | None = None) -> tuple[str, str]:
    """Return name and revision of the checkpoint with configuration and processor: an adapter names its base model.

    Raises:
        ValueError: An adapter names none, or is of another kind than LoRA.
    """
    if not is_adapter(name, revision):
        source, hub_arguments = locate_checkpoint(name, revision=revision)
        return source, hub_arguments.get("revision") or "main"
    from .lora import read_config  # needs peft

    config = read_config(name, revision)
    return str(config.base_model_name_or_path), config.revision or "main"


def adapter_config(settings: ModelSettings) -> Any:
    """Return what PEFT shall make: by the settings, or as an adapter has it that is trained further; `None`: nothing.

    Raises:
        ValueError: A number is out of its range, or a new adapter is asked for on top of another.
    """
    name = str(settings.model)
    if is_adapter(name, settings.revision):
        if settings.lora:
            raise ValueError(
                f"{name} is an adapter, which is trained further as it is: leave `lora` out, or start from a "
                "checkpoint (fgclip2.training.lora.merge_lora makes one)"
            )
        from .lora import read_config  # needs peft

        return read_config(name, settings.revision)
    if not settings.lora:
        return None
    from .lora import lora_config

    config = lora_config(
        settings.lora_rank,
        settings.lora_alpha,
        settings.lora_dropout,
        settings.lora_target,
        settings.lora_train_heads,
        model_type=family_to_train(name, settings.revision).model_type,
    )
    config.revision = settings.revision  # of the base model, which is to be loaded for the adapter
    return config


def load_processor(name: str | Path, revision: str | None = None) -> Any:
    """Load the processor of a checkpoint, or of the base model of an adapter.

    Raises:
        ValueError: As [`base_checkpoint`] and [`family_to_train`]; or its files are damaged.
        OSError: There is no such checkpoint, or it lacks files.
    """
    checkpoint, base_revision = base_checkpoint(name, revision)
    return family_to_train(name, revision).processor.from_pretrained(checkpoint, revision=base_revision)


def in_training(model: nn.Module, objective: str | None = None) -> Any:
    """Return the training model of a plain model of a family, with its parameters; any other model as it is.

    Without an objective it is the first of the family's that keeps all of the model: that of a ranking stage trains it.

    Raises:
        ValueError: The family is not trained with this objective.
    """
    if not isinstance(model, PreTrainedModel) or hasattr(model, "task"):
        return model
    if model.config.model_type not in TRAINING_MODELS:
        return model
    if objective is None:
        of_class = (known for known in TRAINING_MODELS[model.config.model_type] if issubclass(known, type(model)))
        objective = next((known.default_objective for known in of_class), None)
    return training_model(model.config.model_type, objective).from_model(model)


def load_for_training(name: str | Path, revision: str | None = None, objective: str | None = None) -> nn.Module:
    """Load a checkpoint in float32, to train it; of an adapter, on its base model, what the adapter trains.

    Args:
        name, revision: The checkpoint.
        objective: Preset of the objective; `None`: that of runs of the family that name none.

    Raises:
        ValueError: As [`base_checkpoint`] and [`training_model`]; or an adapter has no safetensors, or does not fit
            its base model.
    """
    if is_adapter(name, revision):
        from .lora import load_lora  # needs peft

        return load_lora(name, trainable=True, revision=revision)
    model_class = training_model(family_to_train(name, revision).model_type, objective)
    source, hub_arguments = locate_checkpoint(name, revision=revision or "main")
    return model_class.from_pretrained(source, dtype=torch.float32, **hub_arguments)
