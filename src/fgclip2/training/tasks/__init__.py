"""Training of each model family, one file each.

A family has a model that meets [`interface.TrainingModel`], with a task that says what it is trained for
([`interface.TrainingTask`]), and one row in the table below.
"""

from __future__ import annotations

import os
from typing import Any

from ...checkpoints import locate_checkpoint
from ...checks import check_choice
from ...modeling.auto import Family, find_family
from .after_r2d2 import AfterR2D2ForPreTraining
from .fgclip import FGClipForTraining
from .fgclip2 import FGClip2ForTraining
from .fgclip2_matching import FGClip2MatchingForTraining
from .r2d2 import R2D2ForImageTextMatching, R2D2ForImageTextRetrieval

# `model_type` of a checkpoint -> the models to train, of which the objective chooses; the first if none is named.
TRAINING_MODELS: dict[str, tuple[Any, ...]] = {
    "fgclip2": (FGClip2ForTraining, FGClip2MatchingForTraining),
    "fgclip": (FGClipForTraining,),
    "r2d2": (R2D2ForImageTextRetrieval, R2D2ForImageTextMatching, AfterR2D2ForPreTraining),
}


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


def training_model(model_type: str, objective: str | None = None) -> Any:
    """Return the class that trains checkpoints of a family.

    Args:
        model_type: Family, one of [`TRAINING_MODELS`].
        objective: Preset of the objective; `None`: that of runs of the family that name none.

    Raises:
        ValueError: The family is not trained with this objective.
    """
    models = TRAINING_MODELS[model_type]
    if objective is None:
        return models[0]
    check_choice("`objective`", objective, [preset for model in models for preset in model.task.objectives])
    return next(model for model in models if objective in model.task.objectives)


__all__ = [
    "TRAINING_MODELS",
    "AfterR2D2ForPreTraining",
    "FGClip2ForTraining",
    "FGClip2MatchingForTraining",
    "FGClipForTraining",
    "R2D2ForImageTextMatching",
    "R2D2ForImageTextRetrieval",
    "family_to_train",
    "training_model",
]
