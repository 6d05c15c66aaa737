"""Image processor of FG-CLIP 2: variable resolution and aspect ratio (NaFlex), on PIL and numpy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_processing_utils import BatchFeature
from transformers.utils import logging

from .image_processors import TableImageProcessor, run_in_threads
from .inputs import check_max_num_patches, load_image, load_images
from .pixels import PATCH_BUDGETS, cut_into_patches, naflex_size, patch_budget

logger = logging.get_logger(__name__)


class FGClip2ImageProcessor(TableImageProcessor):
    """Resize images to a patch budget keeping their aspect ratio, normalise them and cut them into patches.

    The result is bit-equal to SigLIP 2's PIL processor at the same `max_num_patches`.

    Args:
        max_num_patches: Patches per image: an integer (up to 16384 makes sense for dense maps), or `"auto"`: each image
            gets its own budget from 128/256/576/784/1024 by its own size ([`patch_budget`]), whatever else is in the
            batch.
        patch_size: Side of a patch in pixels.
        do_resize: Resize to the budget; without, sides must be multiples of `patch_size`.
        resample: PIL resampling filter (2: bilinear).
        do_rescale, rescale_factor: Scale 0-255 to 0-1.
        do_normalize, image_mean, image_std: Normalise each channel.

    Example:
        >>> from fgclip2 import FGClip2ImageProcessor
        >>> inputs = FGClip2ImageProcessor()(images=["猫.jpg", "dog.png"], return_tensors="pt")
        >>> inputs["pixel_values"].shape  # (images, patches, 768)
    """

    model_input_names = ["pixel_values", "pixel_attention_mask", "spatial_shapes"]

    def __init__(
        self,
        max_num_patches: int | str = "auto",
        patch_size: int = 16,
        do_resize: bool = True,
        resample: int = Image.Resampling.BILINEAR,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: Sequence[float] | float = (0.5, 0.5, 0.5),
        image_std: Sequence[float] | float = (0.5, 0.5, 0.5),
        **kwargs: Any,
    ):
        super().__init__(do_rescale, rescale_factor, do_normalize, image_mean, image_std, **kwargs)
        check_max_num_patches(max_num_patches)
        self.max_num_patches = max_num_patches
        self.patch_size = patch_size
        self.do_resize = do_resize
        self.resample = int(resample)

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> "FGClip2ImageProcessor":
        # Official folders store SigLIP 2's 256 patches, which is not what the model is run with; exported ones, which
        # SigLIP 2's processor reads too, what it is run with beside it.
        image_processor_dict = dict(image_processor_dict)
        budget = image_processor_dict.pop("own_max_num_patches", None)
        if image_processor_dict.get("image_processor_type") != cls.__name__:
            image_processor_dict.pop("max_num_patches", None)
            if budget is not None:
                image_processor_dict["max_num_patches"] = budget
        return super().from_dict(image_processor_dict, **kwargs)

    def preprocess(
        self,
        images: Any,
        max_num_patches: int | str | None = None,
        do_resize: bool | None = None,
        return_tensors: str | None = None,
        normalized: bool = True,
        **kwargs: Any,
    ) -> BatchFeature:
        """Process one image or a list of images.

        Args:
            images: What [`load_image`] takes, or a list of it.
            max_num_patches, do_resize: Override the processor's own setting.
            return_tensors: `"pt"` or `"np"`; `None` gives numpy arrays too.
            normalized: `False` leaves the 8-bit values as they are, of which [`value_table`] has the normalised ones.

        Returns:
            `pixel_values` float32 (B, N, 768), or uint8 if they are not normalised; `pixel_attention_mask` int32 (B, N)
            with 1 for real patches, and `spatial_shapes` int64 (B, 2), (height, width) of each grid in patches. N is
            the integer `max_num_patches`, or with `"auto"` the largest budget in the batch.

        Raises:
            ValueError: The list is empty, an image can't be used (the message says which), or an argument is wrong.
        """
        if kwargs:
            logger.warning_once(f"{type(self).__name__} ignores {sorted(kwargs)}")
        max_num_patches = self.max_num_patches if max_num_patches is None else max_num_patches
        check_max_num_patches(max_num_patches)
        do_resize = self.do_resize if do_resize is None else do_resize
        loaded = load_images(images)
        budgets = [self._budget(image, max_num_patches) for image in loaded]
        patch, num_patches = self.patch_size, max(budgets)
        pixel_values = np.zeros((len(loaded), num_patches, patch * patch * 3), np.float32 if normalized else np.uint8)
        mask = np.zeros((len(loaded), num_patches), np.int32)
        shapes = np.zeros((len(loaded), 2), np.int64)
        table = self.value_table() if normalized else None

        def fill(index: int) -> None:
            """Resize an image, cut it into patches and look their values up while copying them into the batch."""
            image = self._resize(loaded[index], budgets[index]) if do_resize else loaded[index]
            height, width = image.height // patch, image.width // patch
            count = height * width
            if (height * patch, width * patch) != (image.height, image.width) or not 1 <= count <= num_patches:
                raise ValueError(
                    f"images[{index}] is {image.width} x {image.height} pixels; without resizing allowed: multiples of "
                    f"{patch}, at most max_num_patches={num_patches} patches"
                )
            cut_into_patches(image, patch, table, pixel_values[index, :count])
            mask[index, :count] = 1
            shapes[index] = height, width

        run_in_threads(fill, len(loaded))
        data = {"pixel_values": pixel_values, "pixel_attention_mask": mask, "spatial_shapes": shapes}
        return BatchFeature(data, tensor_type=return_tensors or "np")

    def _budget(self, image: Image.Image, max_num_patches: int | str) -> int:
        if isinstance(max_num_patches, str):
            return patch_budget(image.height, image.width, self.patch_size)
        return max_num_patches

    def _resize(self, image: Image.Image, max_num_patches: int) -> Image.Image:
        height, width = naflex_size(image.height, image.width, self.patch_size, max_num_patches)
        return image.resize((width, height), self.resample)


__all__ = [
    "PATCH_BUDGETS",
    "FGClip2ImageProcessor",
    "check_max_num_patches",
    "load_image",
    "load_images",
    "naflex_size",
    "patch_budget",
]
