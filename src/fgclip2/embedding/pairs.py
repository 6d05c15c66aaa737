"""PairEmbedder: any two functions as an embedder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, overload

import numpy as np
import torch
from PIL import Image

from ..errors import UnreadableImageError
from ..streams import bounded_map, chunks
from .backends.torch import unit_vectors
from .embedder import VectorResult
from .inputs import ImageInput, Skipped, load_input

ONE_HEAD = ("walk_type", "lower_case")  # settings that mean nothing to models of one text head
_LOADING_THREADS = 4


class PairEmbedder:
    """Any two functions as an embedder of images and texts, for the benchmarks among others.

    Args:
        image_function: Takes RGB PIL images and a patch budget (which models of one size ignore), returns (N, D).
        text_function: Takes texts, returns (N, D).
        name, revision, fingerprint: See `fgclip2.benchmarks.models.BenchmarkModel`.
        model: The module behind them, if there is one: results name its device and dtype.
        batch_size: Images or texts of a call.
        configuration: Tells its preprocessing from others, for what is kept on disk.
        tokenizer, text_length: Of transformers, and how many tokens it takes: results say how many texts are longer.
        ignored_settings: Settings of a benchmark that mean nothing to it; results say so.

    Example:
        >>> model = PairEmbedder(lambda images, max_num_patches: encode(images), lambda texts: embed(texts), "mine")
    """

    def __init__(
        self,
        image_function: Callable[[list[Image.Image], int | str | None], Any],
        text_function: Callable[[list[str]], Any],
        name: str,
        revision: str | None = None,
        fingerprint: str | None = None,
        model: torch.nn.Module | None = None,
        batch_size: int = 32,
        configuration: str | None = None,
        tokenizer: Any = None,
        text_length: int | None = None,
        ignored_settings: tuple[str, ...] = ONE_HEAD,
    ):
        self.image_function, self.text_function = image_function, text_function
        self.name, self.revision, self.fingerprint = name, revision, fingerprint
        self.model, self.batch_size, self.configuration = model, batch_size, configuration
        self.tokenizer, self.text_length, self.ignored_settings = tokenizer, text_length, ignored_settings

    @overload
    def encode_images(
        self,
        images: Iterable[ImageInput],
        max_num_patches: int | str | None = None,
        *,
        on_error: Literal["raise"] = "raise",
        show_progress_bar: bool | None = None,
    ) -> np.ndarray: ...

    @overload
    def encode_images(
        self,
        images: Iterable[ImageInput],
        max_num_patches: int | str | None = None,
        *,
        on_error: Literal["skip"],
        show_progress_bar: bool | None = None,
    ) -> tuple[np.ndarray, list[Skipped]]: ...

    @overload
    def encode_images(
        self,
        images: Iterable[ImageInput],
        max_num_patches: int | str | None = None,
        *,
        on_error: str = "raise",
        show_progress_bar: bool | None = None,
    ) -> VectorResult: ...

    def encode_images(
        self,
        images: Iterable[ImageInput],
        max_num_patches: int | str | None = None,
        *,
        on_error: str = "raise",
        show_progress_bar: bool | None = None,
    ) -> VectorResult:
        """Embed images; see `fgclip2.benchmarks.models.BenchmarkModel`. There is no progress bar.

        Raises:
            UnreadableImageError: An image can't be read, and `on_error` is `"raise"`.
        """
        skipped: list[Skipped] = []

        def load(item: tuple[int, ImageInput]) -> Image.Image | Skipped:
            try:
                return load_input(*item)
            except UnreadableImageError as error:
                if on_error == "raise":
                    raise
                return Skipped(item[0], str(error))

        def readable() -> Iterator[Image.Image]:
            for image in bounded_map(load, enumerate(images), _LOADING_THREADS, self.batch_size):
                if isinstance(image, Skipped):
                    skipped.append(image)
                else:
                    yield image

        vectors = self._in_batches(lambda batch: self.image_function(batch, max_num_patches), readable())
        return (vectors, skipped) if on_error == "skip" else vectors

    def encode_texts(
        self, texts: Sequence[str], walk_type: str = "auto", *, show_progress_bar: bool | None = None
    ) -> np.ndarray:
        """Embed texts; these models have one text head, so `walk_type` means nothing."""
        return self._in_batches(self.text_function, texts)

    def _in_batches(self, function: Callable[[list], Any], items: Iterable) -> np.ndarray:
        vectors = [unit_vectors(torch.as_tensor(function(batch))) for batch in chunks(items, self.batch_size)]
        return np.concatenate(vectors) if vectors else np.zeros((0, 0), np.float32)
