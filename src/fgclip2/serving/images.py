"""Images as clients send them: base64, data: URLs, or addresses; checked by their headers before they are decoded."""

from __future__ import annotations

import base64
import binascii
import re
from typing import NamedTuple

from PIL import Image

from ..modeling.inputs import open_image
from .errors import ServiceError

DATA_URL = re.compile(r"data:(?:image/[\w.+-]+)?(?:;[\w.+=-]+)*?;base64,", re.IGNORECASE)
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
ANY_NUMBER_OF_PIXELS = 2**62


class EncodedImage(NamedTuple):
    """An image file in memory, and its size by its header."""

    content: bytes
    width: int
    height: int


def is_address(text: str) -> bool:
    """Return whether an image is given by an address other than a `data:` URL."""
    return bool(ADDRESS.match(text)) and text[:5].lower() != "data:"


def decode_base64(text: str, param: str) -> bytes:
    """Return the bytes of base64 or of a `data:` URL of it.

    Raises:
        ServiceError: It is neither; the message does not repeat it.
    """
    start = DATA_URL.match(text)
    if start is None and text[:5].lower() == "data:":
        raise ServiceError(422, "image_not_base64", "a data: URL must be data:image/...;base64,...", param)
    try:
        return base64.b64decode(text[start.end() :] if start else text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ServiceError(
            422, "image_not_base64", "an image must be base64, or a data: URL of it, without line breaks", param
        ) from error


def check_header(content: bytes, max_pixels: int, param: str) -> EncodedImage:
    """Read the size of an image file from its header, without decoding it.

    Raises:
        ServiceError: It is no image that can be read, or has more than `max_pixels` pixels.
    """
    too_large = f"an image may have at most {max_pixels} pixels: make it smaller"
    try:
        with open_image(content, ANY_NUMBER_OF_PIXELS) as image:
            width, height = image.size
    except Image.DecompressionBombError as error:
        raise ServiceError(413, "too_many_pixels", too_large, param) from error
    except Exception as error:  # on corrupt data decoders raise nearly everything
        raise unreadable(param) from error
    if width * height > max_pixels:
        raise ServiceError(413, "too_many_pixels", too_large, param)
    if width < 1 or height < 1:
        raise unreadable(param)
    return EncodedImage(content, width, height)


def unreadable(param: str | None = None) -> ServiceError:
    """Return the error for an image that can't be read; decoders' own messages may quote what they read."""
    return ServiceError(
        422, "image_not_readable", "an image can't be read: send a whole JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF", param
    )
