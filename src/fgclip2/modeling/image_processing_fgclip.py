"""Image processor of FG-CLIP, the first version: squares of one size, on PIL and numpy."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_processing_utils import BatchFeature
from transformers.utils import logging

from .configuration_fgclip import FGClipVisionConfig
from .configurations import check_sizes  # noqa: F401  # transformers 4 copies only what is named
from .image_processors import TableImageProcessor, run_in_threads
from .inputs import load_images
from .pixels import look_up_channels
from .weights import find_file, hub_arguments_of

logger = logging.get_logger(__name__)

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)  # CLIP's
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)

# Files that an image processor may be stored in.
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# What a folder of CLIP says that holds here too. The rest keeps the aspect ratio and cuts the centre out.
_SETTINGS_OF_CLIP = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")


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


class FGClipImageProcessor(TableImageProcessor):
    """Resize images to squares of one size, whatever their aspect ratio, and normalise them.

    The result is that of the official code, which squashes images before CLIP's processor sees them: that one alone
    would keep the aspect ratio and cut the centre out.

    Args:
        size: `{"height": S, "width": S}`, S being 224 for the base checkpoint and 336 for the large one.
        do_resize: Resize to `size`; without, images must have that size.
        resample: PIL resampling filter (3: bicubic).
        do_rescale, rescale_factor: Scale 0-255 to 0-1.
        do_normalize, image_mean, image_std: Normalise each channel.

    Example:
        >>> from fgclip2 import FGClipImageProcessor
        >>> inputs = FGClipImageProcessor()(images=["猫.jpg", "dog.png"], return_tensors="pt")
        >>> inputs["pixel_values"].shape  # (images, 3, 224, 224)
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

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Any:
        """Load from a folder or a hub id; if it stores no image processor, by the size of images in its config.json."""
        source, hub_arguments = pretrained_model_name_or_path, hub_arguments_of(kwargs)
        if any(find_file(source, name, **hub_arguments) for name in PROCESSOR_FILES):
            return super().from_pretrained(source, **kwargs)
        side = FGClipVisionConfig.from_pretrained(source, **hub_arguments).image_size
        return cls.from_dict({"size": side}, **{name: kwargs[name] for name in kwargs.keys() - hub_arguments.keys()})

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> "FGClipImageProcessor":
        settings = dict(image_processor_dict)
        if settings.get("do_center_crop") is False and settings.get("size") == settings.pop("crop_size", None):
            settings.pop("do_center_crop")  # an exported folder, which CLIP's processor reads too
            settings.pop("do_convert_rgb", None)
        elif settings.get("image_processor_type") != cls.__name__:
            known = {name: settings[name] for name in _SETTINGS_OF_CLIP if name in settings}
            settings = {**known, "size": settings.get("size", 224)}
        return super().from_dict(settings, **kwargs)

    def preprocess(
        self,
        images: Any,
        size: Mapping[str, int] | int | None = None,
        do_resize: bool | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Process one image or a list of images.

        Args:
            images: What [`load_image`] takes, or a list of it.
            size, do_resize: Override the processor's own setting.
            return_tensors: `"pt"` for tensors, `"np"` (the default) for arrays.

        Returns:
            `pixel_values` float32 (B, 3, height, width).

        Raises:
            ValueError: The list is empty, an image can't be used (the message says which), or an argument is wrong.
        """
        if kwargs:
            logger.warning_once(f"{type(self).__name__} ignores {sorted(kwargs)}")
        height, width = read_size(self.size if size is None else size)
        do_resize = self.do_resize if do_resize is None else do_resize
        loaded = load_images(images)
        table = self._lookup_table()
        pixel_values = np.empty((len(loaded), 3, height, width), np.float32)

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


__all__ = ["FGClipImageProcessor"]
