"""Read and check what users pass to every family: images, boxes and texts."""

import importlib
import io
import math
import os
import re
import struct
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

# By Pillow's names. No other format is tried, whatever a file is called: Pillow's decoder of EPS starts a program.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "PPM", "AVIF")
HEIC_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"])

MAX_PIXELS = 178_956_970  # what Pillow opens by default; decoding takes up to 12 bytes a pixel
MAX_NUM_PATCHES = 16_384
MAX_EXIF_SIZE = 2**16  # bytes, what a segment of JPEG holds
BLOCK_SIZE = 2**16  # values that are scaled at a time
ORIENTED_BY = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")  # where Pillow finds an orientation
TRANSPOSITIONS = {  # EXIF orientation -> what turns the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height

# What float32 tells apart in any image, and what keeps a box's sample points exact.
MIN_BOX_SIDE = 1e-3  # pixels
MAX_BOX_REACH = 100  # times the longer side of the image
FEW_PIXELS = 8  # of the longer side of an image in which boxes of less than a pixel may be meant
CUT = "reach outside their images and are cut at the border; check that they are in pixels of the upright image"
ONE_PIXEL = "cover one pixel, as relative boxes of a whole image would; check that they are in pixels"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def is_image(images: Any) -> bool:
    """Return `True` for a single image, `False` for several; an array of several images has four axes."""
    if isinstance(images, np.ndarray) or _is_tensor(images):
        return images.ndim in (2, 3)
    return isinstance(images, (Image.Image, bytes, str, os.PathLike))


def _is_tensor(value: Any) -> bool:
    """Tell a tensor of torch, which whoever has one has imported: this file serves without it too."""
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def load_image(image: Any, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return an upright RGB image.

    Args:
        image: A PIL image; a path; an encoded image as bytes; or an array or tensor (H, W), (H, W, C) or (C, H, W) with
            1, 3 or 4 channels, either integers in 0-255 (uint16: 0-65535) or floats in 0-1.
        max_pixels: Files of more pixels are refused before they are decoded.

    Returns:
        PIL image in mode RGB. EXIF orientation is applied, alpha dropped (as the official processor does), 16-bit grey
        scaled to 8 bits; of an animation the first frame is taken (of an open PIL image the current one).

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The file is no readable image (truncated, corrupt, too large, of a format that is not in
            `IMAGE_FORMATS`), or the array none of the above.
    """
    if isinstance(image, (bytes, str, os.PathLike)):
        return _load_file(image, max_pixels)
    if _is_tensor(image):
        image = image.detach().cpu().numpy()
    if isinstance(image, np.ndarray):
        return _image_from_array(image)
    if isinstance(image, Image.Image):
        if isinstance(image, ImageFile.ImageFile):
            _check_pixels(image, max_pixels)
        return _upright_rgb(image)
    allowed = "PIL image, numpy array, torch tensor, encoded image (bytes) or path"
    raise ValueError(f"an image is a {type(image).__name__}; allowed: {allowed}")


def open_image(source: str | os.PathLike | bytes | BinaryIO, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image file without decoding it. All of this package opens image files here.

    Args:
        source: A path, an encoded image, or a binary file that can seek.
        max_pixels: The most pixels that the image may have.

    Returns:
        PIL image of one of `IMAGE_FORMATS`, or HEIF where pi-heif is installed; closing it closes a file of its own.

    Raises:
        OSError: There is no such file, or it is of none of these formats (`PIL.UnidentifiedImageError`).
        ValueError: It has more pixels than `max_pixels`, or is of a format for which a package is missing.
    """
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    Image.init()  # registers the formats that this release of Pillow has
    try:
        image = Image.open(file, formats=[name for name in IMAGE_FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        if not HEIC_BRANDS & _brands(file):
            raise
        try:  # registered on use; by name, for checkpoints that carry this file load where the package is missing
            importlib.import_module("pi_heif").register_heif_opener()
        except ImportError:
            raise ValueError('HEIC images need the package pi-heif; run: pip install "fgclip2[heic]"') from None
        image = Image.open(file, formats=["HEIF"])
    try:
        _check_pixels(image, max_pixels)
    except ValueError:
        image.close()
        raise
    return image


def _brands(file: Any) -> set[bytes]:
    """Return the brands that the header of a HEIC file names, its own and those that it is compatible with."""
    if isinstance(file, (str, os.PathLike)):
        with Path(file).open("rb") as opened:
            header = opened.read(64)
    else:
        file.seek(0)
        header = file.read(64)
    end = int.from_bytes(header[:4], "big") if header[4:8] == b"ftyp" else 0
    return {header[start : start + 4] for start in range(8, min(end, len(header)), 4)}


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ValueError(
            f"the image has {image.width} x {image.height} pixels, more than max_pixels={max_pixels}: pass a larger "
            "max_pixels if you trust it, or make it smaller"
        )


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1 is upright."""
    exif = image.info.get("exif")
    if exif is None or len(exif) <= MAX_EXIF_SIZE:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    # Some formats hold any amount, whose tags Pillow takes minutes to read; they are listed at the beginning.
    content = exif[: 2 * MAX_EXIF_SIZE].removeprefix(b"Exif\0\0")
    order = "<" if content.startswith(b"II") else ">"
    start = int.from_bytes(content[4:8], "little" if order == "<" else "big")
    entries = content[start + 2 :]
    for tag, _, _, value, _ in struct.iter_unpack(f"{order}HHIHH", entries[: len(entries) // 12 * 12]):
        if tag == ExifTags.Base.Orientation:
            return value
    return 1


def read_size(source: str | os.PathLike | bytes | BinaryIO) -> tuple[int, int]:
    """Return width and height of the upright image in a file, by its header.

    Raises:
        OSError, ValueError: As [`open_image`] does.
    """
    with open_image(source) as image:
        if image.format == "TIFF":  # whose sizes some releases of Pillow turn already
            return _upright_rgb(image).size
        width, height = image.size
        return (height, width) if read_orientation(image) in SIDEWAYS else (width, height)


def _load_file(source: bytes | str | os.PathLike, max_pixels: int) -> Image.Image:
    if isinstance(source, bytes):
        name = f"{len(source)} bytes"
    else:
        name, source = str(source), Path(source)
        if name.startswith(("http:", "https:")):
            raise ValueError(f"{name}: addresses are not fetched; download the image and pass its path")
        if not source.is_file():
            raise FileNotFoundError(f"{name}: no such image file")
    try:
        with open_image(source, max_pixels) as image:
            return _upright_rgb(image)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name}: {error}; make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS and pass a larger max_pixels if "
            "you trust it"
        ) from error
    except UnidentifiedImageError as error:  # whose own message names a buffer of Python's
        if isinstance(source, bytes):
            raise ValueError(f"{name} of no known image format") from error
        formats = ", ".join(IMAGE_FORMATS)
        raise ValueError(f"{name}: not a readable image: its content is none of {formats} and HEIC") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what PIL's decoders raise on broken files
        raise ValueError(f"{name}: not a readable image: {error}") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    if image.width < 1 or image.height < 1:
        raise ValueError(f"the image is empty: {image.width} x {image.height} pixels")
    image.load()  # so that a broken file fails here, where its name is known
    orientation = read_orientation(image)
    if image.mode.startswith(("I", "F")):  # convert("RGB") would clip these to white
        image = _image_from_array(np.asarray(image))
    elif image.mode != "RGB":
        image = image.convert("RGB")
    if orientation not in TRANSPOSITIONS:
        return image
    image = image.transpose(TRANSPOSITIONS[orientation])
    for name in ORIENTED_BY:  # else it would be turned again where it is loaded again
        image.info.pop(name, None)
    return image


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
        factor, divisor = 255.0, 1.0
    elif np.issubdtype(array.dtype, np.integer):
        limit = 255 if array.dtype == np.uint8 or (high <= 255 and array.dtype != np.uint16) else 65535
        if low < 0 or high > limit:
            raise ValueError(
                f"{described} has values from {low} to {high}; allowed for integers: 0 to 255 (16 bit: 65535)"
            )
        factor, divisor = 1.0, limit / 255.0
    else:
        raise ValueError(f"{described}; allowed: integers or floats")
    array = array[..., :3]
    if factor == divisor:
        pixels = np.ascontiguousarray(array, dtype=np.uint8)
    else:
        pixels = np.empty(array.shape, np.uint8)
        rows = max(1, BLOCK_SIZE // array[0].size)
        for top in range(0, len(array), rows):  # in blocks, for floats of the whole image would take 8 bytes a value
            pixels[top : top + rows] = (array[top : top + rows] * factor / divisor).round()
    del array  # what Pillow's pixels were copied to, before the result takes memory
    return Image.fromarray(pixels[..., 0]).convert("RGB") if pixels.shape[-1] == 1 else Image.fromarray(pixels)


def load_images(images: Any) -> list[Image.Image]:
    """Return [`load_image`] of one image, a list of them, or an array of several; errors name the image."""
    if (isinstance(images, np.ndarray) or _is_tensor(images)) and images.ndim == 4:
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
    """Raise a `ValueError` unless `value` is a patch budget: `"auto"`, or an integer from 1 to `MAX_NUM_PATCHES`."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if value != "auto" and not (is_integer and 1 <= int(value) <= MAX_NUM_PATCHES):
        raise ValueError(
            f"max_num_patches must be 'auto' or a positive integer, got {value!r}; allowed: up to {MAX_NUM_PATCHES}"
        )


def check_boxes(boxes: Sequence[Sequence[float]], height: int, width: int, record: str = "boxes") -> None:
    """Check boxes in pixels, (x1, y1, x2, y2), against their image.

    Boxes may reach out of the image ([`DoubtfulBoxes`] counts those), but not lie outside it.

    Args:
        boxes: The boxes of one image.
        height, width: Size of the image in pixels.
        record: What to call the boxes in the error, e.g. `"boxes[3]"`.

    Raises:
        ValueError: A box has not four finite numbers, is inverted, has no area, or lies outside the image; or all boxes
            are relative, with fractions from 0 to 1.
    """
    corners: list[float] = []
    for index, box in enumerate(boxes):
        name = f"{record}[{index}]={list(box) if isinstance(box, Sequence) else box!r}"
        try:
            x1, y1, x2, y2 = (float(value) for value in box)
        except (TypeError, ValueError, OverflowError) as error:
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
        corners += [x1, y1, x2, y2]
    are_small = corners and min(corners) >= 0 and max(corners) <= 1 and max(width, height) > FEW_PIXELS
    if are_small and not {0.0, 1.0}.issuperset(corners):  # (0, 0, 1, 1) may be meant as a pixel
        raise ValueError(
            f"{record}={[list(box) for box in boxes]!r:.200} are relative, all from 0 to 1, but the image has "
            f"{width} x {height} pixels: multiply x by {width} and y by {height}"
        )


class DoubtfulBoxes:
    """Count boxes that are usable but hardly meant, to warn of all of a kind in one line."""

    def __init__(self) -> None:
        self.counts = {CUT: 0, ONE_PIXEL: 0}
        self.first: dict[str, str] = {}

    def add(self, boxes: Sequence[Sequence[float]], height: int, width: int, record: str) -> None:
        """Look at the boxes of one image; the arguments are those of [`check_boxes`]."""
        for index, (x1, y1, x2, y2) in enumerate(boxes):
            if min(x1, y1) <= -1 or x2 >= width + 1 or y2 >= height + 1:
                kind = CUT
            elif min(x1, y1) >= 0 and max(x2, y2) <= 1 and max(width, height) > FEW_PIXELS:
                kind = ONE_PIXEL
            else:
                continue
            self.counts[kind] += 1
            self.first.setdefault(kind, f"{record}[{index}]={[x1, y1, x2, y2]} in {width} x {height} pixels")

    def warn(self) -> None:
        """Issue a `UserWarning` for each kind of which there are any."""
        for kind, first in self.first.items():
            warnings.warn(f"Number of boxes that {kind}: {self.counts[kind]}. The first is {first}", stacklevel=3)


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
    "IMAGE_FORMATS",
    "MAX_NUM_PATCHES",
    "MAX_PIXELS",
    "MIN_BOX_SIDE",
    "DoubtfulBoxes",
    "check_boxes",
    "check_max_num_patches",
    "check_text",
    "is_image",
    "load_image",
    "load_images",
    "open_image",
    "read_orientation",
    "read_size",
]
