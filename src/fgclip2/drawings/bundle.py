"""The pictures that ship inside the package for the offline demo: permissive licences only.

`write_bundle` fills a folder with pictures of single things, crops of photographs, a few composed scenes with their
records in both languages, and `manifest.json`, which says of each file what it shows, who made it and under which
licence. None shows a concept that is held out from training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from .backgrounds import (
    PHOTOGRAPHS,
    Photograph,
    load_backgrounds,
    paste,
    pyramid,
    random_crops,
    random_square,
    white_canvas,
)
from .concepts import ConceptTable
from .cutouts import load_cutouts
from .scenes import SceneBuilder, write_scenes
from .sources import ARTWORK, PERMISSIVE_LICENCES, WALLPAPERS
from .splits import BACKGROUND_SPLITS, BackgroundSplit

PICTURE_SIDE = 96
PHOTOGRAPH_SIZE = (320, 240)
SCENES = 6
SEED = 2

# fmt: off
BUNDLED_NAMES = (
    "dog face", "cat face", "tiger", "horse", "cow", "pig", "rabbit", "bear", "panda", "monkey", "elephant", "fox",
    "frog", "owl", "penguin", "duck", "whale", "dolphin", "octopus", "crab", "butterfly", "snail", "spider", "rose",
    "sunflower", "tulip", "cactus", "mushroom", "palm tree", "maple leaf", "red apple", "lemon", "grapes", "strawberry",
    "cherries", "pineapple", "peach", "carrot", "eggplant", "bread", "pizza", "hot dog", "sushi", "ice cream",
    "birthday cake", "cookie", "candy", "beer mug", "wine glass", "house", "castle", "ferris wheel", "bicycle",
    "motorcycle", "bus", "fire engine", "taxi", "automobile", "airplane", "helicopter", "rocket", "sailboat", "anchor",
    "rainbow", "snowman", "fire", "balloon", "wrapped gift", "trophy", "soccer ball", "basketball", "glasses",
    "t-shirt", "jeans", "dress", "crown", "high-heeled shoe", "guitar", "violin", "trumpet", "camera", "television",
    "light bulb", "open book", "envelope", "scissors", "key", "hammer", "bomb", "telescope", "alarm clock",
)
# fmt: on
# The pictures of each thing: the held-out artist on a photograph that is not trained on, then drawings by others.
_HELD_OUT_ARTIST = "twemoji"
_OTHER_ARTISTS = ("noto", "emojitwo", "fluent-emoji-3d", "noto-v1", "fxemoji", "fluent-emoji-flat", "streamline")
# What the photographs show, in our words.
_PHOTOGRAPH_CAPTIONS = {
    "aitzgorri_by_Aitzol_Berasategi": ("a mountain range behind a green meadow in autumn", "秋天绿草地后面的山脉"),
    "friends_by_Aitzol_Berasategi": ("two dogs looking out of a wooden house", "两只狗从木屋里向外看"),
    "life_by_Aitzol_Berasategi": ("a stream running over rocks in a forest", "森林里流过岩石的小溪"),
    "picosdeeuropa_by_Aitzol_Berasategi": ("a path towards snowy mountains", "通向雪山的小路"),
    "sunset_by_Aitzol_Berasategi": ("the sun setting over hills", "夕阳落在山丘上"),
    "Picture_0B_by_freespace": ("half a fig in a red bowl", "红碗里的半个无花果"),
    "Picture_1A_by_freespace": ("paintbrushes with bright colours", "沾着鲜艳颜料的画笔"),
    "umang_by_Abhishek_Mudgal": ("soft waves of bright colours", "柔和的彩色波浪"),
    "Wine_by_Jakkub_Mede": ("a drum in front of a wooden table with wine", "摆着葡萄酒的木桌前的鼓"),
    "seeding_by_Clements_Engelhardt": ("dandelions in the evening sun", "夕阳下的蒲公英"),
}


@dataclass(frozen=True)
class _Credit:
    """The origin of a part of a picture."""

    artist: str
    licence: str
    attribution: str


def write_bundle(cache: Path, table: ConceptTable, folder: Path) -> dict[str, int]:
    """Write the pictures, the scenes and the manifest.

    Args:
        cache: The folder that was built.
        table: The concepts.
        folder: The folder to write into, `assets/demo` of the package.

    Returns:
        Kind of file -> count.

    Raises:
        ValueError: A name is unknown or held out, or a licence isn't permissive.
    """
    ids = {table[concept_id].name_en: int(concept_id) for concept_id in table.train_ids}
    unusable = [name for name in BUNDLED_NAMES if name not in ids]
    if unusable:
        raise ValueError(f"bundled things must be trained on, and these are not: {', '.join(unusable)}")
    concept_ids = [ids[name] for name in BUNDLED_NAMES]
    rows = _write_pictures(cache, table, concept_ids, folder)
    rows += _write_photographs(cache, folder)
    test_photographs = load_backgrounds(cache, "test", permissive_only=True)
    drawn, rgba = load_cutouts(cache, _HELD_OUT_ARTIST)
    keep = np.isin(drawn, concept_ids)
    builder = SceneBuilder(table, {_HELD_OUT_ARTIST: (drawn[keep], rgba[keep])}, test_photographs)
    write_scenes(folder / "scenes", builder, SCENES, SEED)
    scene_credits = [_artist_credit(_HELD_OUT_ARTIST), *map(_photo_credit, _permissive("test"))]
    rows += [_row(f"scenes/images/{number:05d}.webp", "scene", scene_credits) for number in range(SCENES)]
    manifest = {"pictures": rows, "scene_records": {"en": "scenes/scenes_en.json", "zh": "scenes/scenes_zh.json"}}
    (folder / "manifest.json").write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")
    kinds = [row["kind"] for row in rows]
    return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def _write_pictures(cache: Path, table: ConceptTable, concept_ids: list[int], folder: Path) -> list[dict[str, Any]]:
    """Write three pictures of each thing: by the held-out artist on a photograph, and by two others, one on white."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    drawings: dict[str, dict[int, np.ndarray]] = {}  # artist -> concept -> the artist's first drawing of it
    for artist in (_HELD_OUT_ARTIST, *_OTHER_ARTISTS):
        ids, rgba = load_cutouts(cache, artist)
        unique, first = np.unique(ids, return_index=True)
        drawings[artist] = {int(concept_id): rgba[row] for concept_id, row in zip(unique, first, strict=True)}
    photographs = {split: _pyramids(cache, split) for split in ("train", "test")}
    rows = []
    for number, concept_id in enumerate(concept_ids):
        others = [artist for artist in _OTHER_ARTISTS if concept_id in drawings[artist]]
        chosen = [_HELD_OUT_ARTIST, *(others[(number + step) % len(others)] for step in range(2))]
        for step, (artist, split) in enumerate(zip(chosen, ("test", None, "train"), strict=True)):
            rng = np.random.default_rng([SEED, concept_id, step])
            cutout = Image.fromarray(drawings[artist][concept_id])
            image, photo = _on_background(cutout, photographs[split] if split else {}, rng)
            concept = table[concept_id]
            path = f"pictures/{concept.name_en.replace(' ', '-')}-{artist}.webp"
            image.save(folder / path, quality=80)
            credits = [_artist_credit(artist)] + ([_photo_credit(photo)] if photo else [])
            shown = {"concept": concept.key, "name_en": concept.name_en, "name_zh": concept.name_zh}
            rows.append(_row(path, "thing", credits, **shown))
    return rows


