"""Share of items whose class is among the k of the highest scores; ties count as wrong."""

import evaluate

from fgclip2.benchmarks.evaluate_modules import metric_info
from fgclip2.metrics import score_ranks, topk_accuracy


class TopKAccuracy(evaluate.Metric):
    """Top-k accuracy over items or over classes, as `fgclip2.metrics.topk_accuracy`.

    Args:
        predictions: For each item its scores of all classes.
        references: For each item the index of its class.
        ks: Numbers of classes that count as found; (1, 5) by default.
        average: "micro" (default): the mean over items; "macro": over the classes that occur.

    Returns:
        "top1" and so on, with "macro" "top1_macro"; as shares of 1.
    """

    def _info(self):
        return metric_info(__doc__, self.__doc__, predictions=["float64"], references="int64")

    def _compute(self, predictions, references, ks=(1, 5), average="micro"):
        ranks = score_ranks(predictions, list(enumerate(references)))
        suffix = "_macro" if average == "macro" else ""
        return {f"top{k}{suffix}": share for k, share in topk_accuracy(ranks, references, ks, average).items()}
