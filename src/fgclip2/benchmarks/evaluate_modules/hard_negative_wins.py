"""Share of regions whose true text scores above all its hard negatives, as in FG-OVD."""

import evaluate

from fgclip2.benchmarks.evaluate_modules import metric_info
from fgclip2.metrics import hard_negative_wins


class HardNegativeWins(evaluate.Metric):
    """The mean of `fgclip2.metrics.hard_negative_wins`; there are no references, for the true text comes first.

    Args:
        predictions: For each region the score of the true text, then those of its negatives: one or more.
        ties: "wrong" (default), or "right": a tie with the best negative is a success, as in the official script.

    Returns:
        "hard_negative_accuracy", a share of 1.
    """

    def _info(self):
        return metric_info(__doc__, self.__doc__, predictions=["float64"])

    def _compute(self, predictions, ties="wrong"):
        return {"hard_negative_accuracy": float(hard_negative_wins(predictions, ties).mean())}
