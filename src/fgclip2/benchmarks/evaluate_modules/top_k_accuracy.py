"""Top-k accuracy over items or over classes."""

import datasets
import evaluate

from fgclip2.metrics import score_ranks, topk_accuracy

_DESCRIPTION = "Share of items whose class is among the k of the highest scores; ties count as wrong."
_INPUTS = """
Args:
    predictions: For each item its scores of all classes.
    references: For each item the index of its class.
    ks: (1, 5) by default.
    average: "micro" (default): the mean over items; "macro": over the classes that occur.

Returns:
    "top1" and so on, with "macro" "top1_macro"; as shares of 1.
"""


class TopKAccuracy(evaluate.Metric):
    """`fgclip2.metrics.topk_accuracy` of scores."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("float64")),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, predictions, references, ks=(1, 5), average="micro"):
        ranks = score_ranks(predictions, list(enumerate(references)))
        suffix = "_macro" if average == "macro" else ""
        return {f"top{k}{suffix}": share for k, share in topk_accuracy(ranks, references, ks, average).items()}
