"""Limits: what one request may ask of the service, and what the service holds at a time."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..checks import check_number, check_positive_integer

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and what the service holds at a time; each has an error of its own.

    Args:
        body_bytes: Most bytes of a body, and of an image that is fetched: images come as base64, of 4/3 their size.
        pixels: Most pixels of an image, by its header. Decoding takes up to 12 bytes a pixel.
        images: Most images of a request.
        texts: Most texts of a request, labels in all their templates counted.
        text_characters: Most characters of one text.
        boxes: Most boxes of an image.
        hits: Most hits and candidates of a search.
        seconds: Most seconds from the last byte of a body to its answer. As many may pass until the body is there.
        waiting: Most texts, images and searches that wait for the model at a time.
        held_bytes: Most bytes of all bodies, and of images fetched for them, that are held at a time.
        connections: Most open connections.
        cached_texts: Most texts whose vectors are kept, the least recently used going first; 0: none.

    Raises:
        ValueError: A limit is no positive number, or one request could exceed what the service holds.
    """

    body_bytes: int = 16 * MEBIBYTE
    pixels: int = 32 * MEBIBYTE
    images: int = 32
    texts: int = 256
    text_characters: int = 8192
    boxes: int = 256
    hits: int = 100
    seconds: float = 30.0
    waiting: int = 1024
    held_bytes: int = 256 * MEBIBYTE
    connections: int = 512
    cached_texts: int = 10_000

    def __post_init__(self) -> None:
        check_number("seconds", self.seconds, 0.001)
        check_number("cached_texts", self.cached_texts, 0)
        for field in fields(self):
            if field.name not in ("seconds", "cached_texts"):
                check_positive_integer(field.name, getattr(self, field.name))
        if self.waiting < max(self.texts, self.images):
            raise ValueError(
                f"waiting={self.waiting} is below texts={self.texts} or images={self.images}: a request of so many "
                "could never wait; raise it, or lower those"
            )
        if self.held_bytes < self.body_bytes:
            raise ValueError(
                f"held_bytes={self.held_bytes} is below body_bytes={self.body_bytes}: a body of that size could never "
                "be held; raise it, or lower that"
            )
