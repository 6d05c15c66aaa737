"""Composed training scenes, grouped by canvas."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fgclip2.drawings.backgrounds import load_backgrounds
from fgclip2.drawings.concepts import ConceptTable
from fgclip2.drawings.cutouts import load_training_cutouts
from fgclip2.drawings.scenes import SceneBuilder, long_caption
from fgclip2.languages import LANGUAGES

MAX_REGIONS = 5


@dataclass
class TrainingScene:
    """A scene as training needs it; concepts are numbered by their place among the training concepts."""

    pixels: np.ndarray  # (H, W, 3) uint8
    boxes: np.ndarray  # (R, 4) in pixels
    concepts: np.ndarray  # (R,)
    captions: tuple[str, str]  # English, Chinese


def build_scenes(cache: Path, table: ConceptTable, count: int, seed: int) -> list[TrainingScene]:
    """Build scenes from training drawings and photographs."""
    builder = SceneBuilder(table, load_training_cutouts(cache, table), load_backgrounds(cache, "train"))
    place = {int(concept_id): index for index, concept_id in enumerate(table.train_ids)}
    scenes = []
    for index in tqdm(range(count), desc="scenes"):
        scene = builder.build(np.random.default_rng([seed, index]))
        en, zh = (long_caption(scene, table, language) for language in LANGUAGES)
        boxes = np.array([region.box for region in scene.regions], np.float32)
        concepts = np.array([place[region.truth.concept_id] for region in scene.regions])
        scenes.append(TrainingScene(np.asarray(scene.image), boxes, concepts, (en, zh)))
    return scenes


def group_by_canvas(scenes: list[TrainingScene]) -> list[np.ndarray]:
    """Indices of scenes of equal size, so that a batch needs no padding."""
    groups = defaultdict(list)
    for index, scene in enumerate(scenes):
        groups[scene.pixels.shape].append(index)
    return [np.array(groups[shape]) for shape in sorted(groups)]
