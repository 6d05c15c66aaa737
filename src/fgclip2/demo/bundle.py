"""The bundled pictures, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..assets import demo_images
from ..files import read_json
from ..languages import LANGUAGES

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Scene:
    """A scene of several things on a background.

    Attributes:
        path: Its file.
        captions: Language -> short caption.
        names: Language -> the names of its things.
        boxes: Of its things, x1, y1, x2, y2 as shares of width and height.
    """

    path: Path
    captions: dict[str, str]
    names: dict[str, list[str]]
    boxes: list[tuple[float, float, float, float]]

    def pixel_boxes(self, size: tuple[int, int]) -> list[Box]:
        width, height = size
        return [
            (round(x1 * width), round(y1 * height), round(x2 * width), round(y2 * height))
            for x1, y1, x2, y2 in self.boxes
        ]


@dataclass(frozen=True)
class Bundle:
    """The bundled pictures.

    Attributes:
        folder: Where their files are.
        pictures: One dictionary each: `file` in the folder, `kind` (thing, scene or photograph), `artist`,
            `attribution`, and `name_en` and `name_zh` but for scenes.
        scenes: The scenes.
    """

    folder: Path
    pictures: list[dict[str, Any]]
    scenes: list[Scene]

    @classmethod
    def load(cls) -> Bundle:
        folder = demo_images()
        manifest = read_json(folder / "manifest.json")
        records = {language: read_json(folder / file) for language, file in manifest["scene_records"].items()}
        files = [picture["file"] for picture in manifest["pictures"] if picture["kind"] == "scene"]
        scenes = []
        for number, file in enumerate(files):
            its = {language: records[language][number] for language in LANGUAGES}
            scenes.append(
                Scene(
                    folder / file,
                    {language: record["short_caption"] for language, record in its.items()},
                    {language: [box["category"] for box in record["bbox_info"]] for language, record in its.items()},
                    [tuple(box["bbox"][:4]) for box in its["en"]["bbox_info"]],
                )
            )
        return cls(folder, manifest["pictures"], scenes)

    @property
    def things(self) -> list[dict[str, Any]]:
        """The pictures of one thing each."""
        return [picture for picture in self.pictures if picture["kind"] == "thing"]

    @property
    def unseen_things(self) -> list[dict[str, Any]]:
        """The things by the artist of the scenes, none of whose drawings the embedded checkpoint was trained on."""
        artist = next(picture["artist"] for picture in self.pictures if picture["kind"] == "scene")
        return [thing for thing in self.things if thing["artist"] == artist]

    def path_of(self, picture: dict[str, Any]) -> Path:
        return self.folder / picture["file"]

    def names_of(self, path: Path) -> dict[str, str]:
        """Return language -> the name of a thing or a photograph, or the short caption of a scene."""
        file = path.relative_to(self.folder).as_posix()
        picture = next(picture for picture in self.pictures if picture["file"] == file)
        if picture["kind"] != "scene":
            return {language: picture[f"name_{language}"] for language in LANGUAGES}
        return next(scene.captions for scene in self.scenes if scene.path == path)

    def describe(self, path: Path) -> str:
        """Return the names in both languages."""
        return " / ".join(self.names_of(path).values())
