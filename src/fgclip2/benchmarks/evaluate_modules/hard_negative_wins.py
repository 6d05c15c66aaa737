"""Share of regions whose true text beats all its hard negatives."""

import datasets
import evaluate

from fgclip2.metrics import hard_negative_wins

_DESCRIPTION = "Share of regions whose true text scores above all its hard negatives, as in FG-OVD."
_INPUTS = """
Args:
    predictions: For each region the score of the true text, then those of its negatives: one or more.
    ties: "wrong" (default), or "right": a tie with the best negative is a success, as in the official FG-OVD script.

Returns:
    "hard_negative_accuracy", a share of 1.
"""


class HardNegativeWins(evaluate.Metric):
    """The mean of `fgclip2.metrics.hard_negative_wins`; there are no references, for the true text comes first."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.Sequence(datasets.Value("float64"))}),
        )

    def _compute(self, predictions, ties="wrong"):
        return {"hard_negative_accuracy": float(hard_negative_wins(predictions, ties).mean())}
