"""Evaluate an exported checkpoint as users run it: folder, processor, model.

    python -m recipes.embedded_checkpoint.evaluate --split validation --output results.json

The splits: `validation` (EmojiOne 1 on validation photographs) is what settings are chosen by; `style` (OpenMoji) and
`test` (Twemoji), both on test photographs, and `described` are looked at once, when the settings are frozen. Each run
on `test` is logged in `test_log.jsonl` beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from fgclip2.drawings.backgrounds import load_backgrounds
from fgclip2.drawings.concepts import ConceptTable, load_concepts
from fgclip2.drawings.controls import pixel_similarities, training_pictures
from fgclip2.drawings.cutouts import load_cutouts
from fgclip2.drawings.photographs import SETS, DescribedPicture, load_described
from fgclip2.drawings.scenes import Scene, SceneBuilder, long_caption
from fgclip2.drawings.sources import default_cache
from fgclip2.files import read_json
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.modeling_fgclip2 import FGClip2Model
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor

from .metrics import chance, recalls
from .protocols import PROTOCOLS, build_protocol_set

CHECKPOINT = Path(__file__).parents[2] / "src" / "fgclip2" / "assets" / "checkpoint"
ARTISTS = {"validation": "emojione-v1", "style": "openmoji", "test": "twemoji"}
BACKGROUNDS = {"validation": "validation", "style": "test", "test": "test"}
CANVAS = 96
SCENES = 1000
SCENE_SEED = 1
BATCH = 128


class Encoder:
    """The checkpoint and its processor, giving L2-normalised numpy arrays."""

    def __init__(self, folder: Path, max_num_patches: int | None = None):
        self.model = FGClip2Model.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = FGClip2Processor.from_pretrained(folder)
        self.max_num_patches = max_num_patches

    @torch.no_grad()
    def texts(self, texts: Sequence[str], walk_type: str = "short") -> np.ndarray:
        parts = []
        for start in range(0, len(texts), BATCH):
            inputs = self.processor(text=list(texts[start : start + BATCH]), walk_type=walk_type)
            parts.append(self.model.get_text_features(**inputs, walk_type=walk_type))
        return F.normalize(torch.cat(parts), dim=-1).numpy()

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image | Path]) -> np.ndarray:
        parts = []
        for start in range(0, len(images), BATCH):
            batch = list(images[start : start + BATCH])
            inputs = self.processor(images=batch, max_num_patches=self.max_num_patches)
            parts.append(self.model.get_image_features(**inputs))
        return F.normalize(torch.cat(parts), dim=-1).numpy()

    @torch.no_grad()
    def regions(self, images: Sequence[Image.Image], boxes: Sequence[list], max_num_patches: int) -> np.ndarray:
        parts = []
        for start in range(0, len(images), BATCH):
            some = slice(start, start + BATCH)
            inputs = self.processor(images=images[some], boxes=boxes[some], max_num_patches=max_num_patches)
            parts += self.model.get_image_region_features(**inputs)
        return F.normalize(torch.cat(parts), dim=-1).numpy()


def names_of(table: ConceptTable, concept_ids: np.ndarray, language: str) -> list[str]:
    return [table[int(concept_id)].name(language) for concept_id in concept_ids]


def both_directions(scores: np.ndarray, columns: np.ndarray, chosen: np.ndarray) -> dict[str, list[float]]:
    """Recalls of chosen pictures among all names, and of their names among all pictures.

    Args:
        scores: (pictures, names).
        columns: (pictures,) each picture's name.
        chosen: (pictures,) bool.
    """
    rows = np.flatnonzero(chosen)
    return {
        "image_to_text": recalls(scores[rows], columns[rows]),
        "text_to_image": recalls(scores[:, columns[rows]].T, rows),
    }


def evaluate_protocols(encoder: Encoder, cache: Path, table: ConceptTable, split: str, references: tuple) -> dict:
    """Each protocol: the model in both languages, and the nearest training picture in pixels."""
    names = {language: encoder.texts(names_of(table, table.thing_ids, language)) for language in LANGUAGES}
    results: dict = {"chance": chance(len(table.thing_ids))}
    for protocol in PROTOCOLS:
        pictures = build_protocol_set(cache, table, ARTISTS[split], protocol, CANVAS, BACKGROUNDS[split])
        columns = np.searchsorted(table.thing_ids, pictures.concept_ids)
        unseen = table.is_held_out[pictures.concept_ids]
        embeds = encoder.images(pictures.images)
        scores = {language: embeds @ texts.T for language, texts in names.items()}
        scores["pixels"] = pixel_similarities(pictures.pixels, *references, table.thing_ids)
        results[protocol] = {
            "trained": {"count": int((~unseen).sum())}
            | {key: both_directions(score, columns, ~unseen) for key, score in scores.items()},
            "held_out": {"count": int(unseen.sum())}
            | {key: both_directions(scores[key], columns, unseen) for key in LANGUAGES},
        }
    return results


def build_test_scenes(cache: Path, table: ConceptTable, split: str) -> list[Scene]:
    cutouts = {ARTISTS[split]: load_cutouts(cache, ARTISTS[split])}
    builder = SceneBuilder(table, cutouts, load_backgrounds(cache, BACKGROUNDS[split]))
    return [builder.build(np.random.default_rng([SCENE_SEED, number])) for number in range(SCENES)]


def evaluate_captions(encoder: Encoder, table: ConceptTable, scenes: list[Scene]) -> dict:
    """Retrieval between scenes and their long captions."""
    images = encoder.images([scene.image for scene in scenes])
    results: dict = {"count": len(scenes), "chance": chance(len(scenes))}
    for language in LANGUAGES:
        captions = encoder.texts([long_caption(scene, table, language) for scene in scenes], "long")
        results[language] = both_directions(images @ captions.T, np.arange(len(scenes)), np.ones(len(scenes), bool))
    return results


def evaluate_regions(
    encoder: Encoder, table: ConceptTable, scenes: list[Scene], references: tuple, budgets: Sequence[int]
) -> dict:
    """Which thing is in a box: region features, the box cut out and encoded as a picture, and pixels."""
    ids = np.array([region.truth.concept_id for scene in scenes for region in scene.regions])
    boxes = [[region.box for region in scene.regions] for scene in scenes]
    images = [scene.image for scene in scenes]
    crops = [scene.image.crop(region.box) for scene in scenes for region in scene.regions]
    columns, seen = np.searchsorted(table.thing_ids, ids), ~table.is_held_out[ids]
    crop_embeds = encoder.images(crops)
    region_embeds = {budget: encoder.regions(images, boxes, budget) for budget in budgets}
    small = np.stack([np.asarray(crop.resize((64, 64), Image.Resampling.BILINEAR)) for crop in crops])
    pixels = pixel_similarities(small, *references, table.thing_ids)
    results: dict = {"count": len(ids), "count_trained": int(seen.sum()), "chance": chance(len(table.thing_ids))}
    results["pixels_of_crop"] = {"trained": recalls(pixels[seen], columns[seen])}
    for language in LANGUAGES:
        names = names_of(table, table.thing_ids, language)
        short, box = encoder.texts(names, "short"), encoder.texts(names, "box")
        scores = {"crop": crop_embeds @ short.T}
        scores |= {f"region_{budget}_patches": embeds @ box.T for budget, embeds in region_embeds.items()}
        results[language] = {
            key: {"trained": recalls(score[seen], columns[seen]), "held_out": recalls(score[~seen], columns[~seen])}
            for key, score in scores.items()
        }
    return results


def evaluate_described(encoder: Encoder, cache: Path, table: ConceptTable) -> dict:
    """Human-described pictures from elsewhere: naming those of known things, and retrieving their texts."""
    results = {}
    for name in SETS:
        pictures = load_described(cache, name)
        embeds = encoder.images([picture.path for picture in pictures])
        results[name] = {"retrieval": retrieve_texts(encoder, pictures, embeds)}
        known = [index for index, picture in enumerate(pictures) if is_trained(table, picture)]
        columns = np.searchsorted(table.thing_ids, [pictures[index].concept_id for index in known])
        naming: dict = {"count": len(known), "chance": chance(len(table.thing_ids))}
        for language in LANGUAGES:
            texts = encoder.texts(names_of(table, table.thing_ids, language))
            naming[language] = recalls(embeds[known] @ texts.T, columns)
        results[name]["naming_among_837"] = naming
    return results


def is_trained(table: ConceptTable, picture: DescribedPicture) -> bool:
    concept_id = picture.concept_id
    return concept_id is not None and bool(table.is_thing[concept_id]) and not table.is_held_out[concept_id]


def retrieve_texts(encoder: Encoder, pictures: list[DescribedPicture], embeds: np.ndarray) -> dict:
    results: dict = {"count": len(pictures), "chance": chance(len(pictures))}
    own = np.arange(len(pictures))
    for language in LANGUAGES:
        short = encoder.texts([getattr(picture, f"short_{language}") for picture in pictures])
        results[f"{language}_short"] = recalls(embeds @ short.T, own)
        long = [getattr(picture, f"long_{language}") for picture in pictures]
        if all(long):
            results[f"{language}_long"] = recalls(embeds @ encoder.texts(long, "long").T, own)
    return results


def evaluate(encoder: Encoder, cache: Path, split: str, budgets: Sequence[int]) -> dict:
    table = load_concepts(cache)
    if split == "described":
        return evaluate_described(encoder, cache, table)
    references = training_pictures(cache, table)
    scenes = build_test_scenes(cache, table, split)
    return {
        "artist": ARTISTS[split],
        "protocols": evaluate_protocols(encoder, cache, table, split, references),
        "long_captions": evaluate_captions(encoder, table, scenes),
        "regions": evaluate_regions(encoder, table, scenes, references, budgets),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="Folder of the data (default: %(default)s)."
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=CHECKPOINT,
        help="Folder of the checkpoint (default: the one in the package).",
    )
    parser.add_argument("--split", choices=[*ARTISTS, "described"], nargs="+", default=["validation"])
    parser.add_argument(
        "--output", type=Path, required=True, help="JSON file of results; splits are added to those it has."
    )
    parser.add_argument(
        "--max-num-patches", type=int, help="Patch budget of pictures, in place of the checkpoint's own."
    )
    parser.add_argument("--region-patches", type=int, nargs="+", default=[36, 64, 100, 144])
    options = parser.parse_args(arguments)
    encoder = Encoder(options.checkpoint, options.max_num_patches)
    results = read_json(options.output) if options.output.exists() else {}
    for split in options.split:
        if split == "test":
            log_test_run(options)
        results[split] = evaluate(encoder, options.cache, split, options.region_patches)
        options.output.write_text(json.dumps(results, indent=1) + "\n")


def log_test_run(options: argparse.Namespace) -> None:
    """The held-out artist is to be looked at once: say so when it is."""
    weights = hashlib.sha256((options.checkpoint / "model.safetensors").read_bytes()).hexdigest()
    row = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "max_num_patches": options.max_num_patches, "weights": weights}
    with (Path(__file__).parent / "test_log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
