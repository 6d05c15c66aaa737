"""The parts that all kinds of benchmarks share: a data set with its problems, settings with their checks."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, TypeVar

from ..checks import check_choice, check_flag
from ..modeling.configurations import WALK_OF_ROLE
from ..modeling.interface import Role
from .image_files import ImageFile, StoredImage

AnySettings = TypeVar("AnySettings", bound="Settings")
Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the upright image

# How boxes are embedded -> the role of the texts that fit: a phrase is not to be compared with a crop, nor a caption
# with features of a region.
ROLE_OF_METHOD: dict[str, Role] = {"roi": "region_phrase", "crop": "caption"}

# Which pixels of a box `method="crop"` takes: all that it touches, or those of the released scripts, which drop the
# decimals of x, y, width and height (boxes) or of both corners (FG-OVD).
CROP_EDGES = ("outward", "whole-sides", "whole-corners")

ROLE_OF_WALK: dict[str, Role] = {"short": "caption", "long": "long_caption"}


@dataclass(frozen=True)
class Problem:
    """A record that can't be used: it is left out of the result, counted and named there."""

    source: str  # "file.json:17", or the file
    reason: str  # with the field, the value, and what is allowed

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


@dataclass(frozen=True)
class DataSet:
    """The data of a benchmark: images, each once, and what of the published files can't be used."""

    images: Sequence[StoredImage]
    problems: Sequence[Problem] = field(default=(), kw_only=True)
    doubts: Sequence[Problem] = field(default=(), kw_only=True)  # what looks wrong, but is used: for `bench check`

    @property
    def items(self) -> int:
        """Return how many things are measured, as the published counts have it."""
        return len(self.images)

    @property
    def own_texts(self) -> Sequence[str]:
        """Return the texts that images are compared with, where they are not names of classes."""
        return ()

    def digest(self) -> str:
        """Return the SHA-256 of all that is measured, with images by name, size and checksum.

        It is the same wherever the files are.
        """
        names = [field.name for field in dataclasses.fields(self) if field.name not in ("problems", "doubts")]
        fields = {name: getattr(self, name) for name in names}
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
class Settings:
    """Settings, on which a result depends besides the model and the data.

    Raises:
        ValueError: A value is not allowed.
    """

    max_num_patches: int | str = "auto"  # of each image, or of each crop; models of one size ignore it

    def __post_init__(self) -> None:
        budget = self.max_num_patches
        if budget != "auto" and (isinstance(budget, bool) or not isinstance(budget, int) or budget < 1):
            raise ValueError(f"max_num_patches must be 'auto' or a positive integer, got {budget!r}")

    @property
    def role(self) -> Role:
        """Return the role that the texts have for the model."""
        return "caption"


@dataclass(frozen=True)
class LabelSettings(Settings):
    """Settings that all comparisons with names of classes have."""

    templates: str = "imagenet"  # texts around a name, averaged: a set of `class_names.templates`, or "none"
    lower_case: bool = True  # as in `CaptionSettings`

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("templates", self.templates, ("none", "imagenet"))
        check_flag("lower_case", self.lower_case)


@dataclass(frozen=True)
class CaptionSettings(Settings):
    """Settings that all comparisons of whole images with texts of their own have."""

    walk_type: str = "short"  # "short" or "long" captions; models of one text head ignore it
    lower_case: bool = True  # False: FG-CLIP 2 reads texts as they are written, though it was trained otherwise

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("walk_type", self.walk_type, ROLE_OF_WALK)
        check_flag("lower_case", self.lower_case)

    @property
    def role(self) -> Role:
        """See the base class."""
        return ROLE_OF_WALK[self.walk_type]


def change(settings: AnySettings, changes: Mapping[str, str]) -> AnySettings:
    """Return settings some of which have values of the command line.

    Raises:
        ValueError: There is no such setting, or the value is not allowed.
    """
    types = {field.name: type(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    values: dict[str, Any] = {}
    for name, text in changes.items():
        if name not in types:
            raise ValueError(f"there is no setting {name!r}; choose one of {', '.join(types)}")
        if types[name] is bool:
            check_choice(name, text, ("true", "false"))
            values[name] = text == "true"
            continue
        try:
            values[name] = float(text) if types[name] is float else int(text)
        except ValueError:
            values[name] = text  # if that is wrong, the check of the setting names it
    return dataclasses.replace(settings, **values)


def as_dict(settings: Settings) -> dict[str, Any]:
    """Return all settings that a result states: the fields, and the walk that both FG-CLIPs call the texts' role."""
    return {**dataclasses.asdict(settings), "walk_type": WALK_OF_ROLE[settings.role]}
