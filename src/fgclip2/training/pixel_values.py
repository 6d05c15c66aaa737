"""Pixels travel from the loader to the device as 8-bit values, and become what a model takes there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_IMAGES_AT_ONCE = 64  # whose indices are in memory, of 4 bytes a value


def normalize_pixels(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the pixels of a batch by the values that the model takes, on the device where they are.

    Values are looked up in the table of the image processor, so they are those that it gives itself, to the bit.

    Args:
        batch: A batch of a collator, with `pixels`, uint8 (B, N, P) in patches or (B, 3, S, S), and `value_table`, (3,
            256), the value of each of a channel. A batch without `pixels` is returned as it is.

    Returns:
        The batch with `pixel_values`, of the dtype of the table, in place of both; in patches that are padding zero.
    """
    batch = dict(batch)
    if "pixels" not in batch:
        return batch
    pixels, table = batch.pop("pixels"), batch.pop("value_table")
    values = torch.empty(pixels.shape, dtype=table.dtype, device=pixels.device)
    for some, places in zip(pixels.split(_IMAGES_AT_ONCE), values.split(_IMAGES_AT_ONCE), strict=True):
        for channel in range(3):
            _of_channel(places, channel).copy_(table[channel][_of_channel(some, channel).int()])
    if "pixel_attention_mask" in batch:
        values.masked_fill_(batch["pixel_attention_mask"][..., None] == 0, 0)  # (B, N, 1)
    return {"pixel_values": values, **batch}


def _of_channel(images: Tensor, channel: int) -> Tensor:
    """Return the part of images that is of a channel: the second axis, or in patches every third value."""
    return images[:, channel] if images.ndim == 4 else images[..., channel::3]
