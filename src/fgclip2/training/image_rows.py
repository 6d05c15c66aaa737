"""Which rows of a batch, or of its embeddings, belong to which image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

INDICES = ("short_image_index", "long_image_index", "region_index", "hard_index")
# All that has a row per image, caption or region -> the index that says which image it is of; without one, row i is
# of image i. What the model returns besides are scales.
ROWS_OF = {
    "pixels": None,
    "pixel_values": None,
    "pixel_attention_mask": None,
    "spatial_shapes": None,
    "kept_patches": None,
    "boxes": None,
    "image_hash": None,
    "image_embeds": None,
    "short_input_ids": "short_image_index",
    "short_text_hash": "short_image_index",
    "short_text_embeds": "short_image_index",
    "long_input_ids": "long_image_index",
    "long_text_hash": "long_image_index",
    "long_text_embeds": "long_image_index",
    "region_input_ids": "region_index",
    "region_text_hash": "region_index",
    "region_boxes": "region_index",
    "region_embeds": "region_index",
    "region_text_embeds": "region_index",
    "hard_input_ids": "hard_index",
    "hard_negative_mask": "hard_index",
    "hard_region_embeds": "hard_index",
    "hard_positive_embeds": "hard_index",
    "hard_negative_embeds": "hard_index",
}


def count_images(batch: Mapping[str, Any]) -> int:
    """Return the number of images of a batch, whose pixels may be normalised or not."""
    return len(batch["pixels"] if "pixels" in batch else batch["pixel_values"])


def take_images(batch: Mapping[str, Any], start: int, stop: int) -> dict[str, Tensor]:
    """Return the rows of the images from `start` to before `stop`, and the indices counted from `start`."""
    kept, part = {}, {name: batch[name] for name in ("value_table",) if name in batch}  # of all images the same
    for name in INDICES:
        index = batch.get(name)
        if index is not None:
            image = index if index.ndim == 1 else index[:, 0]
            kept[name] = (image >= start) & (image < stop)
            part[name] = shift(index[kept[name]], -start)
    for name, index_name in ROWS_OF.items():
        if batch.get(name) is not None:
            part[name] = batch[name][kept[index_name]] if index_name in kept else batch[name][start:stop]
    return part


def shift(index: Tensor, images: int) -> Tensor:
    """Count the images of an index, (N,) or (N, 2) with the box second, from another place."""
    return index + index.new_tensor([images] if index.ndim == 1 else [images, 0])
