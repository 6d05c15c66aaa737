"""Re-ranking in benchmarks: the first candidates of each query in their new order, by phrases or by the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from ..embedding import Embedder
from ..embedding.reranker import WEIGHT_OF_SPREAD, WINDOW_SIDES, PhrasesOfPairs, spread_weight, texts_of_images
from ..errors import UnreadableImageError
from .base import CaptionSettings
from .encoding import Encoded, Encoder
from .image_files import StoredImage
from .models import BenchmarkModel

_QUERIES_PER_BLOCK = 1024

# What orders the candidates of a query by the model, and what tells pairs that match from others; see `PairScorer`.
SCORE_OF_KIND = {"retrieval": "rank_scores", "matching": "match_probability"}


def describe_reranking(rerank: str, kind: str, candidates: int | None = None) -> dict[str, Any]:
    """Return what a result says of its re-ranking: all that the numbers depend on besides the model and the data.

    Args:
        rerank: "phrases" or "model".
        kind: Of the benchmark, "retrieval" or "matching".
        candidates: How many first candidates of a query are re-ranked; `None`: all pairs.
    """
    described = {"method": rerank, **({} if candidates is None else {"candidates": candidates})}
    if rerank == "model":
        return {**described, "score": SCORE_OF_KIND[kind]}
    return {
        **described,
        "split": "fgclip2.embedding.split_phrases",
        "window_sides": list(WINDOW_SIDES),
        "weight": f"{WEIGHT_OF_SPREAD:g} x spread of the candidates' cosines / spread of their phrases",
    }


def require_reranking(model: BenchmarkModel, rerank: str) -> None:
    """Raise a `ValueError` unless a model can re-rank by "phrases" or by the "model", as is asked for."""
    if isinstance(model, Embedder):
        model.require_reranking(rerank)
    elif rerank == "phrases":
        raise ValueError(f"{model.name} has no dense features, in which phrases are looked for")
    else:
        raise ValueError(f"{model.name} has no pair scores, it compares vectors only")


def phrase_means(
    encoder: Encoder,
    settings: CaptionSettings,
    texts: Sequence[str],
    images: Sequence[StoredImage],
    pairs: Iterable[tuple[int, int]],
) -> dict[tuple[int, int], float]:
    """Return for pairs of a text and an image, by their indices, the mean cosine of the text's phrases.

    Processes share the images, and what they find is cached, see [`Encoder.windows`].

    Raises:
        ValueError: The model has no dense features.
        UnreadableImageError: An image can't be read.
    """
    require_reranking(encoder.model, "phrases")
    phrases = PhrasesOfPairs(texts, pairs)
    of_images = [phrases.of_images.get(image, []) for image in range(len(images))]
    cosines = _of_each_image(
        encoder.windows(images, of_images, settings.max_num_patches, settings.lower_case)
    )  # (phrases,) of each image
    return {
        (text, image): float(np.mean(cosines[image][rows]))
        for image in phrases.of_images
        for text, rows in phrases.rows(image)
    }


def model_scores(
    encoder: Encoder,
    settings: CaptionSettings,
    texts: Sequence[str],
    images: Sequence[StoredImage],
    pairs: Iterable[tuple[int, int]],
    score: str,
) -> dict[tuple[int, int], float]:
    """Return for pairs of a text and an image, by their indices, a score of the model's ranking stage.

    Processes share the images, and what they find is cached, see [`Encoder.pair_scores`].

    Args:
        encoder, settings: Of the benchmark.
        texts, images: All texts and images, which can be read.
        pairs: (text, image), each once.
        score: "rank" or "match", see [`Embedder.stream_pair_scores`].

    Raises:
        ValueError: The model does not score pairs.
        UnreadableImageError: An image can't be read.
    """
    require_reranking(encoder.model, "model")
    of_images = texts_of_images(pairs)
    its_texts = [[texts[text] for text in of_images.get(image, ())] for image in range(len(images))]
    options = (score, settings.role, settings.max_num_patches, settings.lower_case)
    scores = _of_each_image(encoder.pair_scores(images, its_texts, *options))  # (texts,) of each image
    return {
        (text, image): float(value)
        for image, its in of_images.items()
        for text, value in zip(its, scores[image], strict=True)
    }


def _of_each_image(encoded: Encoded) -> list[np.ndarray]:
    """Return the values of each image, (T_i,); raise an [`UnreadableImageError`] if one can't be read."""
    if encoded.problems:
        raise UnreadableImageError(str(encoded.problems[0]))
    return np.split(encoded.vectors.reshape(-1), np.cumsum(encoded.rows)[:-1])


def rerank_both_ways(
    encoder: Encoder,
    settings: CaptionSettings,
    texts: Sequence[str],
    images: Sequence[StoredImage],
    text_vectors: np.ndarray,
    image_vectors: np.ndarray,
    rerank: str,
    count: int,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Re-rank the first candidates both ways, of images among texts and of texts among images.

    Each image is encoded once.

    Args:
        encoder, settings: Of the benchmark.
        texts, images: T texts and I images that can be read.
        text_vectors, image_vectors: Float32 (T, D) and (I, D), L2-normalised.
        rerank: "phrases" or "model".
        count: How many first candidates, K.

    Returns:
        `image_to_text` and `text_to_image`: the candidates of each query, int64 (Q, K), and their new scores, (Q, K).
    """
    near = {}
    for name, queries, candidates in (
        ("image_to_text", image_vectors, text_vectors),
        ("text_to_image", text_vectors, image_vectors),
    ):
        blocks = [
            torch.topk(block @ torch.from_numpy(candidates).T, min(count, len(candidates)))
            for block in torch.from_numpy(queries).split(_QUERIES_PER_BLOCK)
        ]
        near[name] = tuple(torch.cat(parts).numpy() for parts in zip(*blocks, strict=True))  # cosines, rows: (Q, K)
    pairs = {(text, image) for image, its in enumerate(near["image_to_text"][1].tolist()) for text in its}
    pairs |= {(text, image) for text, its in enumerate(near["text_to_image"][1].tolist()) for image in its}
    if rerank == "model":
        values = model_scores(encoder, settings, texts, images, sorted(pairs), "rank")
    else:
        values = phrase_means(encoder, settings, texts, images, sorted(pairs))
    found = {}
    for name, (cosines, rows) in near.items():
        its_pairs = [
            (row, query) if name == "image_to_text" else (query, row)
            for query, its in enumerate(rows.tolist())
            for row in its
        ]
        scores = np.array([values[pair] for pair in its_pairs]).reshape(rows.shape)  # (Q, K)
        if rerank == "phrases":
            weights = [spread_weight(*both) for both in zip(cosines, scores, strict=True)]
            scores = cosines + np.array(weights)[:, None] * scores
        found[name] = rows, scores
    return found


def reranked_ranks(ranks: np.ndarray, rows: np.ndarray, scores: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the rank of the best right candidate of each query after re-ranking; ties count against it.

    Args:
        ranks: Int64 (Q,), before; they stay where no right candidate is among the first.
        rows, scores: (Q, K), the first candidates and their new scores.
        pairs: Int64 (P, 2), the right (query, candidate).
    """
    right = {(query, candidate) for query, candidate in pairs.tolist()}
    is_right = np.array([[(query, row) in right for row in its] for query, its in enumerate(rows.tolist())])  # (Q, K)
    best = np.where(is_right, scores, -np.inf).max(axis=1, keepdims=True)  # (Q, 1)
    new_ranks = 1 + (~is_right & (scores >= best)).sum(axis=1)
    return np.where(is_right.any(axis=1), new_ranks, ranks)
