"""Training: the losses, the objective over any number of processes, the trainer, start weights, LoRA."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arguments import FGClip2TrainingArguments
    from .mining import NeighbouringRecords, mine_neighbours
    from .objective import FGClip2Objective
    from .tasks.after_r2d2 import AfterR2D2ForPreTraining
    from .tasks.fgclip import FGClipForTraining
    from .tasks.fgclip2 import FGClip2ForTraining
    from .tasks.fgclip2_matching import FGClip2MatchingForTraining
    from .tasks.pretraining import AfterR2D2Settings
    from .tasks.r2d2 import R2D2ForImageTextMatching, R2D2ForImageTextRetrieval
    from .trainer import FGClip2Trainer

# Loaded when first used: start weights and losses need no Trainer.
_LAZY = {
    "AfterR2D2ForPreTraining": ".tasks.after_r2d2",
    "AfterR2D2Settings": ".tasks.pretraining",
    "FGClip2ForTraining": ".tasks.fgclip2",
    "FGClip2MatchingForTraining": ".tasks.fgclip2_matching",
    "FGClip2Objective": ".objective",
    "FGClip2Trainer": ".trainer",
    "FGClip2TrainingArguments": ".arguments",
    "FGClipForTraining": ".tasks.fgclip",
    "NeighbouringRecords": ".mining",
    "R2D2ForImageTextMatching": ".tasks.r2d2",
    "R2D2ForImageTextRetrieval": ".tasks.r2d2",
    "mine_neighbours": ".mining",
}

__all__ = [
    "AfterR2D2ForPreTraining",
    "AfterR2D2Settings",
    "FGClip2ForTraining",
    "FGClip2MatchingForTraining",
    "FGClip2Objective",
    "FGClip2Trainer",
    "FGClip2TrainingArguments",
    "FGClipForTraining",
    "NeighbouringRecords",
    "R2D2ForImageTextMatching",
    "R2D2ForImageTextRetrieval",
    "mine_neighbours",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
