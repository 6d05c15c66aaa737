"""Re-ranking of images: by phrases of a query, or by what a model has to compare pairs of an image and a text.

A dual encoder has one vector for a whole query. By phrases, every phrase of the query looks for the part of the image
that fits it best, a window of its dense map, in the head of regions; nothing is trained for it. A model with a ranking
stage, such as R2D2's cross encoders, scores each pair as it was trained to.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from ..streams import batches_of_a_kind
from .inputs import PATCHES_OF_A_SQUARE, ImageInput, Skipped
from .phrases import Splitter, split_phrases

# Heights and widths of windows as shares of the image's; the whole image is a window too. Chosen, as the weight is, on
# validation scenes: recipes/reranking.
WINDOW_SIDES = (0.2, 0.3, 0.4, 0.6)
CANDIDATES = 20
RERANKERS = ("phrases", "model")
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
        reranked: By phrases, `score` and the weighted mean of the phrases' cosines; by the model, its score.
        phrases: Where in the image each phrase of the query was found; by the model, there are none.
    """

    index: int  # type: ignore[assignment]  # hides a method of tuple that nobody needs here
    score: float
    reranked: float
    phrases: list[PhraseMatch]


class DenseMap(NamedTuple):
    """The dense features of an image.

    Attributes:
        values: Float32 (height, width, D) on the grid of patches, up to a factor, which cosines don't see.
        image_size: (height, width) of the upright image in pixels.
    """

    values: np.ndarray
    image_size: tuple[int, int]


class ImageWindows(NamedTuple):
    """The parts of an image that fit phrases best.

    Attributes:
        cosines: Float32 (P,), of each phrase.
        boxes: Float32 (P, 4), where it was found: x1, y1, x2, y2 in pixels.
        vector: Float32 (D,), of the whole image, L2-normalised; `None` where only its dense map was there.
    """

    cosines: np.ndarray
    boxes: np.ndarray
    vector: np.ndarray | None = None


class PairScores(NamedTuple):
    """The scores of an image with some texts.

    Attributes:
        scores: Float32 (T,), one for each text.
        vector: Float32 (D,), of the whole image, L2-normalised.
    """

    scores: np.ndarray
    vector: np.ndarray


class ImageMatch(NamedTuple):
    """Where in an image the phrases of a text were found.

    Attributes:
        phrases: A match for each phrase of the text, in the order of the text.
        vector: Float32 (D,), of the whole image, L2-normalised; `None` where only its stored dense map was read.
    """

    phrases: list[PhraseMatch]
    vector: np.ndarray | None = None


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


def texts_of_images(pairs: Iterable[tuple[int, int]]) -> dict[int, list[int]]:
    """Gather pairs by their images.

    Args:
        pairs: (text, image) by their indices, each once.

    Returns:
        Index of an image -> indices of its texts, the images in order.
    """
    texts: dict[int, list[int]] = defaultdict(list)
    for text, image in pairs:
        texts[image].append(text)
    return dict(sorted(texts.items()))


class PhrasesOfPairs:
    """The phrases of texts, gathered by the images that they are to be found in.

    Args:
        texts: The texts.
        pairs: (text, image) by their indices, each once.
        split: Makes phrases of a text.

    Attributes:
        of_texts: For each text its phrases, each once.
        of_images: Index of an image -> the phrases of all its texts, each once, sorted.

    Raises:
        ValueError: `split` is no function, or gives no phrases.
    """

    def __init__(self, texts: Sequence[str], pairs: Iterable[tuple[int, int]], split: Splitter = split_phrases):
        if not callable(split):
            raise ValueError(f"split must be a function that makes phrases of a text, got {split!r}")
        self.of_texts = [_phrases(split, text) for text in texts]
        self._texts_of = texts_of_images(pairs)
        self.of_images = {
            image: sorted({phrase for text in its for phrase in self.of_texts[text]})
            for image, its in self._texts_of.items()
        }

    def rows(self, image: int) -> Iterator[tuple[int, list[int]]]:
        """Yield each text of an image, and where its phrases stand among those of the image."""
        row = {phrase: number for number, phrase in enumerate(self.of_images[image])}
        for text in self._texts_of[image]:
            yield text, [row[phrase] for phrase in self.of_texts[text]]


