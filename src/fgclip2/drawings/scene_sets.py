"""Sets of composed scenes for training, validation and tests, as FineHARD folders in the cache or one by one.

Layout of a set: `cache/scenes/<split>-<count>-<seed>-<digest>/` with `scenes_en.json`, `scenes_zh.json` (records of the
same pictures in both languages) and `images/*.webp`. The digest is of the concepts and of the code that makes scenes,
so a set of other code is never taken for this one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from ..checks import check_choice, check_positive_integer
from ..files import new_folder, read_json
from ..languages import LANGUAGES
from ..modeling.inputs import open_image
from .backgrounds import load_backgrounds
from .concepts import ConceptTable
from .cutouts import load_cutouts, load_training_cutouts
from .scenes import SceneBuilder, write_scenes
from .splits import BackgroundSplit

SceneSplit = Literal["train", "validation", "test", "test-held-out-concepts"]

# artist, photographs, and whether the things are those that were held out from training
_EVALUATION_SPLITS: dict[str, tuple[str, BackgroundSplit, bool]] = {
    "validation": ("emojione-v1", "validation", False),
    "test": ("twemoji", "test", False),
    "test-held-out-concepts": ("twemoji", "test", True),
}
SCENE_SPLITS = ("train", *_EVALUATION_SPLITS)
# What the name of a set depends on, beside the concepts.
_SOURCES = ("scenes.py", "phrases.py", "scene_sets.py")


@dataclass(frozen=True)
class SceneSet:
    """Scenes on disk."""

    folder: Path
    records: Mapping[str, list[dict[str, Any]]]  # language -> records of the same pictures, see `scene_record`

    def __len__(self) -> int:
        return len(self.records[LANGUAGES[0]])

    def image(self, index: int) -> Image.Image:
        """Return the picture of a scene, RGB."""
        with open_image(self.folder / self.records[LANGUAGES[0]][index]["f_path"]) as image:
            return image.convert("RGB")

    def boxes(self, index: int) -> list[list[int]]:
        """Return the boxes (x1, y1, x2, y2) of a scene in whole pixels."""
        width, height = self.image(index).size
        regions = self.records[LANGUAGES[0]][index]["bbox_info"]
        return [[round(v * s) for v, s in zip(r["bbox"], (width, height) * 2, strict=True)] for r in regions]


def scene_builder(cache: Path, table: ConceptTable, split: SceneSplit) -> SceneBuilder:
    """Return the builder of a split's scenes.

    Args:
        cache: The folder that was built.
        table: The concepts.
        split: "train" has permissive artists, training photographs and no held-out concept; "validation" has EmojiOne
            1 and "test" Twemoji, each with its own photographs and trained concepts only, and
            "test-held-out-concepts" is as "test" with nothing but held-out concepts.

    Raises:
        ValueError: There is no such split.
    """
    if split == "train":
        return SceneBuilder(table, load_training_cutouts(cache, table), load_backgrounds(cache, "train"))
    check_choice("split", split, ("train", *_EVALUATION_SPLITS))
    artist, photographs, held_out = _EVALUATION_SPLITS[split]
    concept_ids, rgba = load_cutouts(cache, artist)
    rows = np.flatnonzero(table.is_held_out[concept_ids] == held_out)
    return SceneBuilder(table, {artist: (concept_ids[rows], rgba[rows])}, load_backgrounds(cache, photographs))


def build_scene_set(cache: Path, table: ConceptTable, split: SceneSplit, count: int, seed: int) -> SceneSet:
    """Make a set, or read it where it was made before; the same arguments give the same set.

    Args:
        cache: The folder that was built.
        table: The concepts.
        split: One of `SCENE_SPLITS`, see `scene_builder`.
        count: How many scenes; scene n depends on `seed` and n alone.
        seed: Seed of the whole sequence.

    Raises:
        ValueError: There is no such split, or no scene is wanted.
    """
    check_positive_integer("count", count)
    builder = scene_builder(cache, table, split)
    parts = [Path(cache) / "concepts.json", *(Path(__file__).parent / name for name in _SOURCES)]
    digest = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()[:12]
    folder = Path(cache) / "scenes" / f"{split}-{count}-{seed}-{digest}"
    if not folder.exists():
        try:
            with new_folder(folder) as unfinished:
                write_scenes(unfinished, builder, count, seed)
        except OSError:
            if not folder.exists():  # another process may have been first
                raise
    return load_scene_set(folder)


def load_scene_set(folder: Path) -> SceneSet:
    """Read a folder that `build_scene_set` or `write_scenes` wrote."""
    folder = Path(folder)
    return SceneSet(folder, {language: read_json(folder / f"scenes_{language}.json") for language in LANGUAGES})
