"""FGClip2Embedder: the embedder of FG-CLIP 2, whose methods name the roles of texts by the model's walks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, overload

import numpy as np
import torch

from ..checks import check_choice
from ..modeling.auto import FAMILIES
from ..modeling.configuration_fgclip2 import WALK_OF_ROLE
from ..modeling.modeling_fgclip2 import FGClip2Model
from ..modeling.processing_fgclip2 import FGClip2Processor
from .backends.torch import Embedder
from .devices import Device
from .embedder import ListResult, RerankedResult, VectorResult
from .inputs import Boxes, ImageInput, Skipped
from .phrases import Splitter, split_phrases
from .reranker import RerankedHit

REGION_LOGIT_SCALE = FGClip2Model.region_logit_scale
ROLE_OF_WALK: dict[str, Any] = {"auto": "auto", **{walk: role for role, walk in WALK_OF_ROLE.items()}}


class FGClip2Embedder(Embedder):
    """Embed images, regions and texts (Chinese and English), compare them, label images and regions.

    What inputs and results are, and the arguments that several methods share, is said in [`BaseEmbedder`]. Where a
    method takes `walk_type`, it is the text head: `"short"` (up to 64 tokens) or `"long"` (up to 196) to compare with
    images, `"box"` (64) to compare with regions and dense features.

    Args:
        model: An [`FGClip2Model`]; public as `embedder.model`.
        processor: Its [`FGClip2Processor`]; public as `embedder.processor`.
        device, dtype, name: As in [`Embedder`].

    Raises:
        ValueError: The processor's vocabulary is not the model's.

    Example:
        >>> from fgclip2 import FGClip2Embedder
        >>> embedder = FGClip2Embedder.from_pretrained()
        >>> images = embedder.encode_images(["猫.jpg", "dog.png"])
        >>> texts = embedder.encode_texts(["一只黑猫", "a brown dog"])
        >>> embedder.similarity(images, texts).shape
        (2, 2)
        >>> embedder.classify("猫.jpg", ["猫", "狗"], templates="一张{}的照片")  # a probability for each label
    """

    family = next(family for family in FAMILIES if family.model is FGClip2Model)

    def __init__(
        self,
        model: FGClip2Model,
        processor: FGClip2Processor,
        device: Device | Sequence[Device] | None = None,
        dtype: torch.dtype | None = None,
        name: str | None = None,
    ):
        vocab_size = model.config.text_config.vocab_size
        if len(processor.tokenizer) > vocab_size:
            raise ValueError(
                f"the tokenizer has {len(processor.tokenizer)} entries, but the model's vocab_size is {vocab_size}: "
                "load both from the same checkpoint"
            )
        # The model's own parameters, of which `score_scale_and_bias` is made.
        self.logit_scale, self.logit_bias = model.logit_scale.item(), model.logit_bias.item()
        super().__init__(model, processor, device, dtype, name)

    @property
    def model(self) -> FGClip2Model:
        """The model, on the first of the devices."""
        return self.replicas[0]

    def encode_texts(
        self,
        texts: str | Iterable[str],
        walk_type: str = "auto",
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        role: str | None = None,
    ) -> np.ndarray:
        """Embed texts.

        Args:
            texts: One text or an iterable of them.
            walk_type: The text head: `"short"` (up to 64 tokens) or `"long"` (up to 196) to compare with images,
                `"box"` (64) to compare with regions and dense features; `"auto"`: for each text `"short"` up to the
                processor's `max_caption_tokens` (64, unless the checkpoint says less), else `"long"`. What doesn't fit
                is cut, with a warning.
            batch_size, show_progress_bar: See [`BaseEmbedder`].
            role: What [`Embedder.encode_texts`] takes, in place of `walk_type`.

        Returns:
            Float32 (N, D), or (D,) for a single text.

        Raises:
            ValueError: A text is no string or has no UTF-8 form, or the walk is unknown.
        """
        return super().encode_texts(
            texts, role=_role_of(walk_type, role), batch_size=batch_size, show_progress_bar=show_progress_bar
        )

    @overload
    def classify(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        walk_type: str = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: Literal["raise"] = "raise",
        role: str | None = None,
    ) -> np.ndarray: ...

    @overload
    def classify(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        walk_type: str = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        *,
        on_error: Literal["skip"],
        role: str | None = None,
    ) -> tuple[np.ndarray, list[Skipped]]: ...

    @overload
    def classify(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        walk_type: str = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
        role: str | None = None,
    ) -> VectorResult: ...

    def classify(
        self,
        images: ImageInput | Iterable[ImageInput],
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        walk_type: str = "auto",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
        role: str | None = None,
    ) -> VectorResult:
        """Score images against labels; each score is a probability of its own, not a distribution over the labels.

        Args:
            images, labels, templates: As in [`Embedder.classify`].
            walk_type: As in [`encode_texts`], but not `"box"`, whose texts compare with regions.
            max_num_patches, batch_size, show_progress_bar, on_error: See [`BaseEmbedder`].
            role: What [`Embedder.classify`] takes, in place of `walk_type`.

        Returns:
            Float32 (N, labels), or (labels,) for a single image.

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: There are no labels, a template has no `{}`, or the walk is `"box"`.
        """
        return super().classify(
            images,
            labels,
            templates,
            role=_role_of(walk_type, role),
            max_num_patches=max_num_patches,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            on_error=on_error,
        )

    @overload
    def classify_regions(
        self,
        images: ImageInput,
        boxes: Boxes,
        labels: Sequence[str],
        templates: str | Sequence[str] = "{}",
        box_format: str = "xyxy",
        walk_type: str = "box",
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
        walk_type: str = "box",
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
        walk_type: str = "box",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        *,
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
        walk_type: str = "box",
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
        walk_type: str = "box",
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        on_error: str = "raise",
    ) -> ListResult:
        """Score regions against labels.

        Args:
            images, boxes, box_format: As in [`encode_regions`].
            labels, templates: As in [`classify`].
            walk_type: `"box"`, the only head whose texts compare with regions.
            max_num_patches, batch_size, show_progress_bar, on_error: See [`BaseEmbedder`].

        Returns:
            List of float32 (R_i, labels), one per image; for a single image (R, labels). Each row is a softmax of 100
            times the cosines and sums to 1, for the region loss trains no bias that could say "none of these".

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: A box or the labels can't be used, or the walk is not `"box"`.
        """
        if walk_type != "box":
            raise ValueError(
                f"region features compare only with texts of walk_type='box', got {walk_type!r}: leave it out"
            )
        return super().classify_regions(
            images,
            boxes,
            labels,
            templates,
            box_format,
            max_num_patches=max_num_patches,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            on_error=on_error,
        )

    @overload
    def rerank(
        self,
        query: str,
        images: Iterable[ImageInput],
        walk_type: str = "auto",
        *,
        by: Literal["phrases", "model"] = "phrases",
        role: str | None = None,
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
        walk_type: str = "auto",
        *,
        by: Literal["phrases", "model"] = "phrases",
        role: str | None = None,
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
        walk_type: str = "auto",
        *,
        by: Literal["phrases", "model"] = "phrases",
        role: str | None = None,
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
        walk_type: str = "auto",
        *,
        by: Literal["phrases", "model"] = "phrases",
        role: str | None = None,
        max_num_patches: int | str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        split: Splitter = split_phrases,
        weight: float | None = None,
        on_error: str = "raise",
    ) -> RerankedResult:
        """Order images by a query: by its phrases and parts of the images, or by the model's scores of the pairs.

        Args:
            query, images, by, max_num_patches, batch_size, show_progress_bar, split, weight, on_error: As in
                [`Embedder.rerank`].
            walk_type: As in [`encode_texts`], of the whole query; phrases have the walk `"box"`.
            role: What [`Embedder.rerank`] takes, in place of `walk_type`.

        Returns:
            A [`RerankedHit`] for each image, best first; with `on_error="skip"` a pair, as in [`Embedder.rerank`].

        Raises:
            UnreadableImageError: An image can't be read.
            ValueError: The query is no text, or the walk is unknown.
        """
        return super().rerank(
            query,
            images,
            by=by,
            role=_role_of(walk_type, role),
            max_num_patches=max_num_patches,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            split=split,
            weight=weight,
            on_error=on_error,
        )


def _role_of(walk_type: str, role: str | None) -> Any:
    check_choice("walk_type", walk_type, ROLE_OF_WALK)
    return ROLE_OF_WALK[walk_type] if role is None else role
