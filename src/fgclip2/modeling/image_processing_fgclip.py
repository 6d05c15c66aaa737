"""Image processor of FG-CLIP, the first version: squares of one size, on PIL and numpy."""

import os
from typing import Any

from .configuration_fgclip import FGClipVisionConfig
from .configurations import check_sizes  # noqa: F401  # transformers 4 copies only what is named
from .image_processors import SquareImageProcessor, without_settings_of_clip
from .inputs import is_image  # noqa: F401  # transformers 4 copies only what is named
from .pixels import PATCH_BUDGETS  # noqa: F401  # transformers 4 copies only what is named
from .weights import find_file, hub_arguments_of

# Files that an image processor may be stored in.
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# What a folder of CLIP says that holds here too. The rest keeps the aspect ratio and cuts the centre out.
_SETTINGS_OF_CLIP = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")


class FGClipImageProcessor(SquareImageProcessor):
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
        settings = without_settings_of_clip(image_processor_dict)
        if settings is image_processor_dict and settings.get("image_processor_type") != cls.__name__:
            known = {name: settings[name] for name in _SETTINGS_OF_CLIP if name in settings}
            settings = {**known, "size": settings.get("size", 224)}
        return super().from_dict(settings, **kwargs)


__all__ = ["FGClipImageProcessor"]
