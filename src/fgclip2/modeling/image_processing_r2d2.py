"""Image processor of R2D2: squares of one size, on PIL and numpy."""

from typing import Any

from .configurations import check_sizes  # noqa: F401  # transformers 4 copies only what is named
from .image_processors import SquareImageProcessor, without_settings_of_clip
from .inputs import is_image  # noqa: F401  # transformers 4 copies only what is named
from .pixels import PATCH_BUDGETS  # noqa: F401  # transformers 4 copies only what is named


class R2D2ImageProcessor(SquareImageProcessor):
    """Resize images to squares of one size, whatever their aspect ratio, and normalise them.

    Args:
        size: `{"height": S, "width": S}`, or S alone; 224 for the published checkpoints.
        do_resize: Resize to `size`; without, images must have that size.
        resample: PIL resampling filter (3: bicubic).
        do_rescale, rescale_factor: Scale 0-255 to 0-1.
        do_normalize, image_mean, image_std: Normalise each channel.

    Example:
        >>> from fgclip2 import R2D2ImageProcessor
        >>> inputs = R2D2ImageProcessor()(images=["猫.jpg", "dog.png"], return_tensors="pt")
        >>> inputs["pixel_values"].shape  # (images, 3, 224, 224)
    """

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> "R2D2ImageProcessor":
        return super().from_dict(without_settings_of_clip(image_processor_dict), **kwargs)


__all__ = ["R2D2ImageProcessor"]
