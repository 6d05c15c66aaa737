"""Training of each model family, one file each.

A family has a model that meets [`interface.TrainingModel`], an objective that turns its outputs into named losses, and
one row in the table below.
"""

from typing import Any

from .fgclip2 import FGClip2ForTraining

# `model_type` of a checkpoint -> the model to train.
TRAINING_MODELS: dict[str, Any] = {"fgclip2": FGClip2ForTraining}

__all__ = ["TRAINING_MODELS", "FGClip2ForTraining"]
