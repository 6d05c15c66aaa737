"""Training scenes, made once: patches as bytes and records in both languages, chunk by chunk on disk."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fgclip2.drawings.backgrounds import load_backgrounds
from fgclip2.drawings.concepts import ConceptTable, load_concepts
from fgclip2.drawings.cutouts import load_training_cutouts
from fgclip2.drawings.phrases import Description
from fgclip2.drawings.scenes import SceneBuilder, scene_record
from fgclip2.files import new_folder, read_json
from fgclip2.languages import LANGUAGES

from ..embedded_checkpoint.drawings import Drawings, load_drawings, vary_colours, vary_drawings
from .grammar import SceneFacts, facts_of
from .settings import SceneSettings

PATCH = 16
MAX_PATCHES = 100
_SCALES = (0.85, 1.0)  # of a varied drawing within its square: scenes crop and resize it themselves
_PART = 512
TEXTS = "texts.json"  # of a chunk; those of earlier versions have records.json, without facts, and are made anew


@dataclass
class ScenePool:
    """Scenes in memory maps.

    Args:
        patches: Chunks of uint8 (N, 100, 768), padded with zeros.
        grids: Int64 (scenes, 2), height and width in patches.
        concepts: For each scene its regions' concepts, by their place among the training concepts.
        records: Language -> records as `scene_record` gives them.
        facts: For each scene what the grammar says of it; objects in the order of the regions.
    """

    patches: list[np.ndarray]
    grids: np.ndarray
    concepts: list[list[int]]
    records: dict[str, list[dict]]
    facts: list[SceneFacts]

    def __len__(self) -> int:
        return len(self.grids)

    def pixel_values(self, rows: np.ndarray) -> Tensor:
        """Patches from -1 to 1 as the image processor gives them, (B, N, 768), N the longest of the rows."""
        size, longest = len(self.patches[0]), int(self.grids[rows].prod(1).max())
        patches = np.stack([self.patches[row // size][row % size, :longest] for row in rows])
        return torch.from_numpy(patches).float() / 127.5 - 1


def build_pool(folder: Path, cache: Path, settings: SceneSettings, processes: int) -> ScenePool:
    """Make the chunks that are missing, and load all."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [n for n in range(settings.num_chunks) if not (_chunk(folder, n) / TEXTS).exists()]
    if missing:
        with ProcessPoolExecutor(processes) as executor:
            chunks = executor.map(partial(_write_chunk, folder, cache, settings), missing)
            list(tqdm(chunks, "chunks of scenes", len(missing)))
    chunks = [_chunk(folder, number) for number in range(settings.num_chunks)]
    texts = [read_json(chunk / TEXTS) for chunk in chunks]
    return ScenePool(
        [np.load(chunk / "patches.npy", mmap_mode="r") for chunk in chunks],
        np.concatenate([np.load(chunk / "grids.npy") for chunk in chunks]),
        [concepts for text in texts for concepts in text["concepts"]],
        {language: [record for text in texts for record in text[language]] for language in LANGUAGES},
        [_read_facts(facts) for text in texts for facts in text["facts"]],
    )


def _chunk(folder: Path, number: int) -> Path:
    return folder / f"chunk-{number:03d}"


def _read_facts(stored: dict) -> SceneFacts:
    objects = [{**one, "position": tuple(one["position"])} for one in stored["objects"]]
    return SceneFacts(stored["background_colour"], tuple(Description(**one) for one in objects))


def _write_chunk(folder: Path, cache: Path, settings: SceneSettings, number: int) -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng([settings.seed, number])
    table = load_concepts(cache)
    place = {int(concept_id): index for index, concept_id in enumerate(table.train_ids)}
    builder = varied_builder(cache, table, settings, rng)
    scenes = [builder.build(rng) for _ in range(settings.scenes_per_chunk)]
    patches = np.zeros((len(scenes), MAX_PATCHES, PATCH * PATCH * 3), np.uint8)
    grids = np.zeros((len(scenes), 2), np.int64)
    for index, scene in enumerate(scenes):
        own = patches_of(np.asarray(scene.image))
        patches[index, : len(own)] = own
        grids[index] = scene.image.height // PATCH, scene.image.width // PATCH
    texts = {"concepts": [[place[region.truth.concept_id] for region in scene.regions] for scene in scenes]}
    texts["facts"] = [asdict(facts_of(scene)) for scene in scenes]
    for language in LANGUAGES:
        texts[language] = [scene_record(scene, table, language, "") for scene in scenes]
    with new_folder(_chunk(folder, number)) as unfinished:
        np.save(unfinished / "patches.npy", patches)
        np.save(unfinished / "grids.npy", grids)
        (unfinished / TEXTS).write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")


def varied_builder(cache: Path, table: ConceptTable, settings: SceneSettings, rng: np.random.Generator) -> SceneBuilder:
    """A builder whose drawings and photographs are varied once, before plates of exact colours are put behind them."""
    cutouts = load_training_cutouts(cache, table)
    drawings = load_drawings(table, cutouts)
    ids = np.concatenate([concept_ids for concept_ids, _ in cutouts.values()])
    photographs = load_backgrounds(cache, "train", permissive_only=True)
    return SceneBuilder(
        table,
        {"varied": (ids, vary_all(drawings, settings.drawing_strength, rng))},
        [vary_photograph(photograph, settings.photograph_strength, rng) for photograph in photographs],
    )


def vary_all(drawings: Drawings, strength: float, rng: np.random.Generator) -> np.ndarray:
    """All drawings, varied, with straight alpha: uint8 (N, 96, 96, 4)."""
    whole = drawings.by_side[96]
    partners = np.arange(len(whole))
    for rows in drawings.rows:
        partners[rows] = rng.choice(rows, size=len(rows))
    varied = np.empty((len(whole), 96, 96, 4), np.uint8)
    for start in range(0, len(whole), _PART):
        own = whole[start : start + _PART].float() / 255
        others = whole[torch.from_numpy(partners[start : start + _PART])].float() / 255
        rgba = vary_drawings(own, others, 96, _SCALES, strength, rng)
        rgba[:, :3] /= rgba[:, 3:].clamp(min=1 / 255)
        rgba = (rgba.clamp(0, 1) * 255).round().byte()
        varied[start : start + _PART] = rgba.permute(0, 2, 3, 1).numpy()
    return varied


def vary_photograph(photograph: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """A photograph (H, W, 3) in other colours."""
    colours = torch.from_numpy(photograph).permute(2, 0, 1)[None].float() / 255
    varied = vary_colours(colours, None, strength, rng)
    return (varied[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def patches_of(image: np.ndarray) -> np.ndarray:
    """(h * 16, w * 16, 3) -> (h * w, 768), row-major, as the image processor cuts."""
    height, width = image.shape[0] // PATCH, image.shape[1] // PATCH
    patches = image.reshape(height, PATCH, width, PATCH, 3).swapaxes(1, 2)  # (h, w, p, p, 3)
    return patches.reshape(height * width, PATCH * PATCH * 3)
