"""Processor of FG-CLIP, the first version: texts, images and boxes into the model's inputs."""

from collections.abc import Sequence
from typing import Any

from transformers.image_processing_utils import BatchFeature

from .configuration_fgclip import FGClipConfig  # noqa: F401  # transformers 4 copies only what is named
from .configurations import check_sizes  # noqa: F401  # transformers 4 copies only what is named
from .image_processing_fgclip import PROCESSOR_FILES, FGClipImageProcessor
from .image_processors import TableImageProcessor  # noqa: F401  # transformers 4 copies only what is named
from .inputs import is_image  # noqa: F401  # transformers 4 copies only what is named
from .pixels import PATCH_BUDGETS  # noqa: F401  # transformers 4 copies only what is named
from .processors import SquareProcessor
from .text_tokenizer import TextTokenizer  # noqa: F401  # transformers 4 copies only what is named
from .tokenization_fgclip import FGClipTokenizer
from .weights import find_weights  # noqa: F401  # transformers 4 copies only what is named


class FGClipProcessor(SquareProcessor):
    """One object for the model's inputs: an [`FGClipImageProcessor`] and an [`FGClipTokenizer`].

    `from_pretrained` gives these classes for every folder, official ones included, whose own files name CLIP's: those
    cut the centre out of images.

    Example:
        >>> from fgclip2 import FGClipProcessor
        >>> processor = FGClipProcessor.from_pretrained(path)
        >>> inputs = processor(text=["a dog", "two dogs"], images=["狗.jpg"])
        >>> inputs["pixel_values"].shape
        torch.Size([1, 3, 224, 224])
        >>> regions = processor(images=["狗.jpg"], boxes=[[[10, 20, 200, 180]]])
        >>> features = model.get_image_region_features(**regions)
    """

    image_processor_type = FGClipImageProcessor
    tokenizer_type = FGClipTokenizer
    needed_files = (("tokenizer.json", "vocab.json"), (*PROCESSOR_FILES, "config.json"))

    def __init__(
        self,
        image_processor: FGClipImageProcessor | None = None,
        tokenizer: FGClipTokenizer | None = None,
        **kwargs: Any,
    ):
        super().__init__(image_processor or FGClipImageProcessor(), tokenizer)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        boxes: Sequence[Sequence[Sequence[float]]] | None = None,
        walk_type: str | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Process images, texts or both.

        Args:
            images: An image or a list of them (see [`load_image`]).
            text: A text or a list of them.
            boxes: For each image a list of boxes (x1, y1, x2, y2) in pixels of the upright image; may be empty.
            walk_type: `"short"` (the default), `"box"` or `"long"`: how far texts are cut. Pass the same to the model.
            return_tensors: `"pt"` or `"np"`.
            kwargs: `padding`, `truncation` and `max_length` of the tokenizer, or transformers' `text_kwargs`,
                `images_kwargs` and `common_kwargs`.

        Returns:
            `input_ids` for texts; `pixel_values` for images; with boxes also `image_sizes` and `region_infos`, as
            [`FGClipModel.get_image_region_features`] takes them.

        Raises:
            ValueError: Nothing is given, or an image, text or box can't be used; the message names it.
        """
        return self._process(images, text, boxes, walk_type, return_tensors, **kwargs)


__all__ = ["FGClipProcessor"]
