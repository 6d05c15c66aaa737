"""From what users pass as images and boxes to what a family's processor makes of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from PIL import Image

from ..errors import UnreadableImageError
from ..modeling.inputs import MAX_PIXELS, check_boxes, check_text, load_image
from ..modeling.interface import DualEncoderProcessor

if TYPE_CHECKING:
    from torch import Tensor

# Bytes are an encoded image. A function, which is called in a thread that loads images, returns one of the others.
ImageInput: TypeAlias = "Image.Image | np.ndarray | Tensor | bytes | str | os.PathLike | Callable[[], Any]"


class Detections(Protocol):
    """The answer of a detector, such as `supervision.Detections` and `Results.boxes` of Ultralytics."""

    @property
    def xyxy(self) -> Any:
        """Array or tensor (N, 4) of corners in pixels."""


Boxes = Sequence[Sequence[float]] | Detections  # four numbers, and maybe a score, of each

BoxesOrRule = Boxes | Callable[[int, int], Boxes]  # a function of the image's width and height

PATCHES_OF_A_SQUARE = 256  # what an image of a family without patch budgets counts as

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
    inputs: dict[str, np.ndarray]  # of the processor's `prepare_image`
    patches: int  # that it was resized for
    image_size: tuple[int, int]  # (height, width) in pixels
    boxes: list[list[float]]  # (x1, y1, x2, y2) in pixels


def prepare_image(
    item: tuple[int, ImageInput, BoxesOrRule],
    processor: DualEncoderProcessor,
    max_num_patches: int | str | None,
    box_format: str,
    skipped: list[Skipped] | None,
    max_pixels: int = MAX_PIXELS,
) -> ImageRecord | None:
    """Load and preprocess one image and check its boxes; threads may call this.

    Args:
        item: Index, image, and the boxes of the image or the function that makes them.
        processor: Of the family.
        max_num_patches: Patch budget.
        box_format: `"xyxy"` or `"xywh"`.
        skipped: Takes what can't be used, for which `None` is returned then; `None`: raise.
        max_pixels: Files of larger images can't be used.

    Raises:
        UnreadableImageError: The image can't be read.
        ValueError: A box can't be used.
    """
    index, source, boxes = item
    try:
        image = load_input(index, source, max_pixels)
        if hasattr(boxes, "xyxy"):
            boxes = corners_of_detections(boxes, box_format, f"boxes[{index}]")
        elif callable(boxes):
            boxes = boxes(image.width, image.height)
        if isinstance(boxes, str) or not isinstance(boxes, Iterable):
            raise ValueError(f"boxes[{index}] must be a list of boxes, which may be empty, got {boxes!r}")
        boxes = [list(box) if isinstance(box, Iterable) else box for box in boxes]  # an iterator is read only once
        for number, box in enumerate(boxes):
            if isinstance(box, list) and len(box) == 5:
                boxes[number] = without_score(box, f"boxes[{index}][{number}]")
        if box_format == "xywh":
            boxes = [corners_of_xywh(box, f"boxes[{index}][{number}]") for number, box in enumerate(boxes)]
        check_boxes(boxes, image.height, image.width, f"boxes[{index}]")
        inputs = processor.prepare_image(image, max_num_patches)
    except ValueError as error:
        if skipped is None:
            raise
        skipped.append(Skipped(index, str(error)))
        return None
    patches = len(inputs["pixel_values"]) if processor.patch_budgets else PATCHES_OF_A_SQUARE
    corners = [[float(value) for value in box] for box in boxes]
    return ImageRecord(index, inputs, patches, (image.height, image.width), corners)


def load_input(index: int, image: ImageInput, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Load one image, upright and RGB, of a file of at most `max_pixels`.

    Raises:
        UnreadableImageError: It can't be read; the message names it by its index.
    """
    with _PIL_LOCK if isinstance(image, Image.Image) else nullcontext():
        try:
            if callable(image):
                image = image()
            return load_image(image, max_pixels)
        except (ValueError, OSError) as error:
            raise UnreadableImageError(f"images[{index}]: {error}") from error
        except Exception as error:  # on corrupt data decoders raise nearly everything
            source = f"{image}: " if isinstance(image, (str, os.PathLike)) else ""
            reason = f"{source}{type(error).__name__}: {error}"
            raise UnreadableImageError(f"images[{index}]: {reason}") from error


def check_texts_of_images(texts: Sequence[Sequence[str]]) -> None:
    """Raise a `ValueError` that names the place unless each image has a list of texts."""
    for index, of_image in enumerate(texts):
        if isinstance(of_image, str) or not isinstance(of_image, Sequence):
            raise ValueError(
                f"texts[{index}] must be a list of strings, got {type(of_image).__name__} {of_image!r:.80}"
            )
        for place, text in enumerate(of_image):
            check_text(f"texts[{index}][{place}]", text)


def as_many(images: Iterable[ImageInput], count: int) -> Iterator[ImageInput]:
    """Yield the images; raise a `ValueError` as soon as there are more than lists of texts, or at the end fewer."""
    remedy = "pass one list of texts for each"
    number = 0
    for number, image in enumerate(images, 1):
        if number > count:
            raise ValueError(f"texts has {count} entries for more images: {remedy}")
        yield image
    if number < count:
        raise ValueError(f"texts has {count} entries for {number} images: {remedy}")


def corners_of_detections(detections: Detections, box_format: str, name: str) -> list[list[float]]:
    """Return the corners of detections as a list.

    Raises:
        ValueError: They are said to be `"xywh"`; the message calls them `name`.
    """
    if box_format != "xyxy":
        kind = type(detections).__name__
        raise ValueError(f"{name} are {kind} with corners (x1, y1, x2, y2): leave out `box_format`")
    return detections.xyxy.tolist()


def without_score(box: Sequence[float], name: str) -> list[float]:
    """Return the first four of five numbers, of which the last is a score.

    Raises:
        ValueError: The last number is not from 0 to 1; the message calls the box `name`.
    """
    *numbers, score = box
    try:
        is_score = 0 <= float(score) <= 1
    except (TypeError, ValueError, OverflowError):
        is_score = False
    if not is_score:
        raise ValueError(
            f"{name}={box} has a fifth number that is no score from 0 to 1: divide percentages by 100, and leave out "
            "what else is there, such as a class"
        )
    return numbers


def corners_of_xywh(box: Sequence[float], name: str) -> list[float]:
    """Turn (x, y, width, height) into (x1, y1, x2, y2).

    Raises:
        ValueError: The box is not such a one; the message calls it `name`.
    """
    allowed = "four finite numbers (x, y, width, height) in pixels, width and height positive"
    try:
        x, y, width, height = (float(value) for value in box)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be {allowed}, got {box!r}") from error
    if not (np.isfinite([x, y, width, height]).all() and width > 0 and height > 0):
        raise ValueError(f"{name} must be {allowed}, got {[x, y, width, height]}")
    return [x, y, x + width, y + height]
