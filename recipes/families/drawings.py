"""Single drawings as records of the trainer: each training drawing once, on a photograph or on white, with its name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from fgclip2.drawings.backgrounds import load_backgrounds, paste, pyramid, random_crops, random_square, white_canvas
from fgclip2.drawings.concepts import ConceptTable
from fgclip2.drawings.cutouts import load_training_cutouts
from fgclip2.drawings.scene_sets import SceneSet, load_scene_set
from fgclip2.files import new_folder
from fgclip2.languages import LANGUAGES

SIDE = 160  # of a picture in pixels: 100 patches, as scenes have
PHOTOGRAPH_SHARE = 0.65  # of the backgrounds, as in scenes


def build_drawing_set(cache: Path, table: ConceptTable, seed: int) -> SceneSet:
    """Make the set, or read it where it was made before: a scene of one thing for each training drawing.

    A record's short caption is the thing's name, and so is the text of its one region. There is no long caption.

    Args:
        cache: The folder that was built.
        table: The concepts.
        seed: Of scales, places and backgrounds.
    """
    digest = hashlib.sha256((cache / "concepts.json").read_bytes() + Path(__file__).read_bytes()).hexdigest()[:12]
    folder = cache / "scenes" / f"drawings-{seed}-{digest}"
    if not folder.exists():
        with new_folder(folder) as unfinished:
            _write(unfinished, cache, table, seed)
    return load_scene_set(folder)


def _write(folder: Path, cache: Path, table: ConceptTable, seed: int) -> None:
    pyramids = [pyramid(photograph) for photograph in load_backgrounds(cache, "train")]
    sets = load_training_cutouts(cache, table).values()
    drawings = [pair for ids, rgba in sets for pair in zip(ids.tolist(), rgba, strict=True)]
    records: dict[str, list[dict]] = {language: [] for language in LANGUAGES}
    (folder / "images").mkdir()
    for number, (concept_id, rgba) in enumerate(drawings):
        rng = np.random.default_rng([seed, number])
        background = white_canvas(SIDE)
        if rng.random() < PHOTOGRAPH_SHARE:
            background = Image.fromarray(random_crops(pyramids, 1, SIDE, SIDE, rng)[0])
        box = random_square(SIDE, SIDE, rng)
        path = f"images/{number:05d}.webp"
        paste(background, Image.fromarray(rgba), box).save(folder / path, quality=92)
        for language, rows in records.items():
            name = table[concept_id].name(language)
            region = {"bbox": [value / SIDE for value in box], "short_expr": name}
            rows.append({"f_path": path, "short_caption": name, "bbox_info": [region], "is_cn": language == "zh"})
    for language, rows in records.items():
        text = json.dumps(rows, ensure_ascii=False, indent=1)
        (folder / f"scenes_{language}.json").write_text(text, encoding="utf-8")
