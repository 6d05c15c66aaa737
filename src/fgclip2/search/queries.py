"""Queries: texts, images, regions of images and vectors, alone or several as one, as vectors to search an index by."""

from __future__ import annotations

import filecmp
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from PIL import Image

from ..checks import is_number
from ..embedding import Embedder, ImageInput
from ..embedding.inputs import load_input
from ..embedding.labels import normalised
from ..errors import IncompatibleIndexError
from ..files import IMAGE_SUFFIXES, printable
from ..modeling.inputs import check_boxes
from ..modeling.interface import Role
from .build import made_by, vector_kind

NEGATIVE_WEIGHT = -0.5  # a usual weight of what hits should not be like; docs/queries.md says what it was chosen by
CANCELLED = 1e-4  # length of a sum of unit vectors, as a share of all weights, below which its direction is rounding

ImageQuery: TypeAlias = str | os.PathLike | Image.Image | bytes


@dataclass(frozen=True)
class Region:
    """A region of an image to search by: its pixels alone are embedded, as an image.

    An index compares whole images, and vectors of images are what these are compared with best; the vectors of
    [`Embedder.encode_regions`] are of another head, and compare with region phrases only.

    Args:
        image: A path, a PIL image or `bytes`, an encoded image.
        box: Its corners (x1, y1, x2, y2) in pixels of the upright image; what lies outside the image is cut off.
    """

    image: ImageQuery
    box: Sequence[float]

    def crop(self, max_pixels: int) -> Image.Image:
        """Return the pixels that the box touches.

        Raises:
            ValueError: The image can't be read or has more than `max_pixels`, or the box lies outside it or has no
                area.
        """
        image = load_input(0, self.image, max_pixels)
        check_boxes([self.box], image.height, image.width, "region.box")
        x1, y1, x2, y2 = map(float, self.box)
        corners = (max(0, math.floor(x1)), max(0, math.floor(y1)))
        return image.crop((*corners, min(image.width, math.ceil(x2)), min(image.height, math.ceil(y2))))


SimpleQuery: TypeAlias = ImageQuery | Region | np.ndarray


@dataclass(frozen=True)
class CombinedQuery:
    """Several queries as one: the direction of the weighted sum of their L2-normalised vectors.

    With equal weights, as by default, it is their mean: several captions of one thing, in both languages, or a picture
    and a text of what else should be in it. A weight below zero is of what hits should not be like; -0.5
    (`NEGATIVE_WEIGHT`) is a good start. Only ratios of weights count.

    Args:
        parts: Texts (`str`), images (a `Path`, a PIL image or `bytes`), [`Region`] and vectors (D,), in any mixture.
        weights: The weight of each part; `None`: 1 each.

    Raises:
        ValueError: There are no parts, not as many weights as parts, a weight is no finite number, or none is above
            zero.

    Example:
        >>> index.search(CombinedQuery(["a tiger", "老虎"]), embedder)
        >>> index.search(CombinedQuery([Path("sofa.jpg"), "红色", "a cat"], weights=[1, 0.5, -0.5]), embedder)
    """

    parts: Sequence[SimpleQuery]
    weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.parts, (str, bytes)) or not isinstance(self.parts, Sequence) or not self.parts:
            raise ValueError(f"parts must be a list of one query at least, got {self.parts!r:.80}")
        if self.weights is None:
            return
        if len(self.weights) != len(self.parts):
            raise ValueError(f"there are {len(self.weights)} weights of {len(self.parts)} parts: give one for each")
        for number, weight in enumerate(self.weights):
            if not is_number(weight):
                raise ValueError(f"weights[{number}] must be a finite number, got {weight!r}")
        if not any(self.weights):
            raise ValueError(f"weights are {list(self.weights)}, all zero: give one above zero at least")
        if max(self.weights) <= 0:
            raise ValueError(
                f"weights are {list(self.weights)}, none above zero: what hits should not be like says nothing of what "
                "they should be; add a part with a weight above zero, even if it is only 'a photo' ('一张照片')"
            )


Query: TypeAlias = SimpleQuery | CombinedQuery


