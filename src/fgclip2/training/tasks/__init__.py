"""Training of each model family, one file each.

A family has a model that meets [`interface.TrainingModel`], an objective that turns its outputs into named losses, and
one row in the table below.
"""

from __future__ import annotations

import os
from typing import Any

from ...checkpoints import locate_checkpoint
from ...modeling.auto import Family, find_family
from .fgclip import FGClipForTraining
from .fgclip2 import FGClip2ForTraining

# `model_type` of a checkpoint -> the model to train.
TRAINING_MODELS: dict[str, Any] = {"fgclip2": FGClip2ForTraining, "fgclip": FGClipForTraining}


def family_to_train(name: str | os.PathLike, revision: str | None = None) -> Family:
    """Return the family of a checkpoint, or of the base model of an adapter.

    Raises:
        ValueError: It is of no family that can be trained.
        OSError: There is no such checkpoint.
    """
    source, hub_arguments = locate_checkpoint(name, revision=revision)
    family = find_family(source, **hub_arguments)
    if family is None or family.model_type not in TRAINING_MODELS:
        raise ValueError(f"{name} must be a checkpoint of {', '.join(TRAINING_MODELS)}, by `model_type` in config.json")
    return family


__all__ = ["TRAINING_MODELS", "FGClip2ForTraining", "FGClipForTraining", "family_to_train"]
