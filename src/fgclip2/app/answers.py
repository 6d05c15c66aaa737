"""What the tabs answer: functions of pictures and texts that know neither Gradio nor any language of an interface."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from ..embedding import Embedder
from ..embedding.inputs import load_input
from ..search import CombinedQuery, ImageIndex
from ..visualization import overlay_heatmap

USUAL_BUDGET = 100  # patches of a picture, at which the embedded checkpoint answers the bundled examples rightly
MAX_PIXELS = 33_554_432  # of a picture; decoded, it takes up to 12 bytes a pixel
MAX_CHARACTERS = 2_000  # of a text field
MAX_LABELS = 100
MAX_MAPS = 8
MAX_BOXES = 30
# The longest side that pictures are drawn with, in pixels: smaller ones are enlarged, larger ones reduced.
DRAWN = (480, 1024)
Budget = int | str | None


class InputError(ValueError):
    """Something that the visitor has to change, which the interface says in its language.

    Args:
        key: The name of its text in `texts.py`.
        values: What that text is filled with.
    """

    def __init__(self, key: str, **values: object):
        super().__init__(key)
        self.key, self.values = key, values


class Score(NamedTuple):
    """How well a text fits a picture or a region.

    Attributes:
        text: The text.
        cosine: Of both vectors.
        score: The model's own: a sigmoid of the pair, or the share of the text among those that were compared.
        probability: Of a match, by the checkpoint's calibration; `None`: it has no curve for this text.
    """

    text: str
    cosine: float
    score: float
    probability: float | None


@dataclass(frozen=True)
class HeatMaps:
    """What texts look like in pictures.

    Attributes:
        pictures: For each map the picture that it is of, as it is drawn, RGB.
        texts: The text of each map.
        values: The cosines of each map, float32 (height, width) on the grid of patches.
        low, high: The ends of the scale that all maps share.
    """

    pictures: Sequence[Image.Image]
    texts: Sequence[str]
    values: Sequence[np.ndarray]
    low: float
    high: float

    @classmethod
    def of(cls, pictures: Sequence[Image.Image], texts: Sequence[str], values: Sequence[np.ndarray]) -> HeatMaps:
        """Return maps on one scale, from the lowest of their values to the highest."""
        low, high = min(float(its.min()) for its in values), max(float(its.max()) for its in values)
        return cls([drawn(picture) for picture in pictures], texts, values, low, high)

    def overlays(self, opacity: float) -> list[Image.Image]:
        """Return each picture under its map."""
        return [
            draw_map(picture, values, opacity, self.low, self.high)
            for picture, values in zip(self.pictures, self.values, strict=True)
        ]

    def save(self, file: str | Path | BinaryIO, **settings: str) -> None:
        """Write the maps as NPZ: `text_0`, `map_0`, `text_1` and so on, `scale`, and settings by their names."""
        arrays: dict[str, Any] = {"scale": np.array([self.low, self.high], np.float32)}
        for number, (text, values) in enumerate(zip(self.texts, self.values, strict=True)):
            arrays |= {f"text_{number}": np.array(text), f"map_{number}": values}
        arrays |= {name: np.array(value) for name, value in settings.items()}
        np.savez_compressed(file, **arrays)


# ---------------------------------------------------------------------------------------------------------------------
# Input
# ---------------------------------------------------------------------------------------------------------------------


def read_picture(path: str | Path | None) -> Image.Image:
    """Return a picture upright and RGB.

    Raises:
        InputError: There is none, or it can't be read.
    """
    if path is None:
        raise InputError("no_picture")
    try:
        return load_input(0, Path(path), MAX_PIXELS)
    except ValueError as error:
        raise InputError("unreadable_picture", pixels=MAX_PIXELS) from error


def read_text(text: str | None, key: str = "no_text") -> str:
    """Return a text without the spaces around it; `key` names what is said where there is none."""
    text = (text or "").strip()
    if not text:
        raise InputError(key)
    if len(text) > MAX_CHARACTERS:
        raise InputError("text_too_long", most=MAX_CHARACTERS)
    return text


def read_phrases(text: str | None, most: int = MAX_LABELS) -> list[str]:
    """Return the phrases of a text, which stand on lines of their own or between commas, each once."""
    parts = (part.strip() for part in re.split("[,，、;；\n]", read_text(text, "no_phrases")))
    phrases = list(dict.fromkeys(filter(None, parts)))
    if not phrases:
        raise InputError("no_phrases")
    if len(phrases) > most:
        raise InputError("too_many_phrases", most=most, count=len(phrases))
    return phrases


def budget_of(embedder: Embedder, given: Budget = None) -> Budget:
    """Return the given patch budget, else `USUAL_BUDGET` if the calibration has it, else `None`, the embedder's own."""
    curves = embedder.calibration.scores if embedder.calibration else ()
    is_calibrated = any(curve.key.max_num_patches == USUAL_BUDGET for curve in curves)
    return USUAL_BUDGET if given is None and is_calibrated else given


# ---------------------------------------------------------------------------------------------------------------------
# Answers
# ---------------------------------------------------------------------------------------------------------------------


