"""Tools of the Model Context Protocol: a language model searches, labels and compares the images of some folders."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import BaseModel, Field

from ..calibration import none_matches
from ..embedding import BaseEmbedder
from ..files import leads_outside, printable
from ..search import ImageIndex

INSTRUCTIONS = (
    "Tools over the images of some folders, in Chinese and English. Start with `search`; it gives paths, which the "
    "other tools take. Scores compare with each other only: a cosine of 0.2 may be a good match of a short text. Where "
    "there is a probability, it says whether something matches."
)
MOST_HITS = 50
MOST_INPUTS = 64

ImagePath = Annotated[str, Field(description="Path of an image in one of the folders, as `search` gives it.")]
Texts = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MOST_INPUTS)]

Probability = Annotated[
    float | None, Field(description="How likely it is a match, where the model has a calibration for such texts.")
]
NothingMatches = Annotated[
    bool | None, Field(description="Whether none of these is likely a match, where probabilities say it.")
]


class Window(BaseModel):
    """The part of an image that fits a phrase best: x1, y1, x2, y2 in pixels of the upright image."""

    phrase: str
    box: list[int]
    cosine: float


class FoundImage(BaseModel):
    """An image, its cosine with the query, and where the query's phrases were found if they were looked for."""

    path: str
    score: float
    probability: Probability = None
    windows: list[Window] = []


class FoundImages(BaseModel):
    """Images, best first."""

    images: list[FoundImage]
    nothing_matches: NothingMatches = None


class ScoredLabel(BaseModel):
    """A label: `score` is its probability, or its share among the labels, by the model's family."""

    label: str
    score: float
    cosine: float
    probability: Probability = None


class ScoredLabels(BaseModel):
    """Labels, best first."""

    labels: list[ScoredLabel]
    nothing_matches: NothingMatches = None


class Windows(BaseModel):
    """Where the phrases were found, in their order."""

    windows: list[Window]


class Pair(BaseModel):
    """Two inputs and the cosine of their vectors."""

    first: str
    second: str
    cosine: float
    probability: Probability = None


class Pairs(BaseModel):
    """Pairs, the most alike first."""

    pairs: list[Pair]


