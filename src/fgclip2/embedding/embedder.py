"""BaseEmbedder: images, regions and texts in, L2-normalised numpy vectors out, whatever runs the model.

Here images are read and batched, roles of texts chosen, and vectors turned into scores. What runs the model is added by
a subclass: [`Embedder`] by torch, `OnnxEmbedder` of the distribution fgclip2-onnx by onnxruntime. That distribution
carries this file and all that it imports, which therefore import neither torch nor transformers.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from functools import partial
from itertools import chain
from operator import itemgetter
from queue import SimpleQueue
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, overload

import numpy as np

from ..calibration.curves import even_prevalence
from ..calibration.stored import Calibration
from ..checks import check_choice, check_number, check_positive_integer
from ..errors import UnreadableImageError
from ..languages import detect_language
from ..modeling.inputs import MAX_PIXELS, DoubtfulBoxes, check_max_num_patches, check_text, is_image
from ..modeling.interface import Role
from ..streams import batches_of_a_kind, bounded_map, chunks
from .inputs import Boxes, BoxesOrRule, ImageInput, ImageRecord, Skipped, as_many, check_texts_of_images, prepare_image
from .labels import average_templates, fill_templates, normalised, softmax
from .phrases import Splitter, split_phrases
from .reranker import RERANKERS, DenseMap, ImageWindows, PairScores, RerankedHit, rerank, rerank_by_model

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Output = TypeVar("Output")  # for each image or text

# What methods return for any `on_error`.
VectorResult = np.ndarray | tuple[np.ndarray, list[Skipped]]
RerankedResult = list[RerankedHit] | tuple[list[RerankedHit], list[Skipped]]
ListResult = np.ndarray | list[np.ndarray] | tuple[np.ndarray | list[np.ndarray], list[Skipped]]

# A batch holds as many tokens (patches or text tokens) as `batch_size` images of this many patches.
TOKENS_PER_BATCH_ITEM = 256
TEXTS_PER_TOKENIZER_CALL = 1024
MAX_LOADING_THREADS = 8
NOT_FINITE = "the model gave values that are not finite: its dtype may be too narrow, try 'float32' ('fp32' of graphs)"


class EncodedImage(NamedTuple):
    """What one pass over an image gives.

    Attributes:
        vector: Of the whole image, float32 (D,), L2-normalised.
        image_size: (height, width) of the upright image in pixels.
        boxes: Of its regions, float32 (R, 4), (x1, y1, x2, y2) in pixels.
        regions: The vectors of its regions, float32 (R, D), L2-normalised.
        dense_map: Its dense map, where that was asked for.
    """

    vector: np.ndarray
    image_size: tuple[int, int] | None = None
    boxes: np.ndarray | None = None
    regions: np.ndarray | None = None
    dense_map: DenseMap | None = None


class BaseEmbedder:
    """Embed images, regions and texts, compare them, label images and regions.

    Inputs are paths, PIL images, arrays or encoded images (`bytes`), alone or in any iterable; long iterables are read
    as the work proceeds. Vectors are float32 numpy arrays, L2-normalised, in the order of the inputs; a vector does not
    depend on what else was encoded with it (within 1e-5 in float32). A single input gives a result without the first
    axis, an empty list one of shape (0, D).

    Texts have **roles**: a `"caption"` (short) or a `"long_caption"` compares with images, a `"region_phrase"` with
    regions and patches. A family may lack one of them, regions or patch budgets; errors say so.

    Arguments that several methods share:
        max_num_patches: Patch budget of each image: `"auto"` (by its own size), an integer, or `None` for the
            processor's setting.
        batch_size: Images of 256 patches per forward pass; other images and texts come in batches of as many tokens.
        show_progress_bar: `None` shows one on a terminal from 256 inputs on.
        on_error: `"raise"` an [`UnreadableImageError`] that names the image, or `"skip"` it: then the method returns a
            pair, the result without the inputs that could not be used, and a list of [`Skipped`] (index, reason).

    A subclass sets `processor`, `replicas` (the model and its copies that share the work), `name` and `fingerprint` of
    the checkpoint, `title` and `lacks`. It runs
    the replicas in the methods `_image_vectors`, `_region_vectors`, `_heat_maps`, `_vectors_and_maps`, `_pair_scores`
    and `_text_vectors`.

    Attributes:
        title: The name of the family, as people write it.
        calibration: What [`use_calibration`] was given, or what lies beside the weights; `None`: there is none.
        prevalence: Share of matches among the pairs that [`match_probabilities`] is asked about; `None`: a neutral one.
        lacks: What it can't give, of "images", "regions", "dense features" and "pair scores" -> what it has instead,
            for errors, e.g. "no regions, it embeds whole images".
        max_pixels: Files of more pixels are unreadable images, refused before they are decoded. Decoding takes up to
            12 bytes a pixel in most formats; set it to what your memory allows.
    """

    processor: Any
    replicas: list[Any]
    name: str
    fingerprint: str
    title: str
    lacks: dict[str, str]
    score_scale_and_bias: tuple[float, float]
    calibration: Calibration | None = None
    prevalence: float | None = None
    max_pixels: int = MAX_PIXELS
    out_of_memory: ClassVar[type[BaseException]] = MemoryError  # after which a batch is taken in halves

    @property
    def model(self) -> Any:
        """The model, or the first of its copies."""
        return self.replicas[0]

    @property
    def embedding_size(self) -> int:
        """Length D of the vectors."""
        return self.model.embedding_size

    # -----------------------------------------------------------------------------------------------------------------
    # Encoding
    # -----------------------------------------------------------------------------------------------------------------

    @overload
    def encode_images(
        self,
        images: ImageInput | Iterable[ImageInput],
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> np.ndarray: ...

    @overload
    def encode_images(
        self,
        images: ImageInput | Iterable[ImageInput],
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        *,
        on_error: Literal["skip"],
    ) -> tuple[np.ndarray, list[Skipped]]: ...

    @overload
    def encode_images(
        self,
        images: ImageInput | Iterable[ImageInput],
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> VectorResult: ...

    def encode_images(
        self,
        images: ImageInput | Iterable[ImageInput],
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> VectorResult:
        """Embed images; compare with images and with captions.

        Args:
            images: One image or an iterable of them; arrays as [`load_image`] takes them.
            max_num_patches, batch_size, show_progress_bar, on_error: See the class.

        Returns:
            Float32 (N, D), or (D,) for a single image; with `on_error="skip"` a pair (see the class).

        Raises:
            UnreadableImageError: An image can't be read.
        """
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error)
        return self._encode(self._image_vectors, images, None, options, self._stack)

    def stream_images(
        self,
        images: Iterable[ImageInput],
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> Iterator[tuple[int, np.ndarray | Skipped]]:
        """Embed images as [`encode_images`] does, for runs too long to hold in memory or to lose.

        Yields:
            (index, vector (D,)) as soon as they are done, so not in order; with `on_error="skip"` also
            (index, [`Skipped`]), at the end.
        """
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error)
        return self._stream(self._image_vectors, images, None, options)

    @overload
    def encode_regions(
        self,
        images: ImageInput,
        boxes: Boxes,
        box_format: str = "xyxy",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> np.ndarray: ...

    @overload
    def encode_regions(
        self,
        images: Iterable[ImageInput],
        boxes: Iterable[Boxes],
        box_format: str = "xyxy",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> list[np.ndarray]: ...

    @overload
    def encode_regions(
        self,
        images: Iterable[ImageInput],
        boxes: Iterable[Boxes],
        box_format: str = "xyxy",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        *,
        on_error: Literal["skip"],
    ) -> tuple[list[np.ndarray], list[Skipped]]: ...

    @overload
    def encode_regions(
        self,
        images: ImageInput | Iterable[ImageInput],
        boxes: Boxes | Iterable[Boxes],
        box_format: str = "xyxy",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> ListResult: ...

    def encode_regions(
        self,
        images: ImageInput | Iterable[ImageInput],
        boxes: Boxes | Iterable[Boxes],
        box_format: str = "xyxy",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> ListResult:
        """Embed regions; compare with region phrases only. Each image runs through the model once.

        Args:
            images: One image or an iterable of them.
            boxes: For each image its boxes in pixels of the upright image, maybe none; for a single image its boxes. A
                score behind the four numbers of a box is left out. Detections that have their corners as `xyxy`, such
                as `supervision.Detections`, stand for the boxes of an image.
            box_format: `"xyxy"` (x1, y1, x2, y2) or `"xywh"` (x, y, width, height).
            max_num_patches, batch_size, show_progress_bar, on_error: See the class; an image with a wrong box is
                skipped too.

        Returns:
            List of float32 (R_i, D), one per image; for a single image (R, D).

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: A box is not finite, inverted, of no area or outside its image, or the family has no regions.
        """
        if "regions" in self.lacks:
            raise self._lack("regions")
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error, box_format)
        several = [boxes] if is_image(images) else boxes
        return self._encode(self._region_vectors, images, several, options)

    def encode_texts(
        self,
        texts: str | Iterable[str],
        *,
        role: Role | Literal["auto"] = "auto",
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
    ) -> np.ndarray:
        """Embed texts.

        Args:
            texts: One text or an iterable of them.
            role: What the texts are to the model: `"caption"` or `"long_caption"` to compare with images,
                `"region_phrase"` to compare with regions and patches; `"auto"`: for each text `"caption"` up to the
                processor's `max_caption_tokens` (all that fit, unless the checkpoint says less), else `"long_caption"`
                where the family has it. What doesn't fit is cut, with a warning.
            batch_size, show_progress_bar: See the class.

        Returns:
            Float32 (N, D), or (D,) for a single text.

        Raises:
            ValueError: A text is no string or has no UTF-8 form, or the role is unknown.
        """
        limits = self._role_limits(role)
        check_positive_integer("batch_size", batch_size)
        several: Iterable[str] = [texts] if isinstance(texts, str) else texts
        if not isinstance(several, Iterable):
            raise ValueError(f"texts must be a string or an iterable of strings, got {type(texts).__name__}")
        batches = batches_of_a_kind(
            self._choose_roles(several, limits),
            lambda text: text.role,
            lambda name: max(1, batch_size * TOKENS_PER_BATCH_ITEM // self.processor.text_length(name)),
            len(several) if isinstance(several, Sized) else None,
            show_progress_bar,
            "text",
        )
        results: dict[int, np.ndarray] = {}
        outputs: Iterable[tuple[list[RoleText], Iterable[np.ndarray] | None]]
        if len(self.replicas) == 1:
            outputs = ((batch, None) for batch in batches)
        else:
            outputs = self._on_replicas(self._text_vectors, batches)
        for batch, vectors in outputs:
            if vectors is None:
                with suppress(self.out_of_memory):
                    vectors = self._text_vectors(self.model, batch)
            if vectors is None:
                batch_size = max(1, batch_size // 2)
                vectors = _in_halves(self._text_vectors, self.model, batch)
            for text, vector in zip(batch, vectors, strict=True):
                if not np.isfinite(vector).all():
                    raise RuntimeError(f"texts[{text.index}]: {NOT_FINITE}")
            results.update(zip((text.index for text in batch), vectors, strict=True))
        vectors = self._stack([results[index] for index in sorted(results)])
        return vectors[0] if isinstance(texts, str) else vectors

    def encode_labels(
        self,
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        *,
        role: Role | Literal["auto"] = "auto",
    ) -> np.ndarray:
        """Embed labels in templates; a label's vector is the mean over templates.

        Args:
            labels: Names or descriptions.
            templates: One or several texts with `{}` for the label, e.g. `"a photo of {}"`, `"一张{}的照片"`.
            role: As in [`encode_texts`]; `"region_phrase"` to compare with regions and patches.

        Returns:
            Float32 (labels, D), L2-normalised.

        Raises:
            ValueError: There are no labels, or a template has no `{}`.
        """
        if isinstance(labels, str) or not len(labels):
            raise ValueError(f"labels must be a list of at least one label, got {labels!r}")
        templates = [templates] if isinstance(templates, str) else list(templates)
        labels = [check_text(f"labels[{index}]", label) for index, label in enumerate(labels)]
        templates = [check_text(f"templates[{index}]", template) for index, template in enumerate(templates)]
        if not templates or not all("{}" in template for template in templates):
            raise ValueError(f"templates must be texts with {{}} where the label goes, got {templates!r}")
        vectors = self.encode_texts(fill_templates(labels, templates), role=role, show_progress_bar=False)
        return average_templates(vectors, len(labels))

    # -----------------------------------------------------------------------------------------------------------------
    # Comparing
    # -----------------------------------------------------------------------------------------------------------------

    @staticmethod
    def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the cosine of every vector of `a` with every vector of `b`; a zero vector gives 0, never NaN.

        Args:
            a: Shape (N, D) or (D,).
            b: Shape (M, D) or (D,).

        Returns:
            Float32 (N, M), without the axis of an input that was a single vector.

        Raises:
            ValueError: The shapes don't fit.
        """
        for name, vectors in (("a", a), ("b", b)):
            if not isinstance(vectors, np.ndarray) or vectors.ndim not in (1, 2):
                described = f"shape {vectors.shape}" if isinstance(vectors, np.ndarray) else type(vectors).__name__
                raise ValueError(
                    f"`{name}` must be an array (N, D) or (D,), e.g. one of the arrays that encode_regions returns, "
                    f"got {described}"
                )
        if a.shape[-1] != b.shape[-1]:
            raise ValueError(f"a has vectors of length {a.shape[-1]}, b of length {b.shape[-1]}")
        return normalised(a) @ normalised(b).T

    def probabilities(self, similarity: np.ndarray) -> np.ndarray:
        """Turn cosines of images and texts into the model's probabilities that they belong together.

        Args:
            similarity: Shape (..., texts).

        Returns:
            Float32 of the same shape: `score_function(scale * similarity + bias)` of the family. With a sigmoid each
            pair is judged by itself, and the probabilities of several texts need not sum to 1; with a softmax they do.
        """
        scale, bias = self.score_scale_and_bias
        logits = scale * np.asarray(similarity, dtype=np.float64) + bias
        if self.model.score_function == "softmax":
            return softmax(logits).astype(np.float32)
        return (0.5 * (1 + np.tanh(logits / 2))).astype(np.float32)

    def use_calibration(self, calibration: Calibration | str | os.PathLike) -> None:
        """Take the probabilities of [`match_probabilities`] from a calibration of this checkpoint.

        Args:
            calibration: A [`Calibration`], or the path of one, as `fgclip2 calibrate` writes it.

        Raises:
            OSError: There is no such file.
            ValueError: The file is damaged, or the calibration of another checkpoint.
        """
        if not isinstance(calibration, Calibration):
            calibration = Calibration.load(calibration)
        calibration.require_model(self.fingerprint, self.name)
        self.calibration = calibration

    def _take_calibration_beside(self, file: str | os.PathLike, is_exact: bool = True) -> None:
        """Use the calibration that lies beside the weights; one of other weights, or another file, is told of.

        Args:
            file: The file.
            is_exact: Whether the vectors are those of the weights within rounding; a calibration of these says nothing
                certain of others, and is told of, too.
        """
        try:
            if not is_exact:
                raise ValueError(
                    "it is of vectors in fp32 and of images in their own shape, which these graphs don't give; where "
                    "you know that it holds for them, give it to use_calibration"
                )
            self.use_calibration(file)
        except ValueError as error:
            logger.warning("%s is not used: %s", file, error)

    def match_probabilities(
        self,
        similarity: np.ndarray,
        texts: Sequence[str],
        *,
        role: Role | Literal["auto"] = "auto",
        max_num_patches: int | str | None = None,
        candidates: int = 1,
    ) -> np.ndarray:
        """Turn cosines into calibrated probabilities that image, or region, and text match, each pair by itself.

        The curve is that of each text's head and language, and of the patch budget. Unlike [`probabilities`], it was
        fitted on labelled pairs, and holds for pairs like these.

        A probability depends on how many matches are expected: few of the images of a folder match a query. Where
        `prevalence` is not set, each of the candidates is taken to be as likely a match as that none of them is one.

        Args:
            similarity: Shape (..., texts), of [`similarity`].
            texts: The texts; of labels, each in its template.
            role: What the texts were encoded as.
            max_num_patches: What the images were encoded with.
            candidates: How many images a text is compared with, or labels an image or region is. Without `prevalence`,
                one match in `candidates + 1` is expected.

        Returns:
            Float64 of the same shape; NaN for texts whose head, language or budget the calibration lacks.

        Raises:
            ValueError: There is no calibration, the shapes don't fit, `candidates` is below 1, or `prevalence` is set
                and not above 0 and below 1.
        """
        check_positive_integer("candidates", candidates)
        if self.calibration is None:
            raise ValueError(
                f"there is no calibration of {self.name!r}: make one with `fgclip2 calibrate`, and give it to "
                "use_calibration (--calibration)"
            )
        if not np.ndim(similarity) or np.shape(similarity)[-1] != len(texts):
            raise ValueError(f"similarity must have the shape (..., {len(texts)}), got {np.shape(similarity)}")
        roles, languages = self.roles_of(texts, role), [detect_language(text) for text in texts]
        prevalence = even_prevalence(candidates) if self.prevalence is None else self.prevalence
        budget = self.budget_of(max_num_patches)
        return self.calibration.probabilities(similarity, roles, languages, budget, prevalence)

    def roles_of(self, texts: Iterable[str], role: Role | Literal["auto"] = "auto") -> list[str]:
        """Return the role that [`encode_texts`] gives each text."""
        limits = self._role_limits(role)
        return [_role_of_length(count, limits) for count in self.processor.count_tokens(list(texts))]

    def budget_of(self, max_num_patches: int | str | None = None) -> int | str | None:
        """Return the patch budget that images get, which for `None` is the processor's; `None`: the family has none."""
        if max_num_patches is None and self.processor.patch_budgets is not None:
            return self.processor.image_processor.max_num_patches
        return max_num_patches

    def region_shares(self, similarity: np.ndarray) -> np.ndarray:
        """Turn cosines of regions and phrases into the share of each phrase among those given.

        Shares say which phrase fits best, and not whether it fits: of phrases that are all wrong, one still has most.
        Whether it fits, the cosine itself says.

        Args:
            similarity: Shape (..., phrases).

        Returns:
            Float32 of the same shape: a softmax of the cosines times the model's `region_logit_scale`.
        """
        return softmax(self.model.region_logit_scale * similarity)

    @overload
    def classify(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        *,
        role: Role | Literal["auto"] = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> np.ndarray: ...

    @overload
    def classify(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        *,
        role: Role | Literal["auto"] = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: Literal["skip"],
    ) -> tuple[np.ndarray, list[Skipped]]: ...

    @overload
    def classify(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        *,
        role: Role | Literal["auto"] = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> VectorResult: ...

    def classify(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        *,
        role: Role | Literal["auto"] = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> VectorResult:
        """Score images against labels.

        Args:
            images: One image or an iterable of them.
            labels: Names or descriptions.
            templates: One or several texts with `{}` for the label, e.g. `"a photo of {}"`, `"一张{}的照片"`; a
                label's vector is the mean over templates.
            role: As in [`encode_texts`], but not `"region_phrase"`, which compares with regions.
            max_num_patches, batch_size, show_progress_bar, on_error: See the class.

        Returns:
            Float32 (N, labels), or (labels,) for a single image: [`probabilities`].

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: There are no labels, a template has no `{}`, or the role is `"region_phrase"`.
        """
        if role == "region_phrase":
            raise ValueError("region phrases compare with regions, not with images: use classify_regions")
        label_vectors = self.encode_labels(labels, templates, role=role)
        encoded: Any = self.encode_images(images, max_num_patches, batch_size, show_progress_bar, on_error)
        vectors, skipped = encoded if isinstance(encoded, tuple) else (encoded, None)
        scores = self.probabilities(self.similarity(vectors, label_vectors))
        return scores if skipped is None else (scores, skipped)

    @overload
    def classify_regions(
        self,
        images: ImageInput,
        boxes: Boxes,
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        box_format: str = "xyxy",
        *,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> np.ndarray: ...

    @overload
    def classify_regions(
        self,
        images: Iterable[ImageInput],
        boxes: Iterable[Boxes],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        box_format: str = "xyxy",
        *,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> list[np.ndarray]: ...

    @overload
    def classify_regions(
        self,
        images: Iterable[ImageInput],
        boxes: Iterable[Boxes],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        box_format: str = "xyxy",
        *,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: Literal["skip"],
    ) -> tuple[list[np.ndarray], list[Skipped]]: ...

    @overload
    def classify_regions(
        self,
        images: ImageInput | Iterable[ImageInput],
        boxes: Boxes | Iterable[Boxes],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        box_format: str = "xyxy",
        *,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> ListResult: ...

    def classify_regions(
        self,
        images: ImageInput | Iterable[ImageInput],
        boxes: Boxes | Iterable[Boxes],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        box_format: str = "xyxy",
        *,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> ListResult:
        """Score regions against labels, as region phrases.

        Args:
            images, boxes, box_format: As in [`encode_regions`].
            labels, templates: As in [`classify`].
            max_num_patches, batch_size, show_progress_bar, on_error: See the class.

        Returns:
            List of float32 (R_i, labels), one per image; for a single image (R, labels). Each row has the
            [`region_shares`] of the labels and sums to 1.

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: A box or the labels can't be used, or the family has no regions.
        """
        if "regions" in self.lacks:
            raise self._lack("regions")
        label_vectors = self.encode_labels(labels, templates, role="region_phrase")
        encoded = self.encode_regions(
            images, boxes, box_format, max_num_patches, batch_size, show_progress_bar, on_error
        )
        regions: Any
        regions, skipped = encoded if isinstance(encoded, tuple) else (encoded, None)
        scores = [
            self.region_shares(self.similarity(vectors, label_vectors))  # (R_i, labels)
            for vectors in ([regions] if is_image(images) else regions)
        ]
        result = scores[0] if is_image(images) else scores
        return result if skipped is None else (result, skipped)

    @overload
    def heatmap(  # type: ignore[overload-overlap]  # a string is a path here, not an iterable
        self,
        image: ImageInput,
        text: str | Sequence[str],
        resize: bool = True,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> np.ndarray: ...

    @overload
    def heatmap(
        self,
        image: Iterable[ImageInput],
        text: str | Sequence[str],
        resize: bool = True,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> list[np.ndarray]: ...

    @overload
    def heatmap(
        self,
        image: Iterable[ImageInput],
        text: str | Sequence[str],
        resize: bool = True,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        *,
        on_error: Literal["skip"],
    ) -> tuple[list[np.ndarray], list[Skipped]]: ...

    @overload
    def heatmap(
        self,
        image: ImageInput | Iterable[ImageInput],
        text: str | Sequence[str],
        resize: bool = True,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> ListResult: ...

    def heatmap(
        self,
        image: ImageInput | Iterable[ImageInput],
        text: str | Sequence[str],
        resize: bool = True,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> ListResult:
        """Show where in an image a text applies: the cosines of the dense features with the text, a region phrase.

        Args:
            image: One image or an iterable of them.
            text: A text, or several for one map each.
            resize: Interpolate to the size of the upright image in pixels; else the grid of patches is returned.
            max_num_patches: More patches give a finer map, up to 16384; `"auto"` or `None` as in the class.
            batch_size, show_progress_bar, on_error: See the class.

        Returns:
            For a single image float32 (height, width), for several texts (texts, height, width); for an iterable of
            images a list of these. Values are cosines; [`fgclip2.visualization.overlay_heatmap`] makes a picture.

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: There is no text, or the family has no dense features.
        """
        if not isinstance(text, (str, Iterable)):
            raise ValueError(f"text must be a string or an iterable of strings, got {type(text).__name__}")
        texts = [text] if isinstance(text, str) else list(text)
        if not texts:
            raise ValueError("text is an empty list; pass at least one text")
        self.require_dense_features()
        vectors = self.encode_texts(texts, role="region_phrase", batch_size=batch_size, show_progress_bar=False)
        forward = partial(self._heat_maps, text_vectors=vectors, resize=resize, first_only=isinstance(text, str))
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error)
        return self._encode(forward, image, None, options)

    def stream_heatmaps(
        self,
        images: Iterable[ImageInput],
        vectors: np.ndarray,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> Iterator[tuple[int, np.ndarray | Skipped]]:
        """Compare dense features with vectors that are there already, such as those of labels in templates.

        Args:
            images: An iterable of images.
            vectors: Float32 (M, D), L2-normalised, of region phrases.
            max_num_patches, batch_size, show_progress_bar, on_error: See the class.

        Yields:
            (index, float32 (M, height, width)), the cosines on the grid of patches, as soon as they are done, so not in
            order; with `on_error="skip"` also (index, [`Skipped`]), at the end.

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: The vectors don't fit the model, or the family has no dense features.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.embedding_size:
            raise ValueError(f"vectors must be (M, {self.embedding_size}), got {vectors.shape}")
        self.require_dense_features()
        forward = partial(self._heat_maps, text_vectors=vectors, resize=False, first_only=False)
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error)
        return self._stream(forward, images, None, options)

    @overload
    def rerank(
        self,
        query: str,
        images: Iterable[ImageInput],
        *,
        by: Literal["phrases", "model"] = "phrases",
        role: Role | Literal["auto"] = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        split: Splitter = split_phrases,
        weight: float | None = None,
        on_error: Literal["raise"] = "raise",
    ) -> list[RerankedHit]: ...

    @overload
    def rerank(
        self,
        query: str,
        images: Iterable[ImageInput],
        *,
        by: Literal["phrases", "model"] = "phrases",
        role: Role | Literal["auto"] = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        split: Splitter = split_phrases,
        weight: float | None = None,
        on_error: Literal["skip"],
    ) -> tuple[list[RerankedHit], list[Skipped]]: ...

    @overload
    def rerank(
        self,
        query: str,
        images: Iterable[ImageInput],
        *,
        by: Literal["phrases", "model"] = "phrases",
        role: Role | Literal["auto"] = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        split: Splitter = split_phrases,
        weight: float | None = None,
        on_error: str = "raise",
    ) -> RerankedResult: ...

    def rerank(
        self,
        query: str,
        images: Iterable[ImageInput],
        *,
        by: Literal["phrases", "model"] = "phrases",
        role: Role | Literal["auto"] = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        split: Splitter = split_phrases,
        weight: float | None = None,
        on_error: str = "raise",
    ) -> RerankedResult:
        """Order images by a query: by its phrases and parts of the images, or by the model's scores of the pairs.

        Args:
            query: A text that describes an image, in Chinese or English.
            images: The candidates, such as the first hits of a search.
            by: `"phrases"`: the cosine of the query with the whole image, and that of each of its phrases with the part
                that fits it best. `"model"`: the ranking stage that the model was trained with, such as R2D2's cross
                encoders.
            role: As in [`encode_texts`], of the whole query, so not `"region_phrase"`, which its phrases have.
            max_num_patches, batch_size, show_progress_bar, on_error: See the class.
            split: By phrases only: makes them of the query; any function that takes a text and returns a list of texts.
            weight: By phrases only: weight of the mean of their cosines, e.g. of
                [`fgclip2.embedding.reranker.fit_weight`]; `None`: by the spread of the candidates' scores, see
                [`fgclip2.embedding.reranker.spread_weight`].

        Returns:
            A [`RerankedHit`] for each image, best first: `index`, `score` (the cosine), `reranked`, and `phrases` with
            the text, box in pixels and cosine of each phrase, which is empty by the model; with `on_error="skip"` a
            pair (see the class).

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: The query is no text or a blank one, `images` is a single image, the weight is negative or not
                finite, the role is `"region_phrase"`, `split` is no function, or one of the two is given and `by` is
                `"model"`; or the family has no dense features, or the model does not score pairs.
        """
        self.require_reranking(by)
        if is_image(images):
            raise ValueError("images must be an iterable of the candidates, got a single image: pass [image]")
        if role == "region_phrase":
            raise ValueError("a query compares with images; only its phrases compare with regions: leave out role")
        if by == "model" and (split is not split_phrases or weight is not None):
            raise ValueError("split and weight are of phrases, which by='model' has none of: leave them out")
        if weight is not None:
            check_number("weight", weight, 0)
        query = check_text("query", query)
        if not query.strip():
            raise ValueError(f"query must be a text that is not blank, got {query!r}")
        options = {
            "max_num_patches": max_num_patches,
            "batch_size": batch_size,
            "show_progress_bar": show_progress_bar,
            "on_error": on_error,
        }
        if by == "model":
            hits, skipped = rerank_by_model(self, query, list(images), role, **options)
        else:
            hits, skipped = rerank(self, query, list(images), role, split, weight, **options)
        return (hits, skipped) if on_error == "skip" else hits

    def stream_pair_scores(
        self,
        images: Iterable[ImageInput],
        texts: Sequence[Sequence[str]],
        *,
        score: str = "rank",
        role: Role | Literal["auto"] = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> Iterator[tuple[int, PairScores | Skipped]]:
        """Compare images with texts pair by pair, by the ranking stage of a model that has one.

        Each image runs through its tower once. Its tokens stay in memory until its texts are scored, so that memory
        does not grow with the number of images or pairs.

        Args:
            images: An iterable of images.
            texts: For each image the texts that it is compared with.
            score: `"rank"`: what orders the candidates of a query, R2D2's match probability plus cosine; `"match"`: the
                probability alone that both match, from 0 to 1.
            role: As in [`encode_texts`]; whole images compare with captions only.
            batch_size: Also how many pairs, and how many texts, run at once.
            max_num_patches, show_progress_bar, on_error: See the class.

        Yields:
            (index, [`PairScores`]): scores (T_i,) of the image's texts and the image's vector (D,), as soon as they are
            done, so not in order; with `on_error="skip"` also (index, [`Skipped`]), at the end.

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: There are not as many lists of texts as images (of an iterator, this is found on the way), a
                list is none or a text no string, `score` or the role has another value, or the model does not score
                pairs.
        """
        self.require_reranking("model")
        check_choice("score", score, ("rank", "match"))
        if role == "region_phrase":
            raise ValueError("the ranking stage compares whole images with captions: leave out role")
        check_texts_of_images(texts)
        if is_image(images):
            images = [images]  # type: ignore[list-item]
        if isinstance(images, Sized) and len(images) != len(texts):
            raise ValueError(
                f"texts has {len(texts)} entries for {len(images)} images: pass one list of texts for each"
            )
        if not isinstance(images, Sized) and isinstance(images, Iterable):
            images = as_many(images, len(texts))
        limits = self._role_limits(role)
        different = dict.fromkeys(chain.from_iterable(texts))
        roles = {text.text: text.role for text in self._choose_roles(different, limits)}
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error)

        def forward(model: Any, records: list[ImageRecord]) -> list[PairScores]:
            return self._pair_scores(model, records, texts, roles, score, batch_size)

        return self._stream(forward, images, None, options)

    def stream_windows(
        self,
        images: Iterable[ImageInput],
        vectors: Sequence[np.ndarray],
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> Iterator[tuple[int, ImageWindows | Skipped]]:
        """Find the parts of images that fit vectors best, such as those of phrases.

        Args:
            images: An iterable of images.
            vectors: For each image float32 (P_i, D), L2-normalised, of region phrases.
            max_num_patches, batch_size, show_progress_bar, on_error: See the class.

        Yields:
            (index, [`ImageWindows`]): cosines (P_i,), boxes (P_i, 4) in pixels and the image's vector (D,) from one
            pass, as soon as they are done, so not in order; with `on_error="skip"` also (index, [`Skipped`]), at the
            end.

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: The vectors don't fit the model or the images, or the family has no dense features.
        """
        self.require_dense_features()
        if isinstance(images, Sized) and not is_image(images) and len(images) != len(vectors):
            raise ValueError(f"vectors has {len(vectors)} entries for {len(images)} images: pass one array for each")
        for index, rows in enumerate(vectors):
            if rows.ndim != 2 or rows.shape[1] != self.embedding_size or rows.dtype != np.float32:
                raise ValueError(
                    f"vectors[{index}] must be float32 (phrases, {self.embedding_size}), got {rows.dtype} {rows.shape}"
                )
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error)

        def forward(model: Any, records: list[ImageRecord]) -> list[ImageWindows]:
            pooled, maps = self._vectors_and_maps(model, records)
            sizes = [record.image_size for record in records]
            windows = self.windows_of_maps(maps, sizes, [vectors[record.index] for record in records])
            return [found._replace(vector=vector) for found, vector in zip(windows, pooled, strict=True)]

        return self._stream(forward, images, None, options)

    def stream_dense_maps(
        self,
        images: Iterable[ImageInput],
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> Iterator[tuple[int, tuple[np.ndarray, DenseMap] | Skipped]]:
        """Embed images and every patch of them in one pass; patches compare with region phrases.

        Args:
            images: An iterable of images.
            max_num_patches, batch_size, show_progress_bar, on_error: See the class.

        Yields:
            (index, (vector, map)) as soon as they are done, so not in order: the vector of [`encode_images`], float32
            (D,), and the [`DenseMap`]; with `on_error="skip"` also (index, [`Skipped`]), at the end.

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: The family has no dense features.
        """
        self.require_dense_features()
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error)

        def forward(model: Any, records: list[ImageRecord]) -> list[tuple[np.ndarray, DenseMap]]:
            pooled, maps = self._vectors_and_maps(model, records)
            return [
                (vector, DenseMap(self._array_of_map(dense), record.image_size))
                for vector, dense, record in zip(pooled, maps, records, strict=True)
            ]

        return self._stream(forward, images, None, options)

    def stream_encoded(
        self,
        images: Iterable[ImageInput],
        boxes: Iterable[BoxesOrRule],
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
        dense: bool = False,
    ) -> Iterator[tuple[int, EncodedImage | Skipped]]:
        """Embed images, and regions of each, with one reading of the file.

        Args:
            images: An iterable of images.
            boxes: For each image its boxes (x1, y1, x2, y2), or a function that makes them of its width and height.
            max_num_patches, batch_size, show_progress_bar, on_error: See the class; an image with a wrong box is
                skipped too.
            dense: Give dense maps, too.

        Yields:
            (index, [`EncodedImage`]) as soon as they are done, so not in order; with `on_error="skip"` also
            (index, [`Skipped`]), at the end.

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: A box can't be used, or the family has no regions, or no dense features.
        """
        self.require_regions()
        if dense:
            self.require_dense_features()
        options = _Options(max_num_patches, batch_size, show_progress_bar, on_error)

        def forward(model: Any, records: list[ImageRecord]) -> list[EncodedImage]:
            maps: list[DenseMap | None] = [None] * len(records)
            if dense:
                vectors, found = self._vectors_and_maps(model, records)
                sizes = [record.image_size for record in records]
                maps = [DenseMap(self._array_of_map(its), size) for its, size in zip(found, sizes, strict=True)]
            else:
                vectors = self._image_vectors(model, records)
            with_boxes = [record for record in records if record.boxes]
            regions = iter(self._region_vectors(model, with_boxes) if with_boxes else ())
            none = np.zeros((0, self.embedding_size), np.float32)
            return [
                EncodedImage(
                    vector,
                    record.image_size,
                    np.array(record.boxes, np.float32).reshape(-1, 4),
                    next(regions) if record.boxes else none,
                    its_map,
                )
                for vector, record, its_map in zip(vectors, records, maps, strict=True)
            ]

        return self._stream(forward, images, boxes, options)

    # -----------------------------------------------------------------------------------------------------------------
    # How it runs
    # -----------------------------------------------------------------------------------------------------------------

    def _encode(
        self,
        forward: Callable[[Any, list[ImageRecord]], Iterable[np.ndarray]],
        images: ImageInput | Iterable[ImageInput],
        boxes: Any,
        options: _Options,
        join: Callable[[list[np.ndarray]], Any] = list,
    ) -> Any:
        """Return the results of [`_stream`] in order, joined, or the only one for a single image."""
        results = sorted(self._stream(forward, images, boxes, options), key=itemgetter(0))
        skipped = [result for _, result in results if isinstance(result, Skipped)]
        encoded = [result for _, result in results if not isinstance(result, Skipped)]
        if not is_image(images):
            result = join(encoded)
        elif skipped:
            raise UnreadableImageError(f"{skipped[0].reason} (on_error='skip' needs a list of inputs)")
        else:
            result = encoded[0]
        return (result, skipped) if options.on_error == "skip" else result

    def _stream(
        self,
        forward: Callable[[Any, list[ImageRecord]], Iterable[Output]],
        images: ImageInput | Iterable[ImageInput],
        boxes: Iterable[BoxesOrRule] | None,
        options: _Options,
    ) -> Iterator[tuple[int, Output | Skipped]]:
        """Load in threads, batch by patch budget, run on the replicas; yield (index, result) as they are done."""
        max_num_patches, batch_size, show_progress_bar, on_error, box_format = options
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        if box_format not in ("xyxy", "xywh"):
            raise ValueError(f"box_format must be 'xyxy' or 'xywh', got {box_format!r}")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}")
        if "images" in self.lacks:
            raise self._lack("images")
        if max_num_patches is not None:
            check_max_num_patches(max_num_patches)
            if self.processor.patch_budgets is None:
                raise ValueError(
                    f"{self.title} has no patch budgets, its images have one size: leave out max_num_patches "
                    "(--max-patches)"
                )
        if is_image(images):
            images = [images]  # type: ignore[list-item]
        if not isinstance(images, Iterable):
            raise ValueError(
                "images must be a path, PIL image, array, encoded image (bytes) or an iterable of them, "
                f"got {type(images).__name__}"
            )
        total = len(images) if isinstance(images, Sized) else None
        items: Iterable[tuple[int, ImageInput, BoxesOrRule]]
        if boxes is None:
            items = ((index, image, ()) for index, image in enumerate(images))
        elif total is not None and isinstance(boxes, Sized) and len(boxes) != total:
            raise ValueError(f"boxes has {len(boxes)} entries for {total} images: pass one list of boxes for each")
        else:
            items = ((index, *pair) for index, pair in enumerate(zip(images, boxes, strict=True)))

        skipped: list[Skipped] = []
        prepare = partial(
            prepare_image,
            processor=self.processor,
            max_num_patches=max_num_patches,
            box_format=box_format,
            skipped=skipped if on_error == "skip" else None,
            max_pixels=self.max_pixels,
        )
        workers = min(MAX_LOADING_THREADS, os.cpu_count() or 1)
        expected_patches = max_num_patches if isinstance(max_num_patches, int) else TOKENS_PER_BATCH_ITEM
        ahead = max(workers, batch_size * TOKENS_PER_BATCH_ITEM // expected_patches)
        batches = batches_of_a_kind(
            filter(None, bounded_map(prepare, items, workers, ahead)),
            lambda record: record.patches,
            lambda patches: max(1, batch_size * TOKENS_PER_BATCH_ITEM // patches),
            total,
            show_progress_bar,
            "image",
        )
        outputs: Iterable[tuple[list[ImageRecord], Iterable[Output] | None]]
        if len(self.replicas) == 1:
            outputs = ((batch, None) for batch in batches)
        else:
            outputs = self._on_replicas(forward, batches)
        doubtful = DoubtfulBoxes()
        for batch, results in outputs:
            if results is None:
                with suppress(self.out_of_memory):
                    results = forward(self.replicas[0], batch)
            if results is None:  # here, where no traceback keeps the tensors of the first try
                batch_size = max(1, batch_size // 2)  # of the batches that follow
                results = _in_halves(forward, self.replicas[0], batch)
            for record, result in zip(batch, results, strict=True):
                # Other results than arrays are tuples of them and of dense maps, which are checked where they are kept.
                arrays = result if isinstance(result, tuple) else (result,)
                if not all(np.isfinite(array).all() for array in arrays if isinstance(array, np.ndarray)):
                    raise RuntimeError(f"images[{record.index}]: {NOT_FINITE}")
                doubtful.add(record.boxes, *record.image_size, f"boxes[{record.index}]")
            yield from zip((record.index for record in batch), results, strict=True)
        doubtful.warn()
        yield from ((left_out.index, left_out) for left_out in sorted(skipped))

    def _on_replicas(
        self, forward: Callable[[Any, list[Item]], Iterable[Output]], batches: Iterable[list[Item]]
    ) -> Iterator[tuple[list[Item], Iterable[Output]]]:
        """Yield each batch with `forward(replica, batch)`, every replica working in a thread of its own."""
        free: SimpleQueue[Any] = SimpleQueue()
        for replica in self.replicas:
            free.put(replica)

        def run(batch: list[Item]) -> tuple[list[Item], Iterable[Output]]:
            replica = free.get()
            try:
                with suppress(self.out_of_memory):
                    return batch, forward(replica, batch)
                return batch, _in_halves(forward, replica, batch)
            finally:
                free.put(replica)

        return bounded_map(run, batches, len(self.replicas), 2 * len(self.replicas))

    def _image_vectors(self, model: Any, records: list[ImageRecord]) -> np.ndarray:
        """Return the vectors of images, float32 (B, D), L2-normalised."""
        raise NotImplementedError

    def _region_vectors(self, model: Any, records: list[ImageRecord]) -> list[np.ndarray]:
        """Return for each image the vectors of its boxes, float32 (R_i, D), L2-normalised."""
        raise NotImplementedError

    def _heat_maps(
        self, model: Any, records: list[ImageRecord], text_vectors: np.ndarray, resize: bool, first_only: bool
    ) -> list[np.ndarray]:
        """Return for each image its maps, float32 (texts, height, width), or the first one alone."""
        raise NotImplementedError

    def _vectors_and_maps(self, model: Any, records: list[ImageRecord]) -> tuple[np.ndarray, list[Any]]:
        """Return the vectors of images (B, D), and the dense map of each on its own grid, (height, width, D)."""
        raise NotImplementedError

    def _array_of_map(self, dense: Any) -> np.ndarray:
        """Return a dense map of `_vectors_and_maps` as a float32 array."""
        raise NotImplementedError

    def _pair_scores(
        self,
        model: Any,
        records: list[ImageRecord],
        texts: Sequence[Sequence[str]],
        roles: Mapping[str, str],
        score: str,
        batch_size: int,
    ) -> list[PairScores]:
        """Return the scores of images with their texts, see [`stream_pair_scores`]; `roles` has each text's role."""
        raise NotImplementedError

    def windows_of_maps(
        self, maps: Sequence[Any], image_sizes: Sequence[tuple[int, int]], phrases: Sequence[np.ndarray]
    ) -> list[ImageWindows]:
        """Find the parts of images that fit phrases best, in dense maps that are there already.

        Args:
            maps: The dense map of each image, (height, width, D): float32 arrays, or what the back end makes of images.
            image_sizes: (height, width) of each image in pixels.
            phrases: For each image the vectors of its phrases, float32 (P_i, D), L2-normalised.

        Returns:
            The windows of each image, without its vector.
        """
        raise NotImplementedError

    def _text_vectors(self, model: Any, texts: list[RoleText]) -> np.ndarray:
        """Return the vectors of texts of one role, float32 (B, D), L2-normalised."""
        raise NotImplementedError

    def _role_limits(self, role: str) -> dict[str, int]:
        """Return the roles that a text may get, and for each the most tokens of a text that gets it."""
        check_choice("role", role, ("auto", *self.processor.text_roles))
        captions = [name for name in ("caption", "long_caption") if name in self.processor.text_roles]
        roles = captions if role == "auto" else [role]
        lengths = {name: self.processor.text_length(name) for name in roles}
        return {**lengths, "caption": self.processor.max_caption_tokens} if len(roles) > 1 else lengths

    def _choose_roles(self, texts: Iterable[str], limits: dict[str, int]) -> Iterator[RoleText]:
        """Give each text the first role that takes all its tokens, else the last; warn once of those to be cut."""
        cut = 0
        for chunk in chunks(enumerate(texts), TEXTS_PER_TOKENIZER_CALL):
            checked = [check_text(f"texts[{index}]", text) for index, text in chunk]
            counts = self.processor.count_tokens(checked)
            # By length: a family may pad the texts of a batch to the longest of them only.
            for (index, text), count in sorted(zip(chunk, counts, strict=True), key=itemgetter(1)):
                role = _role_of_length(count, limits)
                cut += count > limits[role]
                yield RoleText(index, text, role)
        if cut:
            could_be_long = [*limits] == ["caption"] and "long_caption" in self.processor.text_roles
            hint = "; 'auto' takes longer ones" if could_be_long else ""
            logger.warning("%d texts have more than %d tokens and were cut%s", cut, max(limits.values()), hint)

    def _stack(self, vectors: list[np.ndarray]) -> np.ndarray:
        return np.stack(vectors) if vectors else np.zeros((0, self.embedding_size), np.float32)

    def describe_vectors(self) -> dict[str, Any]:
        """Return what vectors of images depend on beside the checkpoint and the patch budget.

        Returns:
            `backend`, `"torch"`, `"onnx"` or `"openvino"`; `precision`, the dtype of torch or the precision of the
            graph; `images`, `"naflex"` or `"square"`; and `image_size`, [height, width], where squares are not the
            family's own.
        """
        raise NotImplementedError

    def require_regions(self) -> None:
        """Raise a `ValueError` unless the family has regions."""
        if "regions" in self.lacks:
            raise self._lack("regions")

    def require_dense_features(self) -> None:
        """Raise a `ValueError` unless the family has dense features, which heat maps and re-ranking need."""
        if "dense features" in self.lacks:
            raise self._lack("dense features")

    def require_reranking(self, by: str) -> None:
        """Raise a `ValueError` unless [`rerank`] can order images by `"phrases"` or the `"model"`, as is asked for."""
        check_choice("by", by, RERANKERS)
        if by == "phrases":
            self.require_dense_features()
        elif "pair scores" in self.lacks:
            raise self._lack("pair scores")

    def _lack(self, what: str) -> ValueError:
        return ValueError(f"{self.title} has {self.lacks[what]}")


class _Options(NamedTuple):
    """The arguments that all methods on images share."""

    max_num_patches: int | str | None
    batch_size: int
    show_progress_bar: bool | None
    on_error: str
    box_format: str = "xyxy"


class RoleText(NamedTuple):
    """A text among those that are encoded together, and what it is to the model."""

    index: int  # type: ignore[assignment]  # hides a method of tuple that nobody needs here
    text: str
    role: str


def _role_of_length(tokens: int, limits: Mapping[str, int]) -> str:
    """Return the first role that takes all tokens of a text, else the last; `limits` is that of `_role_limits`."""
    *_, last = limits
    return next((role for role, limit in limits.items() if tokens <= limit), last)


def _in_halves(forward: Callable[[Any, list[Item]], Iterable[Output]], model: Any, batch: list[Item]) -> list[Output]:
    """Return the results of a batch for which there was no memory, taken in halves; that of one half is an error."""
    message = "%d inputs at once are too many for the memory of %s: the batch is taken in halves; lower batch_size"
    logger.warning(message, len(batch), model.device)
    middle = (len(batch) + 1) // 2
    return [row for half in (batch[:middle], batch[middle:]) if half for row in forward(model, half)]
