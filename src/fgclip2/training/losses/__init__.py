"""The losses of FG-CLIP 2, FG-CLIP and R2D2, each a pure function of embeddings.

Embeddings come L2-normalised, scales as raw parameters (logarithms). The formulas are those of the released code, the
equations those of FG-CLIP 2 (section 3.2). To add a loss: write it in a file of its own here, give it a weight in
`ObjectiveSettings`, and let `FGClip2Objective` (both in `objective.py`) call it.
"""

from .after_r2d2 import (
    feature_guided_distillation_loss,
    masked_language_loss,
    relational_distillation_loss,
    target_guided_distillation_loss,
)
from .arithmetic import cosines
from .distillation import feature_distillation_loss
from .hard_negatives import cross_modal_rank_loss, hard_negative_loss, rank_margin
from .info_nce import info_nce_loss
from .ranking import PairRows, contrastive_ranking_loss, draw_negatives, matching_loss, negative_weights
from .regions import region_contrastive_loss, textual_intra_modal_contrastive_loss
from .sigmoid import sigmoid_loss, sigmoid_pair_sum

__all__ = [
    "PairRows",
    "contrastive_ranking_loss",
    "cosines",
    "cross_modal_rank_loss",
    "draw_negatives",
    "feature_distillation_loss",
    "feature_guided_distillation_loss",
    "hard_negative_loss",
    "info_nce_loss",
    "masked_language_loss",
    "matching_loss",
    "negative_weights",
    "rank_margin",
    "region_contrastive_loss",
    "relational_distillation_loss",
    "sigmoid_loss",
    "sigmoid_pair_sum",
    "target_guided_distillation_loss",
    "textual_intra_modal_contrastive_loss",
]
