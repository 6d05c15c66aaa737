"""Pixels of an image as the models take them: sizes by patch budgets, patches, normalised values by a table."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

# The patch budgets that the model was trained with; an image takes the smallest that holds its own patches.
PATCH_BUDGETS = (128, 256, 576, 784, 1024)
# Settings of an image processor: those of [`lookup_table`], and all that its pixels depend on beside their number.
VALUE_SETTINGS = ("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
PIXEL_SETTINGS = ("resample", *VALUE_SETTINGS)


def patch_budget(height: int, width: int, patch_size: int = 16) -> int:
    """Return the patch budget that `max_num_patches="auto"` gives an image: from 128/256/576/784/1024, by its own size.

    Args:
        height, width: Size of the image in pixels.
        patch_size: Side of a patch in pixels.
    """
    count = (height // patch_size) * (width // patch_size)
    return next((budget for budget in PATCH_BUDGETS if count <= budget), PATCH_BUDGETS[-1])


def naflex_size(height: int, width: int, patch_size: int, max_num_patches: int) -> tuple[int, int]:
    """Return the largest size, in multiples of `patch_size`, that keeps the aspect ratio and at most `max_num_patches`.

    One scale is bisected in [1e-6, 100] down to 1e-5 and both scaled sides are rounded up, as SigLIP 2 does: sizes
    must be the same to the pixel.

    Args:
        height, width: Size of the image in pixels.

    Returns:
        (height, width) in pixels.
    """

    def scaled(side: int, scale: float) -> int:
        return max(patch_size, math.ceil(side * scale / patch_size) * patch_size)

    low, high = 1e-6, 100.0
    while high - low >= 1e-5:
        middle = (low + high) / 2
        patches = (scaled(height, middle) // patch_size) * (scaled(width, middle) // patch_size)
        low, high = (middle, high) if patches <= max_num_patches else (low, middle)
    return scaled(height, low), scaled(width, low)


def lookup_table(
    do_rescale: bool,
    rescale_factor: float,
    do_normalize: bool,
    image_mean: Sequence[float] | float,
    image_std: Sequence[float] | float,
) -> np.ndarray:
    """Return the normalised value of each 8-bit value of each channel, float32 (3, 256).

    Args:
        do_rescale, rescale_factor: Scale 0-255 to 0-1.
        do_normalize, image_mean, image_std: Normalise each channel.
    """
    values = np.tile(np.arange(256, dtype=np.float64), (3, 1))
    if do_rescale:
        values = values * rescale_factor
    values = values.astype(np.float32)
    if do_normalize:
        mean, std = (np.broadcast_to(value, 3).astype(np.float32)[:, None] for value in (image_mean, image_std))
        values = (values - mean) / std
    return values


def cut_into_patches(image: Image.Image, patch_size: int, table: np.ndarray | None, patches: np.ndarray) -> None:
    """Cut an image into patches and look their values up.

    Args:
        image: RGB, its sides multiples of `patch_size`.
        patch_size: Side of a patch in pixels.
        table: What [`lookup_table`] returned; `None`: the 8-bit values themselves are wanted.
        patches: Where the values go: contiguous float32 (patches of the image, patch_size * patch_size * 3); without a
            table uint8.
    """
    height, width, length = image.height // patch_size, image.width // patch_size, patches.shape[1]
    rows = np.asarray(image).reshape(height, patch_size, width, patch_size, 3).transpose(0, 2, 1, 3, 4)
    if table is None:
        patches.reshape(rows.shape)[...] = rows
        return
    channel = (np.arange(length) % 3 * 256).astype(np.uint16)  # where in the table a value's channel starts
    values, slots = table.ravel(), patches.reshape(height, width, length)
    for row, slot in zip(rows, slots, strict=True):  # a row of patches at a time, so that it stays in the cache
        np.take(values, row.reshape(width, length) + channel, out=slot, mode="clip")


def look_up_channels(image: Image.Image, table: np.ndarray | None, channels: np.ndarray) -> None:
    """Look the values of an RGB image up, a channel at a time, into float32 (3, height, width).

    Without a table the 8-bit values themselves go into uint8 of the same shape.
    """
    pixels = np.asarray(image)  # (height, width, 3)
    for channel in range(3):
        if table is None:
            channels[channel] = pixels[..., channel]
        else:
            np.take(table[channel], pixels[..., channel], out=channels[channel], mode="clip")


def collate_patches(images: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Pad prepared images to the longest of them, not to their budget: padding is masked and changes nothing.

    Args:
        images: Of each `pixel_values`, float32 (budget, values), and `spatial_shapes`, int64 (2,).

    Returns:
        `pixel_values` float32 (B, N, values), `pixel_attention_mask` int32 (B, N) and `spatial_shapes` int64 (B, 2).
    """
    shapes = np.stack([image["spatial_shapes"] for image in images])  # (B, 2)
    counts = shapes.prod(1)
    pixel_values = np.zeros((len(images), counts.max(), images[0]["pixel_values"].shape[1]), np.float32)
    mask = np.zeros((len(images), counts.max()), np.int32)
    for row, (image, count) in enumerate(zip(images, counts, strict=True)):
        pixel_values[row, :count] = image["pixel_values"][:count]
        mask[row, :count] = 1
    return {"pixel_values": pixel_values, "pixel_attention_mask": mask, "spatial_shapes": shapes}


__all__ = [
    "PATCH_BUDGETS",
    "PIXEL_SETTINGS",
    "VALUE_SETTINGS",
    "collate_patches",
    "cut_into_patches",
    "look_up_channels",
    "lookup_table",
    "naflex_size",
    "patch_budget",
]
