"""Telling texts that fit an image from those that don't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...embedding.reranker import spread_weight
from ...metrics import best_threshold, bootstrap, roc_auc
from ..base import CaptionSettings, DataSet
from ..encoding import Encoder
from ..reranking import model_scores, phrase_means
from ..scores import Estimate, Scores, mean, with_spread

_PAIRS_PER_BLOCK = 65536
_RESAMPLES = 200  # of an area under a curve, which is no mean: each sorts all pairs


@dataclass(frozen=True)
class MatchingData(DataSet):
    """Texts that fit an image or don't."""

    texts: Sequence[str]
    pairs: Sequence[tuple[int, int]]  # (image, text)
    labels: Sequence[bool]  # of each pair

    @property
    def items(self) -> int:
        """See the base class."""
        return len(self.pairs)

    @property
    def own_texts(self) -> Sequence[str]:
        """See the base class."""
        return self.texts


@dataclass(frozen=True)
class MatchingSettings(CaptionSettings):
    """Settings of telling texts that fit an image from those that don't."""


def evaluate(
    data: MatchingData,
    encoder: Encoder,
    settings: MatchingSettings,
    language: str,
    rerank: str | None = None,
) -> Scores:
    """Compute the area under the ROC curve of the cosines, and the accuracy at the threshold that is best on the pairs.

    That accuracy is the highest that any threshold gives, so it is rosy; the area needs no threshold. With `rerank`,
    scores whose names begin with `reranked/` are of all pairs anew: with "phrases" of cosines with those of phrases
    added, with "model" of the probabilities that both match, whose `accuracy@0.5` is that at the threshold of a half.

    Returns:
        Scores; `per_item` has the cosine of each pair, NaN where the image can't be read.

    Raises:
        ValueError: No image can be read, or only those of pairs with one label.
    """
    encoded = encoder.images(data.images, settings.max_num_patches)
    pairs = np.asarray(data.pairs, dtype=np.int64)
    is_used = encoded.rows[pairs[:, 0]] > 0
    encoded.check_some(is_used.sum())
    texts = encoder.texts(data.texts, settings.role, settings.lower_case)
    rows = np.searchsorted(encoded.owners, pairs[is_used, 0])
    blocks = zip(
        *(np.array_split(column, 1 + len(rows) // _PAIRS_PER_BLOCK) for column in (rows, pairs[is_used, 1])),
        strict=True,
    )
    cosines = np.concatenate([(encoded.vectors[image] * texts[text]).sum(axis=1) for image, text in blocks])
    cosines = cosines.astype(np.float64)  # in which the threshold is
    labels = np.asarray(data.labels, dtype=bool)[is_used]
    if labels.all() or not labels.any():
        some = "; ".join(map(str, encoded.problems[:3]))
        raise ValueError(
            f"label is {int(labels[0])} in all {len(labels)} pairs left, but both labels are needed; "
            f"{len(encoded.problems)} images can't be read: {some}"
        )
    images = pairs[is_used, 0]
    orders = {"": cosines}
    if rerank:
        its_pairs = list(zip(pairs[is_used, 1].tolist(), rows.tolist(), strict=True))
        pictures = [data.images[index] for index in encoded.owners.tolist()]
        if rerank == "model":
            found = model_scores(encoder, settings, data.texts, pictures, sorted(set(its_pairs)), "match")
        else:
            found = phrase_means(encoder, settings, data.texts, pictures, sorted(set(its_pairs)))
        scores = np.array([found[pair] for pair in its_pairs])
        orders["reranked/"] = scores if rerank == "model" else cosines + spread_weight(cosines, scores) * scores
    metrics: dict[str, Estimate] = {}
    for prefix, values in orders.items():
        interval = partial(_interval_of_area, values, labels, images)
        metrics[f"{prefix}auc"] = Estimate(roc_auc(values, labels), len(labels), interval)
        metrics[f"{prefix}accuracy"] = mean((values >= best_threshold(values, labels)) == labels, images)
    if rerank == "model":
        metrics["reranked/accuracy@0.5"] = mean((orders["reranked/"] >= 0.5) == labels, images)
    per_item = np.full(len(pairs), np.nan)
    per_item[is_used] = cosines
    return Scores(metrics, {"cosine": per_item}, encoded.problems)


def _interval_of_area(values: np.ndarray, labels: np.ndarray, images: np.ndarray) -> tuple[float, float] | None:
    return with_spread(bootstrap(roc_auc, values, labels, groups=images, samples=_RESAMPLES))