def is_query(query: Any) -> bool:
    """Return whether an argument is one query; an array is if it has one axis, else it is several vectors."""
    if isinstance(query, np.ndarray):
        return query.ndim == 1
    return isinstance(query, (str, os.PathLike, Image.Image, bytes, Region, CombinedQuery))


def combine_vectors(vectors: np.ndarray, weights: Sequence[float] | None = None) -> np.ndarray:
    """Return the direction of the weighted sum of L2-normalised vectors; see [`CombinedQuery`].

    Args:
        vectors: (parts, D) of any lengths above zero, which count as 1.
        weights: One for each vector; `None`: 1 each.

    Returns:
        Float32 (D,), L2-normalised.

    Raises:
        ValueError: The vectors cancel each other out, so that no direction is left.
    """
    shares = np.ones(len(vectors)) if weights is None else np.array(weights, np.float64)
    shares = shares / np.abs(shares).sum()  # of any size, and the sum below has a length of at most 1
    total = shares @ normalised(vectors).astype(np.float64)  # (D,)
    if not np.linalg.norm(total) > CANCELLED:
        raise ValueError("the parts of the query cancel each other out: give other weights, or leave a part out")
    return normalised(total)


def query_vectors(
    queries: Sequence[Query],
    embedder: Embedder | None,
    width: int,
    max_num_patches: int | str | None,
    role: Role | Literal["auto"] = "auto",
) -> np.ndarray:
    """Encode queries to float32 (queries, D), L2-normalised, all their texts at once, and all their images.

    Args:
        queries: Checked by [`check_queries`].
        embedder: Embeds texts and images; needed if there are any.
        width: D.
        max_num_patches: Patch budget of images and regions.
        role: Of the texts, see [`Embedder.encode_texts`].
    """
    parts = [part for query in queries for part in parts_of(query)]
    texts = [row for row, part in enumerate(parts) if isinstance(part, str)]
    images = [row for row, part in enumerate(parts) if not isinstance(part, (str, np.ndarray))]
    vectors = np.zeros((len(parts), width), np.float32)
    for row, part in enumerate(parts):
        if isinstance(part, np.ndarray):
            vectors[row] = part
    if embedder is not None and texts:
        vectors[texts] = embedder.encode_texts([parts[row] for row in texts], role=role)
    if embedder is not None and images:
        crops = [
            parts[row].crop(embedder.max_pixels) if isinstance(parts[row], Region) else parts[row] for row in images
        ]
        vectors[images] = embedder.encode_images(crops, max_num_patches=max_num_patches)
    combined = np.zeros((len(queries), width), np.float32)
    start = 0
    for row, query in enumerate(queries):
        its = vectors[start : (start := start + len(parts_of(query)))]  # (parts, D)
        combined[row] = combine_vectors(its, query.weights) if isinstance(query, CombinedQuery) else its[0]
    return normalised(combined)


def encode_queries(
    queries: Sequence[Query],
    embedder: Embedder | None,
    model: dict[str, Any],
    settings: dict[str, Any],
    role: Role | Literal["auto"] = "auto",
) -> np.ndarray:
    """Check queries, and encode them as [`query_vectors`] does, by the model that made an index.

    Args:
        queries: See [`check_queries`].
        embedder: Must be the model of the index; queries of vectors alone need none.
        model, settings: Of the index.
        role: Of the texts.

    Raises:
        ValueError: A query can't be used, or there is no embedder.
        IncompatibleIndexError: The embedder is not the model that made the index.
    """
    width = model["embedding_size"]
    check_queries(queries, width)
    if all(isinstance(part, np.ndarray) for query in queries for part in parts_of(query)):
        return query_vectors(queries, None, width, None)
    if embedder is None:
        raise ValueError("queries that are texts or images need an embedder: index.search(query, embedder)")
    if not made_by(model, embedder):
        raise IncompatibleIndexError(
            f"the index was made by the model {model['name']!r}, which is not the model {embedder.name!r} as it is "
            "now: search with that, or build the index anew"
        )
    ours = vector_kind({**settings, **embedder.describe_vectors()})
    if any(map(images_of, queries)) and ours != vector_kind(settings):
        raise IncompatibleIndexError(
            f"the index was made with {settings}, and {embedder!r} gives other vectors of images: search by texts, or "
            "with an embedder of the same precision and kind of images"
        )
    return query_vectors(queries, embedder, width, settings["max_num_patches"], role)


