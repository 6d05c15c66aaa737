"""Re-ranking of images by phrases of a query: each phrase is compared with windows of an image's dense map.

A dual encoder has one vector for a whole query. Here every phrase of the query looks for the part of the image that
fits it best, in the head of regions. Nothing is trained for it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..modeling.inputs import check_text
from .inputs import ImageInput, Skipped
from .phrases import Splitter, split_phrases

# Heights and widths of windows as shares of the image's; the whole image is a window too. Chosen, as the weight is, on
# validation scenes: recipes/reranking.
WINDOW_SIDES = (0.2, 0.3, 0.4, 0.6)
CANDIDATES = 20
WEIGHT_OF_SPREAD = 3.0  # of phrases against cosines, both in standard deviations among the candidates


class PhraseMatch(NamedTuple):
    """A phrase of a query, the window of the image (x1, y1, x2, y2 in pixels) that fits it best, and their cosine."""

    text: str
    box: tuple[float, float, float, float]
    cosine: float


class RerankedHit(NamedTuple):
    """An image after re-ranking.

    Attributes:
        index: Which of the images it is.
        score: Cosine of the image with the whole query.
        reranked: `score` and the weighted mean of the phrases' cosines.
        phrases: Where in the image each phrase of the query was found.
    """

    index: int  # type: ignore[assignment]  # hides a method of tuple that nobody needs here
    score: float
    reranked: float
    phrases: list[PhraseMatch]


# ---------------------------------------------------------------------------------------------------------------------
# Windows
# ---------------------------------------------------------------------------------------------------------------------


def window_sizes(height: int, width: int, sides: Sequence[float] = WINDOW_SIDES) -> list[tuple[int, int]]:
    """Return the sizes (rows, columns) of the windows of a grid of patches: each side with each, and the whole grid.

    Args:
        height, width: Of the grid.
        sides: Shares of the grid's sides.
    """
    rows, columns = ({max(1, round(side * length)) for side in sides} for length in (height, width))
    return sorted({*itertools.product(rows, columns), (height, width)})


def best_windows(
    dense: Tensor, phrases: Sequence[Tensor], sides: Sequence[float] = WINDOW_SIDES
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Find the window of each map that fits each phrase best: the mean of its patches has the largest cosine.

    Args:
        dense: Dense maps (B, height, width, D) of one grid, as the model gives them.
        phrases: For each map the vectors of its phrases, float32 (P_i, D), L2-normalised.
        sides: As in [`window_sizes`].

    Returns:
        For each map the cosines, float32 (P_i,), and the windows (x1, y1, x2, y2) in shares of the map's sides, float32
        (P_i, 4).
    """
    _, height, width, _ = dense.shape
    padded = pad_sequence(list(phrases), batch_first=True).to(dense.device).mT  # (B, D, P)
    # Sums over all patches above and to the left: the sum of a window of any size is made of four of them.
    sums = F.pad(dense.float(), (0, 0, 1, 0, 1, 0)).cumsum(1).cumsum(2)  # (B, height + 1, width + 1, D)
    cosines, boxes = [], []
    for rows, columns in window_sizes(height, width, sides):
        strips = sums[:, rows:] - sums[:, :-rows]  # (B, height - rows + 1, width + 1, D)
        windows = (strips[:, :, columns:] - strips[:, :, :-columns]).flatten(1, 2)  # (B, W, D)
        norms = torch.linalg.vector_norm(windows, dim=-1, keepdim=True).clamp_min(1e-12)
        cosines.append(windows @ padded / norms)  # (B, W, P)
        y, x = np.indices((height - rows + 1, width - columns + 1)).reshape(2, -1)  # (W,) each
        boxes.append(np.stack([x / width, y / height, (x + columns) / width, (y + rows) / height], axis=1))
    best = torch.cat(cosines, dim=1).max(dim=1)  # (B, P)
    all_boxes = np.concatenate(boxes).astype(np.float32)  # (W, 4)
    values, places = best.values.cpu().numpy(), best.indices.cpu().numpy()
    counts = map(len, phrases)
    return [(row[:count], all_boxes[at[:count]]) for row, at, count in zip(values, places, counts, strict=True)]


# ---------------------------------------------------------------------------------------------------------------------
# Scores
# ---------------------------------------------------------------------------------------------------------------------


def spread_weight(scores: np.ndarray, matches: np.ndarray) -> float:
    """Return the weight of phrases that needs no labels: it gives them as much say as the cosines have.

    Args:
        scores: (N,) cosines of whole query and whole image, e.g. of the candidates of a query.
        matches: (N,) means of the phrases' cosines.

    Returns:
        The ratio of the standard deviations times `WEIGHT_OF_SPREAD`; 0 where all matches are equal but for rounding.
    """
    if np.ptp(matches) < 1e-6:
        return 0.0
    return WEIGHT_OF_SPREAD * float(np.std(scores)) / float(np.std(matches))


