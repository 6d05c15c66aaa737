"""A row of the catalogue, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ...checks import check_choice
from ..base import DataSet, Settings, change
from ..readers._caption_files import find_file, find_images

PRESETS = ("paper", "released", "fg-clip-v1", "r2d2")


class PublishedFile(NamedTuple):
    """A file of a data set."""

    names: tuple[str, ...]  # within the folder, the preferred one first
    origin: str  # where to get it


@dataclass(frozen=True)
class Reading:
    """How a folder becomes a data set: a function of `readers`, and what it is called with.

    Attributes:
        reader: Takes the folder, or `files` in its place; `images`; `follow_links`; `options`; and the settings that
            `settings` names.
        files: Parameter of the reader -> the file that it takes.
        image_places: Folders or archives where the images may be; `None`: the reader knows.
        options: Further arguments of the reader.
        settings: Settings that are arguments of the reader too.
        subfolder: Part of the folder that the reader takes.
        check: Called with the data set and the settings; returns the data set, or raises a `ValueError`.
    """

    reader: Callable[..., DataSet]
    files: Mapping[str, PublishedFile] = field(default_factory=dict)
    image_places: tuple[str, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    subfolder: str = ""
    check: Callable[[Any, Any], DataSet] | None = None

    def __call__(self, folder: Path, images: Path | None, settings: Any, follow_links: bool = False) -> DataSet:
        """Read the data set in a folder, whose images may be elsewhere, and beyond links if these are followed.

        Raises:
            ValueError: It can't be read.
        """
        arguments: dict[str, Any] = {name: find_file(folder, *file) for name, file in self.files.items()}
        arguments["follow_links"] = follow_links
        arguments |= {name: getattr(settings, name) for name in self.settings}
        if self.image_places is not None:
            images = find_images(folder, images, *self.image_places, follow_links=follow_links)
        arguments["images"] = images
        place = () if self.files else (folder / self.subfolder,)
        data = self.reader(*place, **arguments, **self.options)
        return data if self.check is None else self.check(data, settings)


@dataclass(frozen=True)
class Benchmark:
    """A row of the catalogue.

    Attributes:
        task: The module of its kind, which evaluates it.
        language: Language of its texts.
        read: How its folder becomes a data set.
        paper: Settings of the paper.
        source: Where the data are.
        released: Settings of the scripts that its authors released, where they differ.
        fg_clip_v1: Settings of the scripts of FG-CLIP, the first version, where they differ from the paper's.
        r2d2_candidates: How many first candidates of a query the scripts of R2D2 re-rank, whose other settings are
            those of the paper; `None`: they don't measure it.
        differences: What the other presets do otherwise, or none can say; besides `COMMON_DIFFERENCES`.
        published: Published counts: "images", "items" (captions, boxes, pairs), "categories".
        is_fetched: Whether this package makes the data itself, wherever: results name no folder then.
    """

    name: str
    task: ModuleType
    language: str
    read: Reading
    paper: Settings
    source: str
    released: Settings | None = None
    fg_clip_v1: Settings | None = None
    r2d2_candidates: int | None = None
    differences: tuple[str, ...] = ()
    published: Mapping[str, int] = field(default_factory=dict)
    is_fetched: bool = False

    @property
    def kind(self) -> str:
        """Return the kind of the benchmark as results call it, e.g. "retrieval"."""
        return self.task.__name__.rpartition(".")[2]

    def settings(self, preset: str) -> Settings:
        """Return the settings of a preset: "paper", "released", "fg-clip-v1" or "r2d2".

        Raises:
            ValueError: There is no such preset.
        """
        check_choice("preset", preset, PRESETS)
        others = {"released": self.released, "fg-clip-v1": self.fg_clip_v1}
        return others.get(preset) or self.paper

    def changed_settings(self, preset: str, changes: Mapping[str, str]) -> Settings:
        """Return the settings of a preset, some of them changed by values of the command line.

        Raises:
            ValueError: There is no such preset or setting, or a value is not allowed.
        """
        try:
            return change(self.settings(preset), changes)
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
