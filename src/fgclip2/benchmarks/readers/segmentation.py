"""Images with a class for each pixel, from a folder of images and one of masks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...embedding.inputs import load_input
from ...errors import UnreadableImageError
from ..data_sets import Problem, SegmentationData
from ..image_files import ImageFile, StoredImage
from ._files import check_usable, existing_root, image_files
from .classification import Names, read_class_names

_LOSSY = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".jp2")
_MODES = ("L", "P", "I;16", "I")


def read_segmentation(
    images: str | Path, masks: str | Path, names: Names | str | Path, ignored: int | None = 255
) -> SegmentationData:
    """Pair images and masks that have the same name but for the suffix, in whatever subfolders.

    A mask's value is the index of a class. So ADE20K's 150 classes (0 in its own masks is none, 1 the first class) and
    Pascal VOC's 20 (0 is the background) are first converted, as open-vocabulary methods do: one less, 255 for none.
    No owner publishes this layout as such: it is the one that such conversions write.

    Args:
        images, masks: Folders, or zip archives of them. Masks are lossless: 8 or 16 bits of grey, or a palette.
        names: Language -> names in the order of the masks' values, or a file of them, as `read_class_names` reads.
        ignored: The value of pixels that don't count; None: all count.

    Returns:
        The pairs in the order of the images' paths; images and masks without a partner are its problems. Masks are not
        opened: `check_masks` does.

    Raises:
        ValueError: There is no such folder or file, no pair, or names are by folder.
    """
    all_names = read_class_names(names)
    if any(isinstance(each, Mapping) for each in all_names.values()):
        raise ValueError("names are by folder; allowed: a list in the order of the masks' values")
    problems: list[Problem] = []
    images_by_stem = _by_stem(existing_root(images), (), problems)
    masks_by_stem = _by_stem(existing_root(masks), _LOSSY, problems)
    for stem, image in images_by_stem.items():
        if stem not in masks_by_stem:
            problems.append(Problem(str(image), f"the image has no mask; allowed: {stem}.png in {masks}"))
    for stem, mask in masks_by_stem.items():
        if stem not in images_by_stem:
            problems.append(Problem(str(mask), f"the mask has no image; allowed: one named {stem} in {images}"))
    paired = [stem for stem in images_by_stem if stem in masks_by_stem]
    check_usable(len(paired), images, problems)
    return SegmentationData(
        images=[images_by_stem[stem] for stem in paired],
        masks=[masks_by_stem[stem] for stem in paired],
        names={language: list(each) for language, each in all_names.items()},
        ignored=ignored,
        problems=problems,
    )


def read_mask(mask: ImageFile, classes: int, ignored: int | None) -> np.ndarray:
    """Decode a mask.

    Args:
        classes: How many there are.
        ignored: The value of pixels that don't count.

    Returns:
        Integers (height, width): the class of each pixel, or `ignored`.

    Raises:
        UnreadableImageError: It is missing or broken.
        ValueError: It is in colour, or has a value that is neither.
    """
    try:
        with Image.open(io.BytesIO(mask.read())) as opened:
            mode, values = opened.mode, np.asarray(opened)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:  # whose message names a buffer of Python's
        raise UnreadableImageError(f"{mask}: the mask is of no known image format") from error
    except Exception as error:  # on corrupt data decoders raise nearly everything
        raise UnreadableImageError(f"{mask}: {type(error).__name__}: {error}") from error
    if mode not in _MODES:
        raise ValueError(f"{mask}: the mask's mode is {mode}; allowed: 8- or 16-bit grey, or a palette")
    wrong = sorted(set(np.unique(values).tolist()) - set(range(classes)) - {ignored})
    if wrong:
        raise ValueError(f"{mask}: the mask has the value {wrong[0]}; allowed: 0 to {classes - 1}, and {ignored}")
    return values


def check_masks(data: SegmentationData) -> SegmentationData:
    """Open all images and masks; pairs that can't be used, or differ in size, become problems.

    Raises:
        ValueError: No pair is left.
    """
    classes = len(next(iter(data.names.values())))
    problems, good = list(data.problems), []
    for index, (image, mask) in enumerate(zip(data.images, data.masks, strict=True)):
        try:
            _check_pair(image, mask, classes, data.ignored)
            good.append(index)
        except ValueError as error:
            problems.append(Problem(str(mask), str(error).removeprefix(f"{mask}: ")))
    check_usable(len(good), data.masks[0].path.parent, problems)
    return replace(data, images=[data.images[i] for i in good], masks=[data.masks[i] for i in good], problems=problems)


def _check_pair(image: StoredImage, mask: ImageFile, classes: int, ignored: int | None) -> None:
    height, width = read_mask(mask, classes, ignored).shape
    size = _size(image)
    if size != (width, height):
        raise ValueError(
            f"{mask}: the mask has {width} x {height} pixels; allowed: the {size[0]} x {size[1]} of {image}"
        )


def _size(image: StoredImage) -> tuple[int, int]:
    """(width, height) of the upright image."""
    content = image.read()
    try:
        return load_input(0, content).size
    except UnreadableImageError as error:
        raise UnreadableImageError(str(error).replace("images[0]", str(image), 1)) from error


def _by_stem(root: Path, refused: tuple[str, ...], problems: list[Problem]) -> dict[str, ImageFile]:
    """Path within the folder or archive, without suffix -> image."""
    found: dict[str, ImageFile] = {}
    for path, image in image_files(root, problems).items():
        stem = path.with_suffix("").as_posix()
        if path.suffix.lower() in refused:
            problems.append(Problem(str(image), "the mask is compressed with loss; allowed: .png or .tif"))
        elif stem in found:
            problems.append(Problem(str(image), f"the name is that of {found[stem]} too; allowed: each name once"))
        else:
            found[stem] = image
    return found
