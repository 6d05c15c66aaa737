"""Processor of R2D2: texts and images into the model's inputs."""

from collections.abc import Sequence
from typing import Any

from transformers.image_processing_utils import BatchFeature
from transformers.tokenization_utils_base import BatchEncoding

from .configurations import check_sizes  # noqa: F401  # transformers 4 copies only what is named
from .image_processing_r2d2 import R2D2ImageProcessor
from .image_processors import TableImageProcessor  # noqa: F401  # transformers 4 copies only what is named
from .inputs import is_image  # noqa: F401  # transformers 4 copies only what is named
from .pixels import PATCH_BUDGETS  # noqa: F401  # transformers 4 copies only what is named
from .processors import SquareProcessor
from .text_tokenizer import TextTokenizer  # noqa: F401  # transformers 4 copies only what is named
from .tokenization_r2d2 import R2D2Tokenizer
from .weights import find_weights  # noqa: F401  # transformers 4 copies only what is named


class R2D2Processor(SquareProcessor):
    """One object for the model's inputs: an [`R2D2ImageProcessor`] and an [`R2D2Tokenizer`].

    Example:
        >>> from fgclip2 import R2D2Processor
        >>> processor = R2D2Processor.from_pretrained(path)
        >>> inputs = processor(text=["一只狗", "两只狗"], images=["狗.jpg"])
        >>> inputs["pixel_values"].shape
        torch.Size([1, 3, 224, 224])
    """

    image_processor_type = R2D2ImageProcessor
    tokenizer_type = R2D2Tokenizer
    needed_files = (("tokenizer.json", "vocab.txt"), ("preprocessor_config.json", "processor_config.json"))
    text_roles = ("caption",)

    def __init__(
        self, image_processor: R2D2ImageProcessor | None = None, tokenizer: R2D2Tokenizer | None = None, **kwargs: Any
    ):
        super().__init__(image_processor or R2D2ImageProcessor(), tokenizer)

    def tokenize(self, texts: Sequence[str], role: str = "caption") -> BatchEncoding:
        """Tokenize texts for the model's `get_role_features`: `input_ids` and `attention_mask`, int64 (B, T)."""
        return self.tokenizer.encode_texts(texts)

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str | None = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Process images, texts or both.

        Args:
            images: An image or a list of them (see [`load_image`]).
            text: A text or a list of them.
            return_tensors: `"pt"` or `"np"`.
            kwargs: `padding`, `truncation` and `max_length` of the tokenizer, or transformers' `text_kwargs`,
                `images_kwargs` and `common_kwargs`.

        Returns:
            `input_ids` and `attention_mask` for texts; `pixel_values` for images.

        Raises:
            ValueError: Nothing is given, or an image or text can't be used; the message names it.
        """
        if lacking := sorted(kwargs.keys() & {"boxes", "walk_type"}):
            raise ValueError(f"unknown arguments: {', '.join(lacking)}; R2D2 has one head, for images and captions")
        return self._process(images, text, None, None, return_tensors, **kwargs)


__all__ = ["R2D2Processor"]
