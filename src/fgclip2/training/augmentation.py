"""Random crops, flips and colours of images, as R2D2's fine-tuning has them; in training on pairs only."""

from __future__ import annotations

import math
import re
from typing import Literal

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Augmentation = Literal["none", "r2d2", "r2d2-released"]
AUGMENTATIONS: tuple[Augmentation, ...] = ("none", "r2d2", "r2d2-released")

AREAS, RATIOS = (0.5, 1.0), (3 / 4, 4 / 3)  # of a crop: its share of the image, and width over height
OPERATIONS = (
    *("identity", "auto contrast", "brightness", "sharpness", "equalize"),
    *("shear x", "shear y", "translate x", "translate y", "rotate"),
)
DRAWN, PROBABILITY = 2, 0.5  # operations drawn for an image, each of which is left out half of the time
# The released code has strength 5 of 10, but not what that means: its module is not in the repository. These are the
# meanings in ALBEF, which it was made from. Brightness and sharpness of factor 1 leave the image as it is.
ENHANCEMENT, SHEAR, PIXELS, DEGREES = 0.1 + 1.8 * 0.5, 0.3 * 0.5, 10 * 0.5, 30 * 0.5
FILLING = (128, 128, 128)

# Between Chinese characters, too, where `\b` finds no edge of a word.
_SIDES = re.compile(r"左|右|(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)


def augment(image: Image.Image, caption: str, side: int, rng: np.random.Generator, mirrors_sides: bool) -> Image.Image:
    """Return a random crop of an image as a square, perhaps mirrored, with up to two operations of RandAugment.

    Args:
        image: RGB.
        caption: What is said of it.
        side: Side of the square in pixels.
        rng: Source of all that is random.
        mirrors_sides: Also mirror an image whose caption speaks of left or right, which is then wrong.
    """
    image = image.resize((side, side), Image.Resampling.BICUBIC, draw_crop(image.width, image.height, rng))
    is_mirrored = rng.random() < 0.5
    if is_mirrored and (mirrors_sides or not _SIDES.search(caption)):
        image = ImageOps.mirror(image)
    for operation in rng.choice(OPERATIONS, DRAWN).tolist():
        is_done, sign = rng.random(2) < (PROBABILITY, 0.5)
        if is_done:
            image = apply_operation(image, operation, 1 if sign else -1)
    return image


def draw_crop(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw (left, top, right, bottom) in pixels, as torchvision's `RandomResizedCrop` does."""
    for _ in range(10):
        area = rng.uniform(*AREAS) * width * height
        ratio = math.exp(rng.uniform(math.log(RATIOS[0]), math.log(RATIOS[1])))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - high + 1))
            return left, top, left + wide, top + high
    # None fits: the middle, as much of it as the ratios allow.
    wide, high = min(width, round(height * RATIOS[1])), min(height, round(width / RATIOS[0]))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def apply_operation(image: Image.Image, operation: str, sign: int) -> Image.Image:
    """Apply one of [`OPERATIONS`]; `sign` says to which side it shears, moves or turns the image."""
    if operation == "auto contrast":
        return ImageOps.autocontrast(image)
    if operation == "equalize":
        return ImageOps.equalize(image)
    if operation == "brightness":
        return ImageEnhance.Brightness(image).enhance(ENHANCEMENT)
    if operation == "sharpness":
        return ImageEnhance.Sharpness(image).enhance(ENHANCEMENT)
    if operation == "rotate":
        return image.rotate(sign * DEGREES, Image.Resampling.BILINEAR, fillcolor=FILLING)
    if operation == "identity":
        return image
    kind, axis = operation.split()
    shear, shift = (sign * SHEAR, 0.0) if kind == "shear" else (0.0, sign * PIXELS)
    # x' = a x + b y + c and y' = d x + e y + f, where in the image a pixel of the result is taken from.
    matrix = (1.0, shear, shift, 0.0, 1.0, 0.0) if axis == "x" else (1.0, 0.0, 0.0, shear, 1.0, shift)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=FILLING)
