"""Parts that the image processors of all families share: normalised values by a table, images in threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature

from .pixels import lookup_table


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

    def _lookup_table(self) -> np.ndarray:
        """Float32 (3, 256): the normalised value of each 8-bit value of each channel."""
        return lookup_table(self.do_rescale, self.rescale_factor, self.do_normalize, self.image_mean, self.image_std)


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