def phrase_vectors(
    phrases: Iterable[Sequence[str]], encode: Callable[[list[str]], np.ndarray]
) -> Callable[[Sequence[str]], np.ndarray]:
    """Encode all phrases of some lists, each once.

    Args:
        phrases: The lists, which may have phrases in common.
        encode: Returns the vectors of N texts, float32 (N, D).

    Returns:
        A function that takes P of the phrases and returns their vectors, float32 (P, D).
    """
    row = {phrase: number for number, phrase in enumerate(dict.fromkeys(itertools.chain.from_iterable(phrases)))}
    vectors = encode(list(row))
    return lambda its_phrases: vectors[[row[phrase] for phrase in its_phrases]]


def match_pairs(
    embedder: Any,
    texts: Sequence[str],
    images: Sequence[ImageInput] | Mapping[int, ImageInput],
    pairs: Iterable[tuple[int, int]],
    split: Splitter = split_phrases,
    stored_map: Callable[[int], DenseMap | None] | None = None,
    **options: Any,
) -> Iterator[tuple[tuple[int, int], ImageMatch | Skipped]]:
    """Find the phrases of texts in images, for some pairs of both; each image runs through the model once at most.

    Args:
        embedder: An [`Embedder`] of a family with dense features and a head for region phrases.
        texts: The texts.
        images: The images, by their indices; those that no pair has may be left out.
        pairs: (text, image) by their indices, each once.
        split: Makes phrases of a text.
        stored_map: Returns the dense map of an image by its index, or `None`; an image that has one is not opened.
        options: `max_num_patches`, `batch_size`, `show_progress_bar` and `on_error` of [`Embedder.stream_windows`].

    Yields:
        (pair, matches of the text's phrases), in the order in which the images are done; with `on_error="skip"` also
        (pair, [`Skipped`]) where the image can't be read.

    Raises:
        ValueError: `split` is no function or gives no phrases, or the family lacks what is needed.
    """
    phrases = PhrasesOfPairs(texts, pairs, split)
    vectors = phrase_vectors(
        phrases.of_texts, lambda texts: embedder.encode_texts(texts, role="region_phrase", show_progress_bar=False)
    )
    vectors_of = {image: vectors(its) for image, its in phrases.of_images.items()}
    for image, result in stream_known_windows(embedder, images, vectors_of, stored_map, **options):
        for text, rows in phrases.rows(image):
            if isinstance(result, Skipped):
                yield (text, image), result
                continue
            matches = [
                PhraseMatch(phrase, tuple(result.boxes[row].tolist()), float(result.cosines[row]))
                for phrase, row in zip(phrases.of_texts[text], rows, strict=True)
            ]
            yield (text, image), ImageMatch(matches, result.vector)