def label_picture(embedder: Embedder, picture: Image.Image, labels: Sequence[str], budget: Budget) -> list[Score]:
    """Return how well labels fit a picture, the best one first."""
    cosines = embedder.similarity(embedder.encode_images(picture, budget), embedder.encode_labels(labels))  # (labels,)
    scores = _scores(embedder, cosines, embedder.probabilities(cosines), labels, "auto", budget)
    return sorted(scores, key=lambda score: -score.score)


def label_boxes(
    embedder: Embedder, picture: Image.Image, boxes: Sequence[Sequence[float]], phrases: Sequence[str], budget: Budget
) -> list[list[Score]]:
    """Return for each box (x1, y1, x2, y2) how well phrases fit it, the best one first.

    Raises:
        InputError: There is no box, there are too many, or one can't be used.
    """
    if not boxes:
        raise InputError("no_box")
    if len(boxes) > MAX_BOXES:
        raise InputError("too_many_boxes", most=MAX_BOXES, count=len(boxes))
    vectors = embedder.encode_labels(phrases, role="region_phrase")
    try:
        regions = embedder.encode_regions(picture, boxes, max_num_patches=budget)
    except ValueError as error:
        raise InputError("unusable_box") from error
    cosines = embedder.similarity(regions, vectors)  # (boxes, phrases)
    shares = embedder.region_shares(cosines)
    return [
        sorted(_scores(embedder, *row, phrases, "region_phrase", budget), key=lambda score: -score.score)
        for row in zip(cosines, shares, strict=True)
    ]


def map_phrases(embedder: Embedder, picture: Image.Image, phrases: Sequence[str], budget: Budget) -> HeatMaps:
    """Return where in a picture phrases apply."""
    values = embedder.heatmap(picture, phrases, resize=False, max_num_patches=budget)  # (phrases, height, width)
    return HeatMaps.of([picture] * len(phrases), phrases, list(values))


def compare_pictures(
    embedder: Embedder, pictures: Sequence[Image.Image], text: str, budget: Budget
) -> tuple[list[Score], HeatMaps | None]:
    """Return how well a text fits each of some pictures, and where; `None`: the family has no dense features."""
    cosines = embedder.similarity(embedder.encode_images(list(pictures), budget), embedder.encode_texts([text]))
    models = embedder.probabilities(cosines)  # (pictures, 1), and so is `cosines`
    scores = [
        _scores(embedder, *row, [text], "auto", budget, candidates=len(pictures))[0]
        for row in zip(cosines, models, strict=True)
    ]
    if "dense features" in embedder.lacks:
        return scores, None
    values = [embedder.heatmap(picture, text, resize=False, max_num_patches=budget) for picture in pictures]
    return scores, HeatMaps.of(pictures, [text] * len(pictures), values)


def search(
    embedder: Embedder, index: ImageIndex, text: str, picture: str | Path | None, count: int, rerank: str | None
) -> list[Any]:
    """Return the hits of a text, of a picture, or of both as one query; only a text alone is re-ranked."""
    if picture is not None:
        read_picture(picture)  # for what is said if it can't be
    if picture is None:
        return index.search(read_text(text, "no_query"), embedder, count, rerank=rerank)  # type: ignore[call-overload]
    query: Any = CombinedQuery([read_text(text), Path(picture)]) if text and text.strip() else Path(picture)
    return index.search(query, embedder, count)


def _scores(
    embedder: Embedder,
    cosines: np.ndarray,
    scores: np.ndarray,
    texts: Sequence[str],
    role: Any,
    budget: Budget,
    candidates: int | None = None,
) -> list[Score]:
    """Return the scores of texts, whose cosines and model's scores are (texts,)."""
    found: np.ndarray = np.full(len(texts), np.nan)
    if embedder.calibration is not None:
        options: dict[str, Any] = {"role": role, "max_num_patches": budget, "candidates": candidates or len(texts)}
        found = embedder.match_probabilities(cosines, texts, **options)
    probabilities = [None if np.isnan(its) else float(its) for its in found]
    return [
        Score(text, float(cosine), float(score), probability)
        for text, cosine, score, probability in zip(texts, cosines, scores, probabilities, strict=True)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Drawing
# ---------------------------------------------------------------------------------------------------------------------


def drawn(picture: Image.Image) -> Image.Image:
    """Return a picture in the size that it is drawn with."""
    longest = max(picture.size)
    factor = min(max(longest, DRAWN[0]), DRAWN[1]) / longest
    return picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))))


def draw_map(picture: Image.Image, values: np.ndarray, opacity: float, low: float, high: float) -> Image.Image:
    """Return a picture under a map of (height, width), between whose values it is interpolated."""
    smooth = Image.fromarray(values.astype(np.float32)).resize(picture.size, Image.Resampling.BILINEAR)
    return overlay_heatmap(picture, np.asarray(smooth), opacity, low, high)


def draw_difference(maps: HeatMaps, opacity: float) -> tuple[Image.Image, float]:
    """Return the picture of two maps under the first minus the second, and the half `h` of its scale.

    The scale goes from -h to h and is as long as that of the maps, so that a colour stands for as much in all three.
    """
    first, second = maps.values
    half = (maps.high - maps.low) / 2
    return draw_map(maps.pictures[0], first - second, opacity, -half, half), half
