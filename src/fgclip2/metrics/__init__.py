"""Metrics as pure functions.

Embeddings are torch tensors, on any device; scores, classes, masks and values are numpy arrays, or what `np.asarray`
takes. Shares are of 1. Ties count against the model, unless it says otherwise.
"""

from .classification import (
    best_threshold,
    hard_negative_accuracy,
    hard_negative_wins,
    matching_accuracy,
    roc_auc,
    topk_accuracy,
)
from .detection import check_truth, coco_average_precision, lvis_average_precision
from .intervals import bootstrap, bootstrap_interval, class_mean_interval
from .retrieval import (
    TIE_TOLERANCE,
    count_equal_before,
    mean_rank,
    median_rank,
    pair_ranks,
    pairs_of_owners,
    recall_at_k,
    retrieval_ranks,
    score_ranks,
)
from .segmentation import class_areas, class_iou, mean_iou, mean_iou_interval

__all__ = [
    "TIE_TOLERANCE",
    "best_threshold",
    "bootstrap",
    "bootstrap_interval",
    "check_truth",
    "class_areas",
    "class_iou",
    "class_mean_interval",
    "coco_average_precision",
    "count_equal_before",
    "hard_negative_accuracy",
    "hard_negative_wins",
    "lvis_average_precision",
    "matching_accuracy",
    "mean_iou",
    "mean_iou_interval",
    "mean_rank",
    "median_rank",
    "pair_ranks",
    "pairs_of_owners",
    "recall_at_k",
    "retrieval_ranks",
    "roc_auc",
    "score_ranks",
    "topk_accuracy",
]