def stream_known_windows(
    embedder: Any,
    images: Sequence[ImageInput] | Mapping[int, ImageInput],
    vectors: Mapping[int, np.ndarray],
    stored_map: Callable[[int], DenseMap | None] | None = None,
    batch_size: int = 32,
    **options: Any,
) -> Iterator[tuple[int, ImageWindows | Skipped]]:
    """Find the parts of some images that fit vectors best: in their stored maps, or in the images where there is none.

    Args:
        embedder, images, stored_map: As in [`match_pairs`].
        vectors: Index of an image -> vectors of its phrases, float32 (P_i, D).
        batch_size, options: As in [`Embedder.stream_windows`].

    Yields:
        (index of an image, its windows); with `on_error="skip"` also (index, [`Skipped`]).
    """
    others: list[int] = []

    def known() -> Iterator[tuple[int, DenseMap]]:
        for image in vectors:
            its_map = stored_map(image) if stored_map else None
            if its_map is None:
                others.append(image)
            else:
                yield image, its_map

    def patches(item: tuple[int, DenseMap]) -> int:
        height, width, _ = item[1].values.shape
        return 1 << (height * width - 1).bit_length()  # few kinds for many grids

    for batch in batches_of_a_kind(known(), patches, lambda count: max(1, batch_size * PATCHES_OF_A_SQUARE // count)):
        maps = [its_map.values for _, its_map in batch]
        sizes = [its_map.image_size for _, its_map in batch]
        windows = embedder.windows_of_maps(maps, sizes, [vectors[image] for image, _ in batch])
        yield from zip(map(itemgetter(0), batch), windows, strict=True)
    if not others:
        return
    rest = [images[image] for image in others]
    stream = embedder.stream_windows(rest, [vectors[image] for image in others], batch_size=batch_size, **options)
    for number, result in stream:
        if isinstance(result, Skipped):
            result = Skipped(others[number], result.reason.removeprefix(f"images[{number}]: "))
        yield others[number], result


def score_pairs(
    embedder: Any,
    texts: Sequence[str],
    images: Sequence[ImageInput] | Mapping[int, ImageInput],
    pairs: Iterable[tuple[int, int]],
    **options: Any,
) -> Iterator[tuple[tuple[int, int], float | Skipped]]:
    """Score pairs of a text and an image by the model's ranking stage; each image runs through the towers once.

    Args:
        embedder: An [`Embedder`] of a model that scores pairs.
        texts: The texts.
        images: The images, by their indices; those that no pair has may be left out.
        pairs: (text, image) by their indices, each once.
        options: Further arguments of [`Embedder.stream_pair_scores`].

    Yields:
        (pair, score), in the order in which the images are done; with `on_error="skip"` also (pair, [`Skipped`]) where
        the image can't be read.

    Raises:
        ValueError: The model does not score pairs.
    """
    of_images = texts_of_images(pairs)
    indices = list(of_images)
    its_texts = [[texts[text] for text in of_images[image]] for image in indices]
    for number, result in embedder.stream_pair_scores([images[image] for image in indices], its_texts, **options):
        image = indices[number]
        if isinstance(result, Skipped):
            result = Skipped(image, result.reason.removeprefix(f"images[{number}]: "))
            yield from (((text, image), result) for text in of_images[image])
        else:
            yield from zip(((text, image) for text in of_images[image]), result.scores.tolist(), strict=True)


def rerank_by_model(
    embedder: Any, query: str, images: Sequence[ImageInput], role: Any, **options: Any
) -> tuple[list[RerankedHit], list[Skipped]]:
    """Order images by the model's scores of their pairs with a query, see [`Embedder.rerank`], as [`rerank`] does."""
    found = sorted(
        embedder.stream_pair_scores(images, [[query]] * len(images), role=role, **options), key=itemgetter(0)
    )
    query_vector = embedder.encode_texts(query, role=role)
    hits = [
        RerankedHit(index, float(result.vector @ query_vector), float(result.scores[0]), [])
        for index, result in found
        if not isinstance(result, Skipped)
    ]
    skipped = [result for _, result in found if isinstance(result, Skipped)]
    return sorted(hits, key=lambda hit: -hit.reranked), skipped


def rerank(
    embedder: Any,
    query: str,
    images: Sequence[ImageInput],
    role: Any,
    split: Splitter,
    weight: float | None,
    **options: Any,
) -> tuple[list[RerankedHit], list[Skipped]]:
    """Order images by the phrases of a query, see [`Embedder.rerank`]; return those that were left out, too."""
    pairs = [(0, index) for index in range(len(images))]
    found = sorted(match_pairs(embedder, [query], images, pairs, split, **options), key=itemgetter(0))
    skipped = [match for _, match in found if isinstance(match, Skipped)]
    matches = {image: match for (_, image), match in found if not isinstance(match, Skipped)}
    query_vector = embedder.encode_texts(query, role=role)
    scores = np.array([match.vector for match in matches.values()]).reshape(-1, len(query_vector)) @ query_vector
    return ordered(scores, [match.phrases for match in matches.values()], matches, weight), skipped


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
