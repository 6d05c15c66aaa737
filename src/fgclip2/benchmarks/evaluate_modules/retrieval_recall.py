"""Recall@k, mean and median rank of the best right candidate; ties with wrong ones count against it."""

import evaluate

from fgclip2.benchmarks.evaluate_modules import metric_info
from fgclip2.metrics import mean_rank, median_rank, recall_at_k, score_ranks


class RetrievalRecall(evaluate.Metric):
    """Ranks by scores that are there already; embeddings of large sets belong into `fgclip2.metrics.pair_ranks`.

    Args:
        predictions: For each query its scores of all candidates, in the candidates' order.
        references: For each query the indices of its right candidates; one or more.
        ks: Numbers of candidates that count as found; (1, 5, 10) by default.

    Returns:
        "recall@1" and so on, as shares of 1; "mean_rank", "median_rank", from 1.
    """

    def _info(self):
        return metric_info(__doc__, self.__doc__, predictions=["float64"], references=["int64"])

    def _compute(self, predictions, references, ks=(1, 5, 10)):
        for query, candidates in enumerate(references):
            if not len(candidates):
                raise ValueError(f"references[{query}] is empty; each query needs a right candidate")
        pairs = [(query, candidate) for query, candidates in enumerate(references) for candidate in candidates]
        ranks = score_ranks(predictions, pairs)
        recalls = {f"recall@{k}": recall for k, recall in recall_at_k(ranks, ks).items()}
        return {**recalls, "mean_rank": mean_rank(ranks), "median_rank": median_rank(ranks)}
