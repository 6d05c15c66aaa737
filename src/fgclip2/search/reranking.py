"""Re-ranking of what a search has found first: images, or frames of videos."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..embedding import DenseMap, Embedder, ImageInput, Skipped, split_phrases
from ..embedding.phrases import Splitter
from ..embedding.reranker import RerankedHit, match_pairs, ordered, score_pairs


def check_rerank(rerank: str, queries: Sequence[Any], embedder: Embedder | None, split: Splitter) -> Embedder:
    """Return the embedder that re-ranks texts.

    Raises:
        ValueError: A query is no text, there is no embedder, or it can't re-rank in this way.
    """
    if embedder is None or not all(isinstance(query, str) for query in queries):
        raise ValueError(f"rerank={rerank!r} needs queries that are texts, got an image or a vector")
    embedder.require_reranking(rerank)
    if rerank == "model" and split is not split_phrases:
        raise ValueError("split is of phrases, which rerank='model' has none of: leave it out")
    return embedder


def rerank_candidates(
    rerank: str,
    texts: Sequence[str],
    candidates: Sequence[tuple[Any, Sequence[int]]],
    images: Mapping[int, ImageInput],
    embedder: Embedder,
    split: Splitter,
    stored_map: Callable[[int], DenseMap | None] | None = None,
    **options: Any,
) -> list[list[RerankedHit]]:
    """Put the candidates of each text in a new order; each image runs through the model once at most.

    Args:
        rerank: "phrases" or "model".
        texts: The texts.
        candidates: For each text the cosines, float32 (K,), and the rows of its candidates.
        images: Row -> image. One that can't be read is left out, with a warning.
        embedder, split: See [`check_rerank`].
        stored_map: Row -> dense map, see [`match_pairs`].
        options: `max_num_patches` and `batch_size`.

    Returns:
        For each text its candidates, whose `index` is the row, the best first.
    """
    pairs = [(text, row) for text, (_, rows) in enumerate(candidates) for row in rows]
    options["on_error"] = "skip"
    found: dict[tuple[int, int], Any]  # (text, row) -> where its phrases were found, or the model's score
    if rerank == "model":
        found = dict(score_pairs(embedder, texts, images, pairs, **options))
    else:
        found = dict(match_pairs(embedder, texts, images, pairs, split, stored_map, **options))
    reasons = sorted({result.reason for result in found.values() if isinstance(result, Skipped)})
    if reasons:
        warnings.warn(
            f"{len(reasons)} images of the index can't be read any more and are left out, e.g. {reasons[0]}: bring "
            "the index up to date (`fgclip2 index`, ImageIndex.build)",
            stacklevel=4,
        )
    results = []
    for text, (scores, rows) in enumerate(candidates):
        kept: list[tuple[Any, int, Any]] = [
            (score, row, result)
            for score, row in zip(scores, rows, strict=True)
            if not isinstance(result := found[text, row], Skipped)
        ]
        if rerank == "model":
            hits = [RerankedHit(row, float(score), result, []) for score, row, result in kept]
            hits.sort(key=lambda hit: -hit.reranked)
        else:
            its_scores, its_rows, its_matches = zip(*kept, strict=True) if kept else ((), (), ())
            hits = ordered(np.array(its_scores), [match.phrases for match in its_matches], its_rows)
        results.append(hits)
    return results
