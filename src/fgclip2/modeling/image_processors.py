"""Parts that the image processors of the families share: normalised values by a table, squares, images in threads."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.utils import logging

from .inputs import load_images
from .pixels import look_up_channels, lookup_table

logger = logging.get_logger(__name__)

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


class TableImageProcessor(BaseImageProcessor):
    """An image processor that looks normalised values up, instead of computing them for each pixel.

    Args:
        do_rescale, rescale_factor: Scale 0-255 to 0-1.
        do_normalize, image_mean, image_std: Normalise each channel.
    """

    def __init__(
        self,
        do_rescale: bool,
        rescale_factor: float,
        do_normalize: bool,
        image_mean: Sequence[float] | float,
        image_std: Sequence[float] | float,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.do_rescale = do_rescale
        self.rescale_factor = rescale_factor
        self.do_normalize = do_normalize
        self.image_mean = list(np.broadcast_to(image_mean, 3).tolist())
        self.image_std = list(np.broadcast_to(image_std, 3).tolist())

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        image_processor_dict = dict(image_processor_dict)
        if cls._auto_class is None:  # as in the configuration: code files that a folder saved later won't have
            image_processor_dict.pop("auto_map", None)
        return super().from_dict(image_processor_dict, **kwargs)

    def __call__(self, images: Any, **kwargs: Any) -> BatchFeature:
        return self.preprocess(images, **kwargs)

    def value_table(self) -> np.ndarray:
        """Return the normalised value of each 8-bit value of each channel, float32 (3, 256)."""
        return lookup_table(self.do_rescale, self.rescale_factor, self.do_normalize, self.image_mean, self.image_std)


class SquareImageProcessor(TableImageProcessor):
    """Resize images to squares of one size, whatever their aspect ratio, and normalise them.

    Args:
        size: `{"height": S, "width": S}`, or S alone.
        do_resize: Resize to `size`; without, images must have that size.
        resample: PIL resampling filter (3: bicubic).
        do_rescale, rescale_factor: Scale 0-255 to 0-1.
        do_normalize, image_mean, image_std: Normalise each channel.
    """

    model_input_names = ["pixel_values"]

    def __init__(
        self,
        size: Mapping[str, int] | int = 224,
        do_resize: bool = True,
        resample: int = Image.Resampling.BICUBIC,
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: Sequence[float] | float = IMAGE_MEAN,
        image_std: Sequence[float] | float = IMAGE_STD,
        **kwargs: Any,
    ):
        super().__init__(do_rescale, rescale_factor, do_normalize, image_mean, image_std, **kwargs)
        height, width = read_size(size)
        self.size = {"height": height, "width": width}
        self.do_resize = do_resize
        self.resample = int(resample)

    def preprocess(
        self,
        images: Any,
        size: Mapping[str, int] | int | None = None,
        do_resize: bool | None = None,
        return_tensors: str | None = None,
        normalized: bool = True,
        **kwargs: Any,
    ) -> BatchFeature:
        """Process one image or a list of images.

        Args:
            images: What [`load_image`] takes, or a list of it.
            size, do_resize: Override the processor's own setting.
            return_tensors: `"pt"` for tensors, `"np"` (the default) for arrays.
            normalized: `False` leaves the 8-bit values as they are, of which [`value_table`] has the normalised ones.

        Returns:
            `pixel_values` float32 (B, 3, height, width), or uint8 if they are not normalised.

        Raises:
            ValueError: The list is empty, an image can't be used (the message says which), or an argument is wrong.
        """
        if kwargs:
            logger.warning_once(f"{type(self).__name__} ignores {sorted(kwargs)}")
        height, width = read_size(self.size if size is None else size)
        do_resize = self.do_resize if do_resize is None else do_resize
        loaded = load_images(images)
        table = self.value_table() if normalized else None
        pixel_values = np.empty((len(loaded), 3, height, width), np.float32 if normalized else np.uint8)

        def fill(index: int) -> None:
            """Resize an image and look its values up while copying them into the batch."""
            image = loaded[index].resize((width, height), self.resample) if do_resize else loaded[index]
            if image.size != (width, height):
                raise ValueError(
                    f"images[{index}] is {image.width} x {image.height} pixels; without resizing allowed: "
                    f"{width} x {height} (width x height)"
                )
            look_up_channels(image, table, pixel_values[index])

        run_in_threads(fill, len(loaded))
        return BatchFeature({"pixel_values": pixel_values}, tensor_type=return_tensors or "np")


def read_size(size: Any) -> tuple[int, int]:
    """Return (height, width) of a setting `size`: CLIP's `S` and `{"shortest_edge": S}` are squares of that side.

    Raises:
        ValueError: It is none of these, or not of positive integers.
    """
    sides: Any = (size, size)
    if isinstance(size, Mapping):
        edge = size.get("shortest_edge")
        sides = (size.get("height", edge), size.get("width", edge))
    if not all(type(side) is int and side >= 1 for side in sides):
        raise ValueError(f'`size` must be {{"height": pixels, "width": pixels}} or one integer, got {size!r:.80}')
    return sides


def without_settings_of_clip(settings: dict[str, Any]) -> dict[str, Any]:
    """Leave out what an exported folder says so that CLIP's image processor makes squares of whole images too."""
    if settings.get("do_center_crop") is not False or settings.get("size") != settings.get("crop_size"):
        return settings
    of_clip = ("do_center_crop", "do_convert_rgb", "crop_size")
    return {name: value for name, value in settings.items() if name not in of_clip}


def run_in_threads(function: Callable[[int], None], count: int) -> None:
    """Call `function` with 0 to `count` - 1.

    Pillow and numpy let go of the interpreter in what image processors do. Workers of a data loader, which torch gives
    one thread each, stay with it.
    """
    threads = min(count, torch.get_num_threads())
    if threads == 1:
        for index in range(count):
            function(index)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(function, range(count)))
