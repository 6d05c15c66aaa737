"""What a result depends on besides the model and the data: a class for each kind of benchmark."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

from ..modeling.image_processing_fgclip2 import check_max_num_patches

AnySettings = TypeVar("AnySettings", bound="Settings")

# method -> the head that fits it: region features and crops must not be compared with each other's texts
_HEADS = {"roi": "box", "crop": "short"}


@dataclass(frozen=True)
class Settings:
    """What all kinds have.

    Raises:
        ValueError: A value is not allowed.
    """

    max_num_patches: int | str = "auto"  # of each image, or of each crop; models of one size ignore it

    def __post_init__(self) -> None:
        check_max_num_patches(self.max_num_patches)


@dataclass(frozen=True)
class RetrievalSettings(Settings):
    """Of image-text retrieval."""

    walk_type: str = "short"  # the text head: "long" takes 196 tokens, "short" 64; models of one head ignore it
    lower_case: bool = True  # False: FG-CLIP 2 reads texts as they are written, though it was trained otherwise

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("walk_type", self.walk_type, ("short", "long"))
        _check_flag("lower_case", self.lower_case)


@dataclass(frozen=True)
class MatchingSettings(RetrievalSettings):
    """Of telling texts that fit an image from those that don't."""


@dataclass(frozen=True)
class LabelSettings(Settings):
    """What all comparisons with names of classes have."""

    templates: str = "imagenet"  # texts around a name, averaged: a set of `class_names.templates`, or "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("templates", self.templates, ("none", "imagenet"))


@dataclass(frozen=True)
class ClassificationSettings(LabelSettings):
    """Of zero-shot classification of whole images."""

    whole_batches_of: int = 1  # images after the last whole batch of so many don't count

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.whole_batches_of) is not int or self.whole_batches_of < 1:
            raise ValueError(f"whole_batches_of={self.whole_batches_of!r}; allowed: a positive integer")

    @property
    def walk_type(self) -> str:
        """The head that whole images are compared with."""
        return "short"


@dataclass(frozen=True)
class RegionSettings(LabelSettings):
    """Of classification of boxes."""

    method: str = "roi"  # region features; "crop": what is in the box as an image of its own
    crowds: bool = True  # whether boxes of crowds count

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("method", self.method, tuple(_HEADS))
        _check_flag("crowds", self.crowds)

    @property
    def walk_type(self) -> str:
        """The head that fits the method."""
        return _HEADS[self.method]


@dataclass(frozen=True)
class HardNegativeSettings(Settings):
    """Of choosing the true text of a box."""

    method: str = "roi"  # as in `RegionSettings`
    ties: str = "wrong"  # whether a true text that a false one equals is a success: "wrong", "right"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("method", self.method, tuple(_HEADS))
        _check_choice("ties", self.ties, ("wrong", "right"))

    @property
    def walk_type(self) -> str:
        """As in `RegionSettings`."""
        return _HEADS[self.method]


@dataclass(frozen=True)
class DetectionSettings(LabelSettings):
    """Of scoring a detector's boxes anew."""

    method: str = "roi"  # as in `RegionSettings`
    rules: str = "coco"  # of AP: "coco", "lvis": the best 300 boxes of an image, "lvis-fixed": 10,000 of a category
    region_scale: float = 100.0  # of the cosines before the softmax over classes; 100 in training
    fusion_weight: float = 0.5  # exponent of the region's probability; that of the detector's score is the rest of 1
    reclassify: bool = True  # whether the class of the highest fused score replaces the detector's
    score_threshold: float = 0.0  # boxes that the detector scores below it are dropped, also from its own AP

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("method", self.method, tuple(_HEADS))
        _check_choice("rules", self.rules, ("coco", "lvis", "lvis-fixed"))
        _check_number("region_scale", self.region_scale, 0, 1000)
        _check_number("fusion_weight", self.fusion_weight, 0, 1)
        _check_flag("reclassify", self.reclassify)
        _check_number("score_threshold", self.score_threshold, 0, 1)

    @property
    def walk_type(self) -> str:
        """As in `RegionSettings`."""
        return _HEADS[self.method]


@dataclass(frozen=True)
class SegmentationSettings(LabelSettings):
    """Of segmentation by dense features."""

    background_threshold: float = -1.0  # pixels whose best cosine is below it are of class 0; -1: none is

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_number("background_threshold", self.background_threshold, -1, 1)

    @property
    def walk_type(self) -> str:
        """The head that dense features are compared with."""
        return "box"


def change(settings: AnySettings, changes: dict[str, str]) -> AnySettings:
    """Settings with values of the command line.

    Raises:
        ValueError: There is no such setting, or the value is not allowed.
    """
    types = {field.name: type(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    values: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in types:
            raise ValueError(f"there is no setting {name!r}; allowed: {', '.join(types)}")
        values[name] = _parse(name, value, types[name])
    return dataclasses.replace(settings, **values)


def as_dict(settings: Settings) -> dict[str, Any]:
    """All that a result states: the fields, and the head that follows from them."""
    return {**dataclasses.asdict(settings), "walk_type": settings.walk_type}  # type: ignore[attr-defined]


def _parse(name: str, value: str, kind: type) -> Any:
    if kind is bool:
        _check_choice(name, value, ("true", "false"))
        return value == "true"
    if kind is float:
        return _number(value)
    may_be_number = kind is int or name == "max_num_patches"
    return int(value) if may_be_number and value.isdecimal() else value


def _number(value: str) -> float | str:
    """What is no number stays as it is, for the check of the setting to name it."""
    try:
        return float(value)
    except ValueError:
        return value


def _check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}; allowed: {', '.join(allowed)}")


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}; allowed: True, False")


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name}={value!r}; allowed: a number from {low} to {high}")