def fit_weight(scores: Sequence[np.ndarray], matches: Sequence[np.ndarray], right: Sequence[int]) -> float:
    """Return the weight of phrases that puts the right candidate first for most of some labelled queries.

    Each candidate that is not right must stay behind: a linear condition on the weight. So the weights at which a query
    is answered rightly are an interval, and the best weight lies in the most intervals.

    Args:
        scores: For each query the cosines (K,) of its candidates.
        matches: For each query the means (K,) of its phrases' cosines.
        right: For each query the index of its right candidate.

    Returns:
        The middle of the stretch of weights, from 0 on, that most queries agree on; of equal ones the lowest.

    Raises:
        ValueError: No query is answered rightly at any weight, so there is nothing to choose by.
    """
    bounds = []
    for score, match, index in zip(scores, matches, right, strict=True):
        lead, gain = (np.delete(values[index] - values, index) for values in (score, match))  # (K - 1,) each
        low = np.max(-lead[gain > 0] / gain[gain > 0], initial=0.0)
        high = np.min(lead[gain < 0] / -gain[gain < 0], initial=np.inf)
        if low < high and (lead[gain == 0] > 0).all():
            bounds.append((low, high))
    if not bounds:
        raise ValueError(f"none of the {len(right)} queries has its right candidate first at any weight")
    edges = np.unique([edge for bound in bounds for edge in bound])
    edges = np.append(edges[np.isfinite(edges)], edges[np.isfinite(edges)].max() + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    votes = [sum(low < middle < high for low, high in bounds) for middle in middles]
    return float(middles[int(np.argmax(votes))])


# ---------------------------------------------------------------------------------------------------------------------
# Queries and images
# ---------------------------------------------------------------------------------------------------------------------


def match_pairs(
    embedder: Any,
    texts: Sequence[str],
    images: Sequence[ImageInput],
    pairs: Iterable[tuple[int, int]],
    split: Splitter = split_phrases,
    **options: Any,
) -> Iterator[tuple[tuple[int, int], list[PhraseMatch] | Skipped]]:
    """Find the phrases of texts in images, for some pairs of both; each image runs through the model once.

    Args:
        embedder: An [`Embedder`] of a family with dense features and a head for region phrases.
        texts: The texts.
        images: The images.
        pairs: (text, image) by their indices, each once.
        split: Makes phrases of a text.
        options: `max_num_patches`, `batch_size`, `show_progress_bar` and `on_error` of [`Embedder.stream_windows`].

    Yields:
        (pair, matches of the text's phrases), in the order in which the images are done; with `on_error="skip"` also
        (pair, [`Skipped`]) where the image can't be read.

    Raises:
        ValueError: The splitter gives no phrases, or the family lacks what is needed.
    """
    phrases = [_phrases(split, text) for text in texts]
    row = {phrase: number for number, phrase in enumerate(dict.fromkeys(itertools.chain.from_iterable(phrases)))}
    vectors = embedder.encode_texts(list(row), role="region_phrase", show_progress_bar=False)  # (phrases, D)
    texts_of: dict[int, list[int]] = defaultdict(list)
    for text, image in pairs:
        texts_of[image].append(text)
    used = sorted(texts_of)
    rows = [sorted({row[phrase] for text in texts_of[image] for phrase in phrases[text]}) for image in used]
    stream = embedder.stream_windows([images[image] for image in used], [vectors[its] for its in rows], **options)
    for number, result in stream:
        image = used[number]
        if isinstance(result, Skipped):
            reason = result.reason.removeprefix(f"images[{number}]: ")
            for text in texts_of[image]:
                yield (text, image), Skipped(image, reason)
            continue
        cosines, boxes = result
        place = {phrase_row: index for index, phrase_row in enumerate(rows[number])}
        for text in texts_of[image]:
            found = [(phrase, place[row[phrase]]) for phrase in phrases[text]]
            yield (
                (text, image),
                [PhraseMatch(phrase, tuple(boxes[at].tolist()), float(cosines[at])) for phrase, at in found],
            )


def rerank(
    embedder: Any,
    query: str,
    images: Sequence[ImageInput],
    role: Any,
    split: Splitter,
    weight: float | None,
    **options: Any,
) -> list[RerankedHit]:
    """Order images by a query, see [`Embedder.rerank`]."""
    query = check_text("query", query)
    if not query.strip():
        raise ValueError(f"query must be a text that is not blank, got {query!r}")
    pairs = [(0, index) for index in range(len(images))]
    matches: dict[Any, Any] = dict(match_pairs(embedder, [query], images, pairs, split, **options))
    scores = embedder.similarity(embedder.encode_images(images, **options), embedder.encode_texts(query, role=role))
    return ordered(scores, [matches[pair] for pair in pairs], range(len(images)), weight)


def ordered(
    scores: np.ndarray, matches: Sequence[list[PhraseMatch]], indices: Iterable[int], weight: float | None = None
) -> list[RerankedHit]:
    """Order the candidates of a query.

    Args:
        scores: (N,) cosines of the candidates.
        matches: For each candidate where the phrases were found.
        indices: What the candidates are called in the hits.
        weight: Weight of the phrases; `None`: [`spread_weight`].

    Returns:
        The hits, best first.
    """
    if not matches:
        return []
    means = np.array([np.mean([match.cosine for match in its]) for its in matches], dtype=np.float64)  # (N,)
    if weight is None:
        weight = spread_weight(scores, means)
    hits = [
        RerankedHit(index, float(score), float(score + weight * mean), its)
        for index, score, mean, its in zip(indices, scores, means, matches, strict=True)
    ]
    return sorted(hits, key=lambda hit: -hit.reranked)


def _phrases(split: Callable[[str], Sequence[str]], text: str) -> list[str]:
    """Return the phrases of a text, each once, after a check of what a splitter of the user's gives."""
    phrases = split(text)
    if isinstance(phrases, str) or not phrases or not all(isinstance(one, str) and one.strip() for one in phrases):
        raise ValueError(f"the splitter must give a list of at least one phrase for {text!r}, got {phrases!r}")
    return list(dict.fromkeys(phrases))
