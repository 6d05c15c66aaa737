"""Read and check what users pass to every family: images, boxes and texts."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

# What float32 tells apart in any image, and what keeps a box's sample points exact.
MIN_BOX_SIDE = 1e-3  # pixels
MAX_BOX_REACH = 100  # times the longer side of the image
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def is_image(images: Any) -> bool:
    """Return `True` for a single image, `False` for several; an array of several images has four axes."""
    if isinstance(images, (np.ndarray, torch.Tensor)):
        return images.ndim in (2, 3)
    return isinstance(images, (Image.Image, bytes, str, os.PathLike))


def load_image(image: "Image.Image | np.ndarray | torch.Tensor | str | os.PathLike") -> Image.Image:
    """Return an upright RGB image.

    Args:
        image: A PIL image; a path; or an array or tensor (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels, either
            integers in 0-255 (uint16: 0-65535) or floats in 0-1.

    Returns:
        PIL image in mode RGB. EXIF orientation is applied, alpha dropped (as the official processor does), 16-bit grey
        scaled to 8 bits; of an animation the first frame is taken (of an open PIL image the current one).

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The file is no readable image (truncated, corrupt, unknown), or the array none of the above.
    """
    if isinstance(image, (str, os.PathLike)):
        return _open_image(Path(image))
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
    if isinstance(image, np.ndarray):
        return _image_from_array(image)
    if isinstance(image, Image.Image):
        return _upright_rgb(image)
    raise ValueError(f"an image is a {type(image).__name__}; allowed: PIL image, numpy array, torch tensor or path")


def _open_image(path: Path) -> Image.Image:
    if str(path).startswith(("http:", "https:")):
        raise ValueError(f"{path}: addresses are not fetched; download the image and pass its path")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image file")
    try:
        with Image.open(path) as image:
            return _upright_rgb(image)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: {error}; raise PIL.Image.MAX_IMAGE_PIXELS if you trust it") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what PIL's decoders raise on broken files
        raise ValueError(f"{path}: not a readable image: {error}") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    if image.width < 1 or image.height < 1:
        raise ValueError(f"the image is empty: {image.width} x {image.height} pixels")
    image.load()  # so that a broken file fails here, where its name is known
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # exif_transpose copies upright images too
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):  # convert("RGB") would clip these to white
        return _image_from_array(np.asarray(image))
    return image if image.mode == "RGB" else image.convert("RGB")


def _image_from_array(array: np.ndarray) -> Image.Image:
    described = f"an image array of shape {array.shape} and dtype {array.dtype}"
    if array.ndim == 3 and array.shape[-1] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or array.size == 0:
        raise ValueError(f"{described}; allowed: (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels")
    low, high = float(array.min()), float(array.max())
    if np.issubdtype(array.dtype, np.floating):
        if not (low >= 0.0 and high <= 1.0):  # also catches NaN
            raise ValueError(f"{described} has values from {low} to {high}; allowed for floats: 0 to 1")
        array = (array * 255.0).round()
    elif np.issubdtype(array.dtype, np.integer):
        limit = 255 if array.dtype == np.uint8 or (high <= 255 and array.dtype != np.uint16) else 65535
        if low < 0 or high > limit:
            raise ValueError(
                f"{described} has values from {low} to {high}; allowed for integers: 0 to 255 (16 bit: 65535)"
            )
        array = array if limit == 255 else (array / 257.0).round()
    else:
        raise ValueError(f"{described}; allowed: integers or floats")
    array = np.ascontiguousarray(array[..., :3], dtype=np.uint8)
    return Image.fromarray(array.repeat(3, axis=-1) if array.shape[-1] == 1 else array)


def load_images(images: Any) -> list[Image.Image]:
    """Return [`load_image`] of one image, a list of them, or an array of several; errors name the image."""
    if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
        images = list(images)
    elif not isinstance(images, (list, tuple)):
        images = [images]
    if not images:
        raise ValueError("images is an empty list; pass at least one image")
    loaded = []
    for index, image in enumerate(images):
        try:
            loaded.append(load_image(image))
        except ValueError as error:
            raise ValueError(f"images[{index}]: {error}") from error
    return loaded


def check_max_num_patches(value: int | str) -> None:
    """Raise a `ValueError` unless `value` is a patch budget: `"auto"`, or a positive integer."""
    if value != "auto" and (isinstance(value, (bool, str)) or not isinstance(value, (int, np.integer)) or value < 1):
        raise ValueError(f"max_num_patches must be 'auto' or a positive integer, got {value!r}")


def check_boxes(boxes: Sequence[Sequence[float]], height: int, width: int, record: str = "boxes") -> None:
    """Check boxes in pixels, (x1, y1, x2, y2), against their image.

    Boxes may reach out of the image, but not lie outside it.

    Args:
        boxes: The boxes of one image.
        height, width: Size of the image in pixels.
        record: What to call the boxes in the error, e.g. `"boxes[3]"`.

    Raises:
        ValueError: A box has not four finite numbers, is inverted, has no area, or lies outside the image.
    """
    for index, box in enumerate(boxes):
        name = f"{record}[{index}]={list(box) if isinstance(box, Sequence) else box!r}"
        try:
            x1, y1, x2, y2 = (float(value) for value in box)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}; allowed: four numbers (x1, y1, x2, y2) in pixels") from error
        if not all(map(math.isfinite, (x1, y1, x2, y2))):
            raise ValueError(f"{name} is not finite; allowed: four finite numbers (x1, y1, x2, y2) in pixels")
        if x2 < x1 or y2 < y1:
            hint = "if it is (x, y, width, height), pass box_format='xywh' or convert it"
            raise ValueError(f"{name} is inverted: x2 must be above x1 and y2 above y1; {hint}")
        if x2 - x1 < MIN_BOX_SIDE or y2 - y1 < MIN_BOX_SIDE:
            raise ValueError(f"{name} has no area; allowed: sides of at least {MIN_BOX_SIDE} pixels")
        if max(map(abs, (x1, y1, x2, y2))) > MAX_BOX_REACH * max(width, height):
            raise ValueError(f"{name} reaches far outside its image of {width} x {height} pixels (width x height)")
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            raise ValueError(f"{name} lies outside its image of {width} x {height} pixels (width x height)")


def check_text(name: str, text: Any) -> str:
    """Return `text` if it is a string that has a UTF-8 form, else raise a `ValueError` that names it."""
    if not isinstance(text, str):
        hint = " (pairs of texts and split words are not supported)" if isinstance(text, (list, tuple)) else ""
        raise ValueError(f"{name} must be a string, got {type(text).__name__} {text!r:.80}{hint}")
    surrogate = _LONE_SURROGATE.search(text)
    if surrogate:
        raise ValueError(
            f"{name} has the lone surrogate {surrogate.group()!r} at position {surrogate.start()}, probably one half "
            "of an emoji: repair the text with text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
        )
    return text


__all__ = [
    "MIN_BOX_SIDE",
    "check_boxes",
    "check_max_num_patches",
    "check_text",
    "is_image",
    "load_image",
    "load_images",
]