def _on_background(
    cutout: Image.Image, photographs: Mapping[Photograph, Sequence[np.ndarray]], rng: np.random.Generator
) -> tuple[Image.Image, Photograph | None]:
    """Paste a cut-out at a random place on one of the photographs, or on a white square if there are none."""
    if not photographs:
        return paste(white_canvas(PICTURE_SIDE), cutout, (0, 0, PICTURE_SIDE, PICTURE_SIDE)), None
    photo = list(photographs)[rng.integers(len(photographs))]
    crop = random_crops([photographs[photo]], 1, PICTURE_SIDE, PICTURE_SIDE, rng)[0]
    return paste(Image.fromarray(crop), cutout, random_square(PICTURE_SIDE, PICTURE_SIDE, rng)), photo


def _write_photographs(cache: Path, folder: Path) -> list[dict[str, Any]]:
    """Write a crop of each permissive photograph, with what it shows in both languages."""
    (folder / "photographs").mkdir(parents=True, exist_ok=True)
    rows = []
    for photo in _permissive():
        image = Image.fromarray(np.load(cache / "backgrounds" / f"{photo.name}.npy"))
        path = f"photographs/{photo.name}.webp"
        ImageOps.fit(image, PHOTOGRAPH_SIZE, Image.Resampling.LANCZOS).save(folder / path, quality=75)
        name_en, name_zh = _PHOTOGRAPH_CAPTIONS[photo.name]
        rows.append(_row(path, "photograph", [_photo_credit(photo)], name_en=name_en, name_zh=name_zh))
    return rows


def _permissive(split: BackgroundSplit | None = None) -> list[Photograph]:
    return [p for p in PHOTOGRAPHS if p.is_permissive and split in (None, BACKGROUND_SPLITS[p.name])]


def _pyramids(cache: Path, split: BackgroundSplit) -> dict[Photograph, list[np.ndarray]]:
    arrays = load_backgrounds(cache, split, permissive_only=True)
    return {photo: pyramid(array) for photo, array in zip(_permissive(split), arrays, strict=True)}


def _artist_credit(artist: str) -> _Credit:
    source = ARTWORK[artist]
    work = f"{artist} emoji by {source.authors} ({source.homepage}), {source.licence}, rasterised and resized"
    return _Credit(artist, source.licence, work)


def _photo_credit(photo: Photograph) -> _Credit:
    work = f"photograph {photo.name} by {photo.author} ({WALLPAPERS[photo.source].homepage}), {photo.licence}, cropped"
    return _Credit(photo.author, photo.licence, work)


def _row(path: str, kind: str, credits: list[_Credit], **shown: str) -> dict[str, Any]:
    """Return one manifest row; refuse what may not ship."""
    licences = sorted({credit.licence for credit in credits})
    if not PERMISSIVE_LICENCES.issuperset(licences):
        raise ValueError(f"{path} is under {licences}; what ships is under one of {sorted(PERMISSIVE_LICENCES)}")
    return {
        "file": path,
        "kind": kind,
        **shown,
        "artist": credits[0].artist,
        "licence": " AND ".join(licences),
        "attribution": "; ".join(credit.attribution for credit in credits),
    }
