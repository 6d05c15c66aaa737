"""From what users pass as images and boxes to the model's inputs."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterable, Iterator, Sequence, Sized
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import UnreadableImageError
from ..modeling.image_processing_fgclip2 import FGClip2ImageProcessor, load_image
from ..modeling.modeling_fgclip2 import FGClip2Model
from ..modeling.processing_fgclip2 import check_boxes

ImageInput = Image.Image | np.ndarray | Tensor | bytes | str | os.PathLike  # bytes: an encoded image
Boxes = Sequence[Sequence[float]]

# A PIL image that reads its file lazily may be in a list twice, and is not safe in two threads.
_PIL_LOCK = threading.Lock()


class Skipped(NamedTuple):
    """An input that `on_error="skip"` left out: its index among the inputs, and why."""

    index: int  # type: ignore[assignment]  # hides a method of tuple that nobody needs here
    reason: str


@dataclass(frozen=True)
class ImageRecord:
    """One image ready for the model."""

    index: int
    budget: int  # patches that it was resized for
    pixel_values: np.ndarray  # float32 (patches, 768), real patches only
    grid: tuple[int, int]  # (height, width) in patches
    image_size: tuple[int, int]  # (height, width) in pixels
    boxes: list[list[float]]  # (x1, y1, x2, y2) in pixels


def is_image(images: Any) -> bool:
    """Tell a single image from an iterable of them; an array of several images has four axes."""
    if isinstance(images, (np.ndarray, Tensor)):
        return images.ndim in (2, 3)
    return isinstance(images, (Image.Image, bytes, str, os.PathLike))


def as_iterable(images: Any) -> Iterable[ImageInput]:
    """Put a single image into a list."""
    if is_image(images):
        return [images]
    if not isinstance(images, Iterable):
        raise ValueError(
            f"images is {type(images).__name__}; "
            "allowed: a path, PIL image, array, encoded image (bytes) or an iterable of them"
        )
    return images


def pair_with_boxes(
    images: Iterable[ImageInput], boxes: Iterable[Boxes] | None
) -> Iterator[tuple[int, ImageInput, Boxes]]:
    """Yield (index, image, its boxes); without boxes every image has none."""
    if boxes is None:
        yield from ((index, image, []) for index, image in enumerate(images))
        return
    if isinstance(images, Sized) and isinstance(boxes, Sized) and len(images) != len(boxes):
        raise ValueError(f"boxes has {len(boxes)} entries for {len(images)} images; allowed: one list of boxes each")
    yield from ((index, image, each) for index, (image, each) in enumerate(zip(images, boxes, strict=True)))


def make_record(
    item: tuple[int, ImageInput, Boxes],
    image_processor: FGClip2ImageProcessor,
    max_num_patches: int | str | None,
    box_format: str,
) -> ImageRecord:
    """Load and preprocess one image and check its boxes; threads may call this.

    Raises:
        UnreadableImageError: The image can't be read.
        ValueError: A box can't be used.
    """
    index, image, boxes = item
    loaded = load_input(index, image)
    valid_boxes = _as_corners(boxes, box_format, loaded, f"boxes[{index}]")
    inputs = image_processor(loaded, max_num_patches=max_num_patches, return_tensors="np")
    height, width = (int(side) for side in inputs["spatial_shapes"][0])
    pixel_values = inputs["pixel_values"][0]  # (budget, 768)
    return ImageRecord(
        index=index,
        budget=len(pixel_values),
        pixel_values=pixel_values[: height * width],
        grid=(height, width),
        image_size=(loaded.height, loaded.width),
        boxes=valid_boxes,
    )


def collate(records: list[ImageRecord], model: FGClip2Model) -> dict[str, Any]:
    """Pad a batch to its own longest image, not to its budget: padded patches are masked and change nothing.

    Returns:
        `pixel_values` (B, N, 768), `pixel_attention_mask` (B, N) and `spatial_shapes` (B, 2) on the model's device.
    """
    counts = [len(record.pixel_values) for record in records]
    pixel_values = torch.zeros(len(records), max(counts), records[0].pixel_values.shape[1])
    mask = torch.zeros(len(records), max(counts), dtype=torch.int32)
    for row, (record, count) in enumerate(zip(records, counts, strict=True)):
        pixel_values[row, :count] = torch.from_numpy(record.pixel_values)
        mask[row, :count] = 1
    return {
        "pixel_values": pixel_values.to(model.device, model.dtype),
        "pixel_attention_mask": mask.to(model.device),
        "spatial_shapes": torch.tensor([record.grid for record in records], device=model.device),
    }


def load_input(index: int, image: ImageInput) -> Image.Image:
    with _PIL_LOCK if isinstance(image, Image.Image) else nullcontext():
        try:
            return load_image(_open_encoded(image) if isinstance(image, bytes) else image)
        except (ValueError, OSError) as error:
            raise UnreadableImageError(f"images[{index}]: {error}") from error
        except Exception as error:  # on corrupt data decoders raise nearly everything
            source = f"{image}: " if isinstance(image, (str, os.PathLike)) else ""
            reason = f"{source}{type(error).__name__}: {error}"
            raise UnreadableImageError(f"images[{index}]: {reason}") from error


def _open_encoded(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:  # whose message names a buffer of Python's
        raise ValueError(f"{len(content)} bytes of no known image format") from error


def _as_corners(boxes: Boxes, box_format: str, image: Image.Image, record: str) -> list[list[float]]:
    """Check the boxes of one image and return them as (x1, y1, x2, y2)."""
    if isinstance(boxes, str) or not isinstance(boxes, Iterable):
        raise ValueError(f"{record}={boxes!r}; allowed: a list of boxes, which may be empty")
    boxes = [list(box) if isinstance(box, Iterable) else box for box in boxes]  # an iterator can be read only once
    if box_format == "xywh":
        boxes = [_corners_of_xywh(box, f"{record}[{index}]") for index, box in enumerate(boxes)]
    check_boxes(boxes, image.height, image.width, record)
    return [[float(value) for value in box] for box in boxes]


def _corners_of_xywh(box: Sequence[float], record: str) -> list[float]:
    allowed = "allowed: four finite numbers (x, y, width, height) in pixels, width and height positive"
    try:
        x, y, width, height = (float(value) for value in box)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{record}={box!r}; {allowed}") from error
    if not (np.isfinite([x, y, width, height]).all() and width > 0 and height > 0):
        raise ValueError(f"{record}={[x, y, width, height]}; {allowed}")
    return [x, y, x + width, y + height]