class ImageTools:
    """What the tools do. Only images below the roots are read, links that leave them included in what is not.

    Args:
        embedder: The model.
        roots: Folders of images; those that have an index are searched.

    Raises:
        ValueError: There is no root, or one is no folder.
    """

    def __init__(self, embedder: BaseEmbedder, roots: Sequence[str | os.PathLike]):
        if not roots:
            raise ValueError("roots must be at least one folder of images: give it by --root")
        self.embedder = embedder
        self.roots = [Path(root).absolute() for root in roots]
        for root in self.roots:
            if not root.is_dir():
                raise ValueError(f"{printable(root)}: no such folder")
        self._turn = threading.Lock()  # of the model, which has all cores anyway

    def search(
        self,
        query: Annotated[str | None, Field(description="A text that describes the images, or leave it out.")] = None,
        image: Annotated[str | None, Field(description="Path of an image to find similar ones, instead.")] = None,
        top_k: Annotated[int, Field(ge=1, le=MOST_HITS, description="How many images to return.")] = 10,
        windows: Annotated[
            bool, Field(description="Look for each phrase of the query in the best images and order them by that.")
        ] = False,
    ) -> FoundImages:
        """Find images by a text in Chinese or English, or by an image."""
        if (query is None) == (image is None):
            raise ToolError("give one of `query` and `image`")
        if windows and query is None:
            raise ToolError("windows are of the phrases of a query: give a text, or leave out `windows`")
        path = None if image is None else self._readable(image)
        found = []
        for index in self._indexes:
            embedder: Any = self.embedder
            if windows:
                hits: Any = index.search(str(query), embedder, top_k, rerank="phrases", candidates=2 * MOST_HITS)
            else:
                hits = index.search(query if path is None else path, embedder, top_k)  # type: ignore[arg-type]
            found += hits
        found.sort(key=lambda hit: -(hit.reranked if windows else hit.score))
        return FoundImages(
            images=[
                FoundImage(
                    path=str(hit.path),
                    score=hit.score,
                    probability=hit.probability,
                    windows=[_window(*match) for match in hit.phrases] if windows else [],
                )
                for hit in found[:top_k]
            ],
            nothing_matches=none_matches([hit.probability for hit in found[:top_k]]),
        )

    def label(
        self,
        image: ImagePath,
        labels: Annotated[Texts, Field(description="Names or descriptions, e.g. dog, 猫.")],
    ) -> ScoredLabels:
        """Say which of some labels fit an image."""
        vector = self.embedder.encode_images(self._readable(image))
        cosines = self.embedder.similarity(vector, self.embedder.encode_labels(labels))  # (labels,)
        scores = self.embedder.probabilities(cosines)
        probabilities = self._probabilities(cosines, labels, len(labels))
        return ScoredLabels(
            labels=[
                ScoredLabel(
                    label=labels[row],
                    score=float(scores[row]),
                    cosine=float(cosines[row]),
                    probability=probabilities[row],
                )
                for row in (-scores).argsort(kind="stable")
            ],
            nothing_matches=none_matches(probabilities),
        )

    def find_regions(
        self,
        image: ImagePath,
        phrases: Annotated[Texts, Field(description="What to look for, e.g. a red ball, 左边的狗.")],
    ) -> Windows:
        """Say where in an image phrases fit best. Each gets a window, also one that is not there: see its cosine."""
        vectors = self.embedder.encode_texts(phrases, role="region_phrase")
        ((_, found),) = self.embedder.stream_windows([self._readable(image)], [vectors])
        rows: Any = zip(phrases, found.boxes, found.cosines, strict=True)  # type: ignore[union-attr]
        return Windows(windows=[_window(*row) for row in rows])

    def compare(
        self,
        images: Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS, description="Paths of images.")],
        texts: Annotated[
            list[str], Field(max_length=MOST_INPUTS, description="Texts; without any, images are compared.")
        ] = [],  # noqa: B006  # the schema of the tool shows it
    ) -> Pairs:
        """Compare images with texts, or with each other."""
        if not texts and len(images) < 2:
            raise ToolError("give at least two images, or a text")
        vectors = self.embedder.encode_images([self._readable(image) for image in images])
        others = self.embedder.encode_texts(texts) if texts else vectors
        cosines = self.embedder.similarity(vectors, others)  # (images, texts or images)
        # Each text by itself, among the images.
        probabilities = [
            self._probabilities(row, texts, len(images)) if texts else [None] * len(images) for row in cosines
        ]
        pairs = [
            Pair(
                first=images[row],
                second=(texts or images)[column],
                cosine=float(cosines[row, column]),
                probability=probabilities[row][column],
            )
            for row in range(len(images))
            for column in range(0 if texts else row + 1, len(others))
        ]
        return Pairs(pairs=sorted(pairs, key=lambda pair: -pair.cosine))

    def _probabilities(self, cosines: np.ndarray, texts: Sequence[str], candidates: int) -> list[float | None]:
        """Return the probability that each text matches, of cosines (texts,); `None` where there is no curve for it."""
        if self.embedder.calibration is None:
            return [None] * len(texts)
        found = self.embedder.match_probabilities(cosines, texts, candidates=candidates)
        return [None if np.isnan(its) else float(its) for its in found]

    @functools.cached_property
    def _indexes(self) -> list[ImageIndex]:
        """The indexes of the roots, as they are when they are first needed."""
        found, missing = [], []
        for root in self.roots:
            try:
                found.append(ImageIndex.load(root))
            except ValueError as error:
                missing.append(str(error))
        if not found:
            raise ToolError("; ".join(missing))
        return found

    def _readable(self, image: str) -> Path:
        """Return the path of an image below a root; relative ones are below any of them."""
        for root in self.roots:
            path = root / image  # which is `image` itself where that is absolute
            if not leads_outside(path, root) and path.is_file():
                return path
        raise ToolError(f"{printable(image)} is no file in {', '.join(map(printable, self.roots))}")

    def call(self, tool: Callable[..., BaseModel], **arguments: Any) -> BaseModel:
        """Run a tool when its turn comes; what its caller can mend becomes an error that says how.

        Raises:
            ToolError: The arguments can't be used.
        """
        with self._turn:
            try:
                return tool(**arguments)
            except ValueError as error:
                raise ToolError(str(error)) from error


def make_server(embedder: BaseEmbedder, roots: Sequence[str | os.PathLike]) -> MCPServer:
    """Return an MCP server with the tools `search`, `label`, `find_regions` and `compare`; see [`ImageTools`]."""
    tools = ImageTools(embedder, roots)
    server = MCPServer("fgclip2", version=version("fgclip2"), instructions=INSTRUCTIONS, log_level="WARNING")
    for tool in (tools.search, tools.label, tools.find_regions, tools.compare):
        server.add_tool(functools.wraps(tool)(functools.partial(tools.call, tool)))
    return server


def _window(phrase: str, box: Sequence[float], cosine: float) -> Window:
    return Window(phrase=phrase, box=[round(float(edge)) for edge in box], cosine=float(cosine))
