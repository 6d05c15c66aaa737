"""Engine: what the endpoints ask of the model and of the index, as jobs of one queue."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np

from ..embedding import BaseEmbedder, Skipped, average_templates, fill_templates
from ..embedding.embedder import TOKENS_PER_BATCH_ITEM
from ..embedding.inputs import corners_of_xywh
from ..errors import FilterError
from ..modeling.pixels import patch_budget
from ..search import ImageIndex
from ..search.build import vector_kind
from .errors import ServiceError
from .fetching import UrlFetcher
from .images import EncodedImage, check_header, decode_base64, is_address, unreadable
from .limits import Limits
from .lru import LeastRecentlyUsed
from .metrics import Metrics
from .work_queue import Job, Kind, WorkQueue

Result = TypeVar("Result")

SEARCHES_AT_ONCE = 16


class Engine:
    """The model of a service, and the index if it has one.

    Methods belong to the thread of the event loop and never block it: the model runs in the threads of a [`WorkQueue`],
    and headers of images and lengths of texts are read in threads of their own.

    Args:
        embedder: Whatever runs the model. Its `max_pixels` becomes that of the limits.
        limits: What a request may ask for.
        name: What clients call the model.
        index: What `search` looks into; `None`: there is no search.
        max_num_patches: Patch budget of images, `"auto"` or an integer; `None`: the processor's setting. Images that
            are searched by have that of the index.
        batch_size: Images of 256 patches per forward pass; texts and other images come in batches of as many tokens.
        threads: How many batches run at a time.
        prefixes: Below these addresses images are fetched, see [`UrlFetcher`].
    """

    def __init__(
        self,
        embedder: BaseEmbedder,
        limits: Limits,
        name: str,
        index: ImageIndex | None = None,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        threads: int = 2,
        prefixes: Sequence[str] = (),
    ):
        embedder.max_pixels = limits.pixels
        self.embedder = embedder
        self.limits = limits
        self.name = name
        self.index = index
        self.metrics = Metrics()
        self.fetcher = UrlFetcher(prefixes, limits.body_bytes, limits.seconds)
        self.queue = WorkQueue(threads, limits.waiting, self.metrics)
        self._max_num_patches = max_num_patches
        self._batch_size = batch_size
        self._texts: LeastRecentlyUsed[tuple[np.ndarray, int]] = LeastRecentlyUsed(limits.cached_texts)
        self._helpers = ThreadPoolExecutor(threads, "helper")

    def close(self) -> None:
        """Wait for what is being computed, and end the threads."""
        self.queue.close()
        self._helpers.shutdown()

    # -----------------------------------------------------------------------------------------------------------------
    # Images
    # -----------------------------------------------------------------------------------------------------------------

    async def read_images(self, sources: Sequence[str], param: str) -> list[EncodedImage]:
        """Decode the base64 of images, or fetch them, and check their headers.

        Raises:
            ServiceError: There are too many, or one can't be used.
        """
        if len(sources) > self.limits.images:
            raise ServiceError(422, "too_many_images", f"a request may have at most {self.limits.images} images", param)
        contents: list[bytes] = []
        for source in sources:
            if is_address(source):
                contents.append(await self.fetcher.fetch(source))
            else:
                contents.append(await self.help(decode_base64, source, param))
            if sum(map(len, contents)) > self.limits.body_bytes:  # of fetched ones, which no body has held
                raise ServiceError(
                    413,
                    "image_too_large",
                    f"the images of a request may have at most {self.limits.body_bytes} bytes in all",
                    param,
                )
        return [await self.help(check_header, content, self.limits.pixels, param) for content in contents]

    async def embed_images(
        self, images: Sequence[EncodedImage], max_num_patches: int | str | None = None
    ) -> np.ndarray:
        """Embed images: float32 (N, D).

        Args:
            images: What [`read_images`] returned.
            max_num_patches: Another patch budget than the engine's.
        """
        jobs = []
        for image in images:
            budget, capacity = self._budget(image, max_num_patches)
            jobs.append(Job(Kind(self._images, (budget,), capacity), digest(image.content), image.content))
        return self._stack(await self.queue.results(jobs))

    async def embed_image_query(self, image: EncodedImage) -> np.ndarray:
        """Embed an image to search by, with the patch budget of the index: float32 (D,).

        Raises:
            ServiceError: The index is of another precision or kind of images, see [`ImageIndex.search`].
        """
        assert self.index is not None
        settings = self.index.settings
        if vector_kind({**settings, **self.embedder.describe_vectors()}) != vector_kind(settings):
            raise ServiceError(
                422,
                "image_not_comparable",
                "the index was made with another precision or kind of images than the service has: search by a text",
                "image",
            )
        return (await self.embed_images([image], settings["max_num_patches"]))[0]

    async def embed_regions(self, image: EncodedImage, boxes: list[list[float]], box_format: str) -> np.ndarray:
        """Embed regions of an image: float32 (boxes, D).

        Raises:
            ServiceError: There are too many boxes, or one can't be used.
        """
        if len(boxes) > self.limits.boxes:
            raise ServiceError(422, "too_many_boxes", f"an image may have at most {self.limits.boxes} boxes", "boxes")
        if box_format == "xywh":
            try:
                boxes = [corners_of_xywh(box, f"boxes[{number}]") for number, box in enumerate(boxes)]
            except ValueError as error:
                raise ServiceError(422, "box_not_usable", str(error), "boxes") from error
        budget, capacity = self._budget(image, None)
        key = digest(image.content), tuple(map(tuple, boxes))
        job = Job(Kind(self._regions, (budget,), capacity), key, (image.content, boxes))
        return (await self.queue.results([job]))[0]

    def _budget(self, image: EncodedImage, max_num_patches: int | str | None) -> tuple[int | None, int]:
        """Return the patch budget of an image, `None` where there are none, and how many such images a batch takes."""
        processor = self.embedder.processor
        if processor.patch_budgets is None:
            return None, self._batch_size
        budget: Any = max_num_patches or self._max_num_patches or processor.image_processor.max_num_patches
        if budget == "auto":
            budget = patch_budget(image.height, image.width, processor.image_processor.patch_size)
        return budget, max(1, self._batch_size * TOKENS_PER_BATCH_ITEM // budget)

    def _images(self, contents: list[bytes], budget: int | None) -> list[Any]:
        vectors, skipped = self.embedder.encode_images(
            contents, budget, self._batch_size, show_progress_bar=False, on_error="skip"
        )
        return _with_skipped(vectors, skipped)

    def _regions(self, images: list[tuple[bytes, list[list[float]]]], budget: int | None) -> list[Any]:
        contents, boxes = map(list, zip(*images, strict=True))
        vectors, skipped = self.embedder.encode_regions(
            contents, boxes, "xyxy", budget, self._batch_size, show_progress_bar=False, on_error="skip"
        )
        return _with_skipped(vectors, skipped)

    # -----------------------------------------------------------------------------------------------------------------
    # Texts
    # -----------------------------------------------------------------------------------------------------------------

    async def embed_texts(
        self, texts: Sequence[str], role: str = "auto", param: str = "input"
    ) -> tuple[np.ndarray, int]:
        """Embed texts.

        Returns:
            Float32 (N, D), and how many tokens the texts have in all.

        Raises:
            ServiceError: There are too many texts, one is too long, or the model has no such role.
        """
        if len(texts) > self.limits.texts:
            raise ServiceError(
                422,
                "too_many_texts",
                f"a request may have at most {self.limits.texts} texts, labels in all templates counted",
                param,
            )
        self._check_lengths(texts, param)
        roles = self.embedder.processor.text_roles
        if role not in ("auto", *roles):
            raise ServiceError(422, "role_not_known", f"role must be one of auto, {', '.join(roles)}", "role")
        keys = [(role, digest(text.encode())) for text in texts]
        kept = {key: self._texts.get(key) for key in keys}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if kept[key] is None}
        self.metrics.cache_misses.inc(len(missing))
        self.metrics.cache_hits.inc(len(keys) - len(missing))
        if missing:
            counts = await self.help(self.embedder.processor.count_tokens, list(missing.values()))
            kinds = [self._kind_of_text(role, count) for count in counts]
            jobs = [Job(kind, key[1], missing[key]) for kind, key in zip(kinds, missing, strict=True)]
            for key, count, vector in zip(missing, counts, await self.queue.results(jobs), strict=True):
                kept[key] = vector, count
                self._texts.put(key, (vector, count))
        found = [kept[key] for key in keys]
        return self._stack([vector for vector, _ in found]), sum(count for _, count in found)  # type: ignore[misc]

    async def embed_labels(self, labels: Sequence[str], templates: Sequence[str], role: str) -> np.ndarray:
        """Embed labels in templates, as the embedder's `encode_labels`: float32 (labels, D)."""
        if len(labels) * len(templates) > self.limits.texts:  # before they are all written out
            raise ServiceError(
                422,
                "too_many_texts",
                f"labels in all their templates may be at most {self.limits.texts} texts",
                "labels",
            )
        vectors, _ = await self.embed_texts(fill_templates(labels, templates), role, "labels")
        return average_templates(vectors, len(labels))

    async def label_probabilities(
        self, cosines: np.ndarray, labels: Sequence[str], templates: Sequence[str], role: str
    ) -> np.ndarray:
        """Return the probability that each label fits, see [`BaseEmbedder.match_probabilities`].

        Args:
            cosines: (images or regions, labels).
            labels: What they are compared with.
            templates: In which the labels were embedded; the language is that of the first.
            role: What they were embedded as.

        Returns:
            Float64 of the same shape; NaN where the calibration has no curve, or there is none.
        """
        texts = fill_templates(labels, templates[:1])
        return await self._probabilities(cosines, texts, role, self._max_num_patches, len(texts))

    async def _probabilities(
        self, cosines: np.ndarray, texts: Sequence[str], role: Any, budget: int | str | None, candidates: int
    ) -> np.ndarray:
        if self.embedder.calibration is None:
            return np.full(cosines.shape, np.nan)
        options: dict[str, Any] = {"role": role, "max_num_patches": budget, "candidates": candidates}
        return await self.help(partial(self.embedder.match_probabilities, cosines, texts, **options))

    def _check_lengths(self, texts: Sequence[str], param: str) -> None:
        if any(len(text) > self.limits.text_characters for text in texts):
            raise ServiceError(
                422, "text_too_long", f"a text may have at most {self.limits.text_characters} characters", param
            )

    def _kind_of_text(self, role: str, tokens: int) -> Kind:
        """Return the kind of a text: by `"auto"` it takes the head that [`BaseEmbedder.encode_texts`] gives it."""
        processor = self.embedder.processor
        if role == "auto":
            is_long = tokens > processor.max_caption_tokens and "long_caption" in processor.text_roles
            role = "long_caption" if is_long else "caption"
        capacity = self._batch_size * TOKENS_PER_BATCH_ITEM // processor.text_length(role)
        return Kind(self._text_vectors, (role,), max(1, capacity))

    def _text_vectors(self, texts: list[str], role: str) -> list[np.ndarray]:
        encode: Callable[..., np.ndarray] = self.embedder.encode_texts
        return list(encode(texts, role=role, batch_size=self._batch_size, show_progress_bar=False))

    # -----------------------------------------------------------------------------------------------------------------
    # Search
    # -----------------------------------------------------------------------------------------------------------------

    async def search(
        self, vector: np.ndarray, top_k: int, where: str | None = None, text: str | None = None
    ) -> list[Any]:
        """Return the images of the index that are nearest to a vector, see [`ImageIndex.search`].

        Args:
            vector: (D,).
            top_k, where: As there.
            text: What the vector is of; with it hits have the probability that they match, where there is a curve.
        """
        job = Job(Kind(self._nearest, (top_k, where), SEARCHES_AT_ONCE), digest(vector.tobytes()), vector)
        hits = await self._hits(job, where, admitted=True)
        if text is None or not hits:
            return hits
        assert self.index is not None
        budget, cosines = self.index.settings["max_num_patches"], np.array([[hit.score] for hit in hits])  # (hits, 1)
        found = await self._probabilities(cosines, [text], "auto", budget, len(self.index))
        return [
            hit if np.isnan(its) else hit._replace(probability=float(its))
            for hit, its in zip(hits, found[:, 0], strict=True)
        ]

    async def search_again(
        self, text: str, top_k: int, rerank: str, candidates: int, where: str | None = None
    ) -> list[Any]:
        """Return the images of the index that are nearest to a text after re-ranking, see [`ImageIndex.search`].

        Raises:
            ServiceError: The text is too long, or the filter can't be used.
        """
        self._check_lengths([text], "query")
        job = Job(Kind(self._reranked, (top_k, rerank, candidates, where), SEARCHES_AT_ONCE), text, text)
        return await self._hits(job, where, admitted=False)

    async def _hits(self, job: Job, where: str | None, admitted: bool) -> list[Any]:
        try:
            return (await self.queue.results([job], admitted))[0]
        except FilterError as error:
            raise ServiceError(422, "filter_not_usable", str(error), "where") from error
        except ImportError as error:  # DuckDB is not installed
            if where is None:
                raise
            raise ServiceError(422, "filter_not_usable", str(error), "where") from error

    def _nearest(self, vectors: list[np.ndarray], top_k: int, where: str | None) -> list[Any]:
        assert self.index is not None
        return self.index.search(vectors, top_k=top_k, where=where)

    def _reranked(self, texts: list[str], top_k: int, rerank: Any, candidates: int, where: str | None) -> list[Any]:
        assert self.index is not None
        embedder: Any = self.embedder
        return self.index.search(
            texts, embedder, top_k, rerank=rerank, candidates=candidates, batch_size=self._batch_size, where=where
        )

    # -----------------------------------------------------------------------------------------------------------------
    # How it runs
    # -----------------------------------------------------------------------------------------------------------------

    async def help(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Run what takes some time, but no model, in a thread that no model keeps busy."""
        return await asyncio.get_running_loop().run_in_executor(self._helpers, partial(function, *arguments))

    def _stack(self, vectors: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(vectors) if len(vectors) else np.zeros((0, self.embedder.embedding_size), np.float32)


def digest(content: bytes) -> bytes:
    """Return a hash that stands for content: a key of a cache need not keep what its user sent."""
    return hashlib.blake2b(content, digest_size=32).digest()


def _with_skipped(vectors: Any, skipped: Sequence[Skipped]) -> list[Any]:
    """Put errors where inputs were skipped."""
    results = list(vectors)
    for index, reason in skipped:  # in order
        if reason.startswith("boxes["):  # and then the number of the image in the batch, which its client can't know
            error = ServiceError(422, "box_not_usable", f"boxes{reason.partition(']')[2]}", "boxes")
        else:
            error = unreadable()
        results.insert(index, error)
    return results
