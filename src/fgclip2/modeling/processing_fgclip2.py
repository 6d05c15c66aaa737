"""Processor of FG-CLIP 2: texts, images and boxes into the model's inputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_processing_utils import BatchFeature

from .configurations import check_sizes  # noqa: F401  # transformers 4 copies only what is named
from .image_processing_fgclip2 import PATCH_BUDGETS, FGClip2ImageProcessor
from .image_processors import TableImageProcessor  # noqa: F401  # transformers 4 copies only what is named
from .inputs import MIN_BOX_SIDE, check_boxes
from .pixels import collate_patches
from .processors import TwoTowerProcessor
from .text_tokenizer import TextTokenizer  # noqa: F401  # transformers 4 copies only what is named
from .tokenization_fgclip2 import FGClip2Tokenizer
from .weights import find_weights  # noqa: F401  # transformers 4 copies only what is named


class FGClip2Processor(TwoTowerProcessor):
    """One object for the model's inputs: an [`FGClip2ImageProcessor`] and an [`FGClip2Tokenizer`].

    `from_pretrained` gives these classes for every folder, official ones included, whose own JSON files name
    classes that are silently wrong for this model.

    Example:
        >>> from fgclip2 import FGClip2Processor
        >>> processor = FGClip2Processor.from_pretrained(path)
        >>> inputs = processor(text=["a dog", "一只狗"], images=["狗.jpg"])
        >>> inputs["input_ids"].shape
        torch.Size([2, 64])
        >>> regions = processor(images=["狗.jpg"], boxes=[[[10, 20, 200, 180]]])
        >>> features = model.get_image_region_features(**regions)
    """

    image_processor_type = FGClip2ImageProcessor
    tokenizer_type = FGClip2Tokenizer

    def __init__(
        self,
        image_processor: FGClip2ImageProcessor | None = None,
        tokenizer: FGClip2Tokenizer | None = None,
        **kwargs: Any,
    ):
        super().__init__(image_processor or FGClip2ImageProcessor(), tokenizer)

    # Patches that an image may have, for the parts of the package that know no family by name.
    patch_budgets = PATCH_BUDGETS

    def prepare_image(self, image: Image.Image, max_num_patches: int | str | None = None) -> dict[str, np.ndarray]:
        """Process one image.

        Args:
            image: Upright RGB image.
            max_num_patches: Patch budget; `None`: the image processor's own setting.

        Returns:
            `pixel_values`, float32 (budget, 768), and `spatial_shapes`, int64 (2,): (height, width) of the grid.
        """
        inputs = self.image_processor(image, max_num_patches=max_num_patches, return_tensors="np")
        return {name: inputs[name][0] for name in ("pixel_values", "spatial_shapes")}

    def collate_images(self, images: Sequence[dict[str, np.ndarray]]) -> BatchFeature:
        """Pad prepared images to the longest of them, not to their budget: padding is masked and changes nothing.

        Returns:
            `pixel_values` float32 (B, N, 768), `pixel_attention_mask` int32 (B, N) and `spatial_shapes` int64 (B, 2).
        """
        return BatchFeature(collate_patches(images), tensor_type="pt")

    def process_images(
        self, images: Sequence[Image.Image], max_num_patches: int | str | None = None, normalized: bool = True
    ) -> BatchFeature:
        """Process a batch of images at once: what [`collate_images`] gives for them, without the copies between.

        Args:
            images: Upright RGB images, at least one.
            max_num_patches: As in [`prepare_image`].
            normalized: `False` leaves `pixel_values` as they are in the images, uint8.
        """
        inputs = self.image_processor(
            list(images), max_num_patches=max_num_patches, return_tensors="pt", normalized=normalized
        )
        longest = int(inputs["pixel_attention_mask"].sum(1).max())  # beyond it all is padding
        for name in ("pixel_values", "pixel_attention_mask"):
            inputs[name] = inputs[name][:, :longest]  # (B, budget, ...) -> (B, longest, ...)
        return inputs

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        boxes: Sequence[Sequence[Sequence[float]]] | None = None,
        walk_type: str | None = None,
        max_num_patches: int | str | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Process images, texts or both.

        Args:
            images: An image or a list of them (see [`load_image`]).
            text: A text or a list of them.
            boxes: For each image a list of boxes (x1, y1, x2, y2) in pixels of the upright image; may be empty.
            walk_type: `"short"` (the default), `"box"` or `"long"`: how far texts are padded.
            max_num_patches: Integer or `"auto"`; `None`: the image processor's own setting.
            return_tensors: `"pt"` or `"np"`.
            kwargs: `padding`, `truncation` and `max_length` of the tokenizer, or transformers' `text_kwargs`,
                `images_kwargs` and `common_kwargs`.

        Returns:
            `input_ids` for texts; `pixel_values`, `pixel_attention_mask` and `spatial_shapes` for images; with boxes
            also `image_sizes` and `region_infos`, as [`FGClip2Model.get_image_region_features`] takes them.

        Raises:
            ValueError: Nothing is given, or an image, text or box can't be used; the message names it.
        """
        if max_num_patches is not None:
            kwargs["images_kwargs"] = {**(kwargs.get("images_kwargs") or {}), "max_num_patches": max_num_patches}
        return self._process(images, text, boxes, walk_type, return_tensors, **kwargs)


__all__ = ["MIN_BOX_SIDE", "FGClip2Processor", "check_boxes"]
