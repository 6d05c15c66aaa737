"""Segmentation by names of classes, without training: the class whose text is nearest to the dense features of a pixel.

The paper's numbers are of another kind: of a head (Cat-Seg) trained on COCO-Stuff on top of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import UnidentifiedImageError

from ...checks import check_number
from ...embedding.inputs import load_input
from ...errors import UnreadableImageError
from ...metrics import class_areas, mean_iou, mean_iou_interval
from ...modeling.inputs import open_image
from ...modeling.interface import Role
from ..base import DataSet, LabelSettings, Problem
from ..encoding import Encoder
from ..image_files import ImageFile
from ..labels import label_vectors
from ..scores import Estimate, Scores

_MAPS_AT_ONCE = 16  # maps of an image's full size in memory; a data set may have hundreds of classes
_MODES = ("L", "P", "I;16", "I")  # of masks: 8- or 16-bit grey, or a palette


@dataclass(frozen=True)
class SegmentationData(DataSet):
    """Images with a class for each pixel."""

    masks: Sequence[ImageFile]  # of each image: 8- or 16-bit grey or palette, of the image's size
    names: Mapping[str, Sequence[str]]  # language -> names of the classes, in the order of their values in the masks
    ignored: int | None = 255  # value of pixels that don't count


@dataclass(frozen=True)
class SegmentationSettings(LabelSettings):
    """Settings of segmentation by dense features."""

    background_threshold: float = -1.0  # pixels whose best cosine is below it are of class 0; -1: none is

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("background_threshold", self.background_threshold, -1, 1)

    @property
    def role(self) -> Role:
        """See the base class."""
        return "region_phrase"


def evaluate(data: SegmentationData, encoder: Encoder, settings: SegmentationSettings, language: str) -> Scores:
    """Compute the mean over classes of intersection over union, each over all images; its interval is over images.

    Args:
        data: With masks of their images' sizes, as `check_masks` makes sure; others are stretched.
        encoder, settings, language: As of every kind.

    Returns:
        Scores; `per_item` has the share of right pixels of each image, NaN where it can't be read or no pixel counts.

    Raises:
        ValueError: No image can be read, no pixel counts, a mask can't be used, or the model has no dense features.
    """
    names = label_vectors(encoder, data.names[language], settings, language)
    classes = len(names)

    def areas_of(cosines: np.ndarray, mask: ImageFile) -> np.ndarray:
        truth = read_mask(mask, classes, data.ignored)
        predicted = predict(cosines, truth.shape, settings.background_threshold)
        return class_areas(predicted, truth, classes, data.ignored).ravel()

    others = {"background_threshold": settings.background_threshold, "ignored": data.ignored}
    encoded = encoder.heatmaps(data.images, data.masks, names, settings.max_num_patches, areas_of, others)
    encoded.check_some(len(encoded.vectors))
    areas = encoded.vectors.reshape(-1, 3, classes)
    if not areas[:, 1].any():
        raise ValueError(
            f"{data.masks[0].path.parent}: every pixel of the masks is {data.ignored}, which does not count"
        )
    right, counted, _ = areas.sum(axis=2).T
    per_item = np.full(len(data.images), np.nan)
    per_item[encoded.owners[counted > 0]] = right[counted > 0] / counted[counted > 0]
    metrics = {"miou": Estimate(mean_iou(areas), len(areas), partial(mean_iou_interval, areas))}
    return Scores(metrics, {"pixel_accuracy": per_item}, encoded.problems)


def predict(cosines: np.ndarray, size: tuple[int, ...], background_threshold: float = -1.0) -> np.ndarray:
    """Return the class of each pixel: the one of the highest cosine, of equal ones the first.

    Args:
        cosines: Float32 (classes, height, width) on the grid of patches; interpolated.
        size: (height, width) in pixels.
        background_threshold: Pixels whose highest cosine is below it get class 0.

    Returns:
        Int64 of shape `size`.
    """
    highest = torch.full(size, -torch.inf)
    predicted = torch.zeros(size, dtype=torch.int64)
    for start in range(0, len(cosines), _MAPS_AT_ONCE):
        some = torch.from_numpy(cosines[None, start : start + _MAPS_AT_ONCE])
        maps = F.interpolate(some, size, mode="bilinear", antialias=True)[0]  # (some classes, *size)
        best, its_class = maps.max(dim=0)
        predicted = torch.where(best > highest, start + its_class, predicted)
        highest = torch.maximum(best, highest)
    return predicted.masked_fill(highest < background_threshold, 0).numpy()


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
        with open_image(mask.read()) as opened:
            mode, values = opened.mode, np.asarray(opened)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:  # whose message names a buffer of Python's
        raise UnreadableImageError(f"{mask}: the mask is of no known image format") from error
    except Exception as error:  # on corrupt data decoders raise nearly everything
        raise UnreadableImageError(f"{mask}: {type(error).__name__}: {error}") from error
    if mode not in _MODES:
        raise ValueError(f"{mask}: the mask's mode is {mode}, but 8- or 16-bit grey or a palette is needed")
    wrong = sorted(set(np.unique(values).tolist()) - set(range(classes)) - {ignored})
    if wrong:
        raise ValueError(f"{mask}: the mask has the value {wrong[0]}; values must be 0 to {classes - 1}, or {ignored}")
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
            height, width = read_mask(mask, classes, data.ignored).shape
            size = load_input(0, image.read()).size
            if size != (width, height):
                raise ValueError(f"the mask has {width} x {height} pixels, but {image} has {size[0]} x {size[1]}")
            good.append(index)
        except ValueError as error:
            reason = str(error).removeprefix(f"{mask}: ").replace("images[0]", str(image), 1)
            problems.append(Problem(str(mask), reason))
    if not good:
        raise ValueError(f"{data.masks[0].path.parent} has no pair that can be used; the first problem: {problems[0]}")
    return replace(data, images=[data.images[i] for i in good], masks=[data.masks[i] for i in good], problems=problems)
