"""What each kind of benchmark needs of a data set, whatever file it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from .image_files import ImageFile, StoredImage

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the upright image


@dataclass(frozen=True)
class Problem:
    """A record that can't be used: it is left out of the result, counted and named there."""

    source: str  # "file.json:17", or the file
    reason: str  # with the field, the value, and what is allowed

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


@dataclass(frozen=True)
class DataSet:
    """What all have: images, each once, and what of the published files can't be used."""

    images: Sequence[StoredImage]
    problems: Sequence[Problem] = field(default=(), kw_only=True)

    @property
    def items(self) -> int:
        """How many things are measured, as the published counts have it."""
        return len(self.images)

    @property
    def own_texts(self) -> Sequence[str]:
        """The texts that images are compared with, where they are not names of classes."""
        return ()

    def digest(self) -> str:
        """SHA-256 of all that is measured, images by name, size and checksum: the same wherever the files are."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "problems"}
        return hashlib.sha256(json.dumps(fields, sort_keys=True, default=_as_json).encode()).hexdigest()


def _as_json(value: Any) -> Any:
    if isinstance(value, Path):
        return hashlib.sha256(value.read_bytes()).hexdigest()
    if isinstance(value, ImageFile):
        return [PurePath(value.member or value.path).name, *value.stamp()]
    if isinstance(value, Mapping):
        return dict(value)
    return PurePath(str(value)).name  # an image within another file


@dataclass(frozen=True)
class RetrievalData(DataSet):
    """Images and captions; an image may have several captions, and a caption several images."""

    captions: Sequence[str]
    pairs: Sequence[tuple[int, int]]  # (image, caption) that belong together

    @property
    def items(self) -> int:
        """See the base class."""
        return len(self.captions)

    @property
    def own_texts(self) -> Sequence[str]:
        """See the base class."""
        return self.captions


@dataclass(frozen=True)
class RegionData(DataSet):
    """Boxes with a category each."""

    boxes: Sequence[Sequence[Box]]  # of each image
    categories: Sequence[Sequence[int]]  # of each box, an index into the names
    names: Mapping[str, Sequence[str]]  # language -> names of all categories

    @property
    def items(self) -> int:
        """See the base class."""
        return sum(map(len, self.boxes))


@dataclass(frozen=True)
class HardNegativeData(DataSet):
    """Boxes, each with its true text, the first, and false ones."""

    boxes: Sequence[Sequence[Box]]  # of each image
    texts: Sequence[Sequence[Sequence[str]]]  # of each box

    @property
    def items(self) -> int:
        """See the base class."""
        return sum(map(len, self.boxes))

    @property
    def own_texts(self) -> Sequence[str]:
        """See the base class."""
        return [text for of_image in self.texts for of_box in of_image for text in of_box]


@dataclass(frozen=True)
class MatchingData(DataSet):
    """Texts that fit an image or don't."""

    texts: Sequence[str]
    pairs: Sequence[tuple[int, int]]  # (image, text)
    labels: Sequence[bool]  # of each pair

    @property
    def items(self) -> int:
        """See the base class."""
        return len(self.pairs)

    @property
    def own_texts(self) -> Sequence[str]:
        """See the base class."""
        return self.texts


@dataclass(frozen=True)
class ClassificationData(DataSet):
    """Images with a class each."""

    classes: Sequence[int]  # of each image, an index into the names
    names: Mapping[str, Sequence[str]]  # language -> names of all classes


@dataclass(frozen=True)
class SegmentationData(DataSet):
    """Images with a class for each pixel."""

    masks: Sequence[ImageFile]  # of each image: 8- or 16-bit grey or palette, of the image's size
    names: Mapping[str, Sequence[str]]  # language -> names of the classes, in the order of their values in the masks
    ignored: int | None = 255  # value of pixels that don't count


@dataclass(frozen=True)
class DetectionData(DataSet):
    """Boxes that a detector found, to be scored anew."""

    image_ids: Sequence[int | str]  # of each image, as the ground truth has them
    boxes: Sequence[Sequence[Box]]  # of each image; may reach out of it
    categories: Sequence[Sequence[int]]  # of each box, the detector's: an index into the names
    scores: Sequence[Sequence[float]]  # of each box, the detector's
    names: Mapping[str, Sequence[str]]  # language -> names of all categories
    category_ids: Sequence[int | str]  # of each name, as the ground truth has them
    ground_truth: Path  # file of instances that the boxes are measured by
    missing_ids: Sequence[int | str] = ()  # of images that have boxes, and are not there

    @property
    def items(self) -> int:
        """See the base class."""
        return sum(map(len, self.boxes))