def parts_of(query: Query) -> Sequence[Any]:
    """Return the queries that a query is combined of; a simple one is its only part."""
    return query.parts if isinstance(query, CombinedQuery) else [query]


def check_queries(queries: Sequence[Query], width: int) -> None:
    """Refuse what can't be searched by, and warn of texts that look like files.

    Args:
        queries: All texts, all images and regions, all vectors, or all combined of these.
        width: Of vectors.

    Raises:
        ValueError: They are of several kinds, a text is empty, an image is a folder, or a vector can't be used.
    """
    kinds = {_kind_of(query) for query in queries}
    if len(kinds) > 1 or None in kinds:
        names = ", ".join(sorted({type(query).__name__ for query in queries}))
        raise ValueError(
            f"the queries are {names}; allowed: all str (texts), all Path, PIL images, bytes or Region, all vectors, "
            "or all CombinedQuery"
        )
    for query in queries:
        for number, part in enumerate(parts_of(query)):
            kind = _kind_of(part)
            if kind is None or kind is CombinedQuery:
                raise ValueError(
                    f"parts[{number}] is a {type(part).__name__}; allowed: str (a text), a Path, a PIL image, bytes, a "
                    "Region or a vector"
                )
            if kind is np.ndarray and (part.shape != (width,) or not np.isfinite(part).all()):
                raise ValueError(f"a query vector must be {width} finite values, got shape {np.shape(part)}")
            if kind is str:
                _check_text(part)
            image = part.image if isinstance(part, Region) else part
            if isinstance(image, os.PathLike) and Path(image).is_dir():
                raise ValueError(f"{printable(image)} is a folder: search by one image file, or by several")


def _kind_of(query: Any) -> type | None:
    if isinstance(query, (os.PathLike, Image.Image, bytes, Region)):
        return Image.Image
    return next((kind for kind in (str, np.ndarray, CombinedQuery) if isinstance(query, kind)), None)


def _check_text(text: str) -> None:
    if not text.strip():
        raise ValueError(f"the query {text!r} is empty: give a text, or an image (`--image`, image=)")
    if Path(text).suffix.lower() in IMAGE_SUFFIXES or os.path.isfile(text):  # noqa: PTH113  # of any text
        warnings.warn(
            f"the query {text!r} looks like the path of a file, but is searched as a text: for the image give it as "
            "`--image`, or image=",
            stacklevel=6,
        )


def images_of(query: Query) -> list[ImageQuery]:
    """Return the images that a query has, those of regions included."""
    images = [part for part in parts_of(query) if not isinstance(part, (str, np.ndarray))]
    return [part.image if isinstance(part, Region) else part for part in images]


def check_region_search(rerank: str | None, queries: Sequence[Query]) -> None:
    """Raise a `ValueError` where regions can't be searched in this way, or by these queries."""
    if rerank is not None:
        raise ValueError("rerank puts whole images in a new order: leave out `regions` (`--regions`)")
    if any(map(images_of, queries)):
        raise ValueError(
            "regions are searched by texts or by vectors of regions (Embedder.encode_regions), got an image"
        )


def is_copy(found: ImageInput, image: ImageQuery) -> bool:
    """Return whether a found image is an image, a link to it, or of the same content; a PIL image may know its file.

    Args:
        found: A path, or a function that gives an encoded image.
        image: The image that was searched by.
    """
    try:
        found = found() if callable(found) else found
        source = getattr(image, "filename", "") if isinstance(image, Image.Image) else image
        if not source:
            return False
        if isinstance(found, Path) and not isinstance(source, bytes):
            return found.samefile(source) or filecmp.cmp(found, source, shallow=False)
        if isinstance(found, Path) and isinstance(source, bytes) and found.stat().st_size != len(source):
            return False  # without reading it
        contents = [one if isinstance(one, bytes) else Path(one).read_bytes() for one in (found, source)]  # type: ignore[arg-type]
        return contents[0] == contents[1]
    except (OSError, ValueError):  # one of them has gone
        return False
