"""The offline benchmark: pictures from package registries, in the formats of the published data sets.

- `scenes`: 1,000 composed scenes of drawings by an artist and on photographs that the embedded checkpoint was never
  trained on, with exact boxes, captions, hard negatives, and texts of which one phrase is false.
- `boards`: 82 photographs, each with a title and a description that people wrote (GCompris).
- `stamps`: photographs and drawings, each with a short sentence that people wrote (Tux Paint).

All in English and in Chinese. Packages are fetched by name and checked, see [`fgclip2.drawings.sources`]; not all of
their licences allow to ship the pictures.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import distributed
from ..drawings import sources
from ..drawings.build import build_demo_data
from ..drawings.concepts import ConceptTable, load_concepts
from ..drawings.controls import pixel_similarities, training_pictures
from ..drawings.photographs import load_described
from ..drawings.phrases import listing
from ..drawings.scene_sets import SceneSet, build_scene_set
from ..embedding.inputs import load_input
from ..languages import LANGUAGES, Language
from ..metrics import score_ranks
from .catalogue import Benchmark, find_benchmark
from .catalogue.bundled import BUNDLED
from .runner import make_result
from .scores import Scores, accuracies
from .tasks import region_classification
from .tasks.region_classification import RegionData

ALL = "bundled"  # the name of all of them
SCENES = 1000
SEED = 1  # of the scenes, as in recipes/scenes
PIXELS = "pixel nearest neighbour"
_CROP = 64
# Kinds of false phrases that make a whole text false, and give it no word twice, which would give it away unseen.
_FALSE_KINDS = ("object", "color", "shape", "size", "position")
_FORMAT = 2  # of the folder; part of its name


def find_benchmarks(name: str, folder: Path | None = None, images: Path | None = None) -> list[Benchmark]:
    """Return the benchmarks of a name: of a data set in a folder, or of the package's own data without one.

    Args:
        name: Name of a benchmark, or `"bundled"`: all whose data the package makes.
        folder, images: Where the user says that data and images are.

    Raises:
        ValueError: There are none of that name, a folder is missing, or there is one too many.
    """
    rows = [row for row in BUNDLED if name in (ALL, row.name)]
    if rows and (folder or images) is not None:
        raise ValueError(f"{name} takes no path and no images ({folder or images}): its data are fetched")
    if not rows and name.startswith(ALL):
        names = ", ".join(row.name for row in BUNDLED)
        raise ValueError(f"there is no benchmark {name!r}; choose one of {ALL}, {names}")
    if not rows and folder is None:
        find_benchmark(name)
        raise ValueError(f"give the path of the data set of {name}; only {ALL} has none")
    return rows or [find_benchmark(name)]


def fetch_bundled() -> Path:
    """Return the folder of the package's own data, which the first process fetches.

    Raises:
        OSError: They can't be fetched.
    """
    folder = None
    if distributed.rank() == 0:
        try:
            folder = build_bundled(sources.default_cache())
        except RuntimeError as error:  # a package can't be fetched
            raise OSError(str(error)) from error
    return distributed.gather_objects(folder)[0]


# ---------------------------------------------------------------------------------------------------------------------
# Files
# ---------------------------------------------------------------------------------------------------------------------


def build_bundled(cache: Path, scenes: int = SCENES) -> Path:
    """Fetch the packages, make the pictures and write them in the published formats, or find what was written before.

    Args:
        cache: The folder of the demo data, made if missing; takes some minutes and 0.5 GB the first time.
        scenes: How many scenes.

    Returns:
        The folder: `<set>/images.zip` and, for each kind, a folder with the file of captions, boxes or hard negatives.

    Raises:
        RuntimeError: A package can't be fetched.
    """
    table, _, _ = build_demo_data(cache)
    scene_set = build_scene_set(cache, table, "test", scenes, SEED)
    parent = Path(cache) / "bundled"
    folder = parent / f"{_FORMAT}-{hashlib.sha256(scene_set.folder.name.encode()).hexdigest()[:12]}-{scenes}"
    if not folder.exists():
        parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=parent))
        try:
            write_scenes(unfinished / "scenes", scene_set, table)
            write_described(unfinished / "boards", cache, "boards")
            write_described(unfinished / "stamps", cache, "stamps")
            unfinished.rename(folder)  # whole or not at all
        except OSError:
            if not folder.exists():  # another process may have been first
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def write_scenes(folder: Path, scene_set: SceneSet, table: ConceptTable) -> None:
    """Write captions as DOCCI, LIT-CN and Flickr30k have them, boxes as BoxClass-CN, hard negatives as FG-OVD.

    Pairs that match or don't are as ICM of CCMB has them.
    """
    rows = scene_set.records
    names = [row["f_path"] for row in rows["en"]]
    sizes = [scene_set.image(index).size for index in range(len(names))]
    _write_images(folder, ((name, (scene_set.folder / name).read_bytes()) for name in names))
    _write_captions(folder / "long", names, *([row["caption"] for row in rows[language]] for language in LANGUAGES))
    _write_captions(
        folder / "short", names, *([row["short_caption"] for row in rows[language]] for language in LANGUAGES)
    )
    things = [table[int(index)] for index in table.thing_ids]
    number = {thing.name("en"): index for index, thing in enumerate(things, start=1)}
    annotations = [
        {
            "id": 0,
            "image_id": index,
            "bbox": _xywh(region["bbox"], sizes[index]),
            "category_id": number[region["category"]],
        }
        for index, row in enumerate(rows["en"])
        for region in row["bbox_info"]
    ]
    boxes = {
        "categories": [{"id": i, "name": t.name("zh"), "name_en": t.name("en")} for i, t in enumerate(things, start=1)],
        "images": [{"id": index, "file_name": name} for index, name in enumerate(names)],
        "annotations": [{**annotation, "id": number} for number, annotation in enumerate(annotations)],
    }
    _write_text(folder / "boxes" / "valid_category_data_total_zh.json", json.dumps(boxes, ensure_ascii=False))
    for language in LANGUAGES:
        lines = [
            {
                "img_path": name,
                "bbox": _xywh(region["bbox"], size),
                "width": size[0],
                "height": size[1],
                "pos_expression": region["short_expr"],
                "neg_expression": list(region["short_expr_negs"].values()),
                "image_id": index,
                "test_type": "1_attributes",
            }
            for index, (name, size, row) in enumerate(zip(names, sizes, rows[language], strict=True))
            for region in row["bbox_info"]
        ]
        _write_lines(folder / f"hard-negatives-{language}" / "h_attributes_llava.jsonl", lines)
        pairs = [
            {"text": text, "image_path": name, "label": label}
            for index, (name, row) in enumerate(zip(names, rows[language], strict=True))
            for label, text in enumerate(false_and_true_text(row["bbox_info"], language, index))
        ]
        _write_lines(folder / f"matching-{language}" / "long_itm_val.json", pairs)


def false_and_true_text(regions: Sequence[dict[str, Any]], language: Language, number: int) -> tuple[str, str]:
    """Return two texts of a scene that list its things, of which the first has one false phrase.

    Args:
        regions: The scene's `bbox_info`; phrases and their false variants are in the same places in both languages.
        language: Of the regions.
        number: Of the scene; it decides, with the benchmark's seed, which phrase is false and how.
    """
    rng = np.random.default_rng([SEED, number])
    false_phrases = [
        (kind, place, region["short_expr_negs"][key])
        for place, region in enumerate(regions)
        for key, kind in region["neg_kinds"].items()
        if kind in _FALSE_KINDS
    ]
    chosen = rng.choice(sorted({kind for kind, _, _ in false_phrases}))  # kinds first: most phrases have other objects
    of_kind = [(place, phrase) for kind, place, phrase in false_phrases if kind == chosen]
    place, false_phrase = of_kind[rng.integers(len(of_kind))]
    phrases = [region["short_expr"] for region in regions]
    return (
        listing([*phrases[:place], false_phrase, *phrases[place + 1 :]], language),
        listing(phrases, language),
    )


def write_described(folder: Path, cache: Path, name: str) -> None:
    """Write captions of pictures that people described, as DOCCI, LIT-CN and Flickr30k have them."""
    pictures = load_described(cache, name)
    names = [picture.path.name for picture in pictures]
    _write_images(folder, ((picture.path.name, picture.path.read_bytes()) for picture in pictures))
    short = ([picture.short_en for picture in pictures], [picture.short_zh for picture in pictures])
    _write_captions(folder / "short", names, *short)
    if all(picture.long_en and picture.long_zh for picture in pictures):
        long = ([picture.long_en for picture in pictures], [picture.long_zh for picture in pictures])
        _write_captions(folder / "long", names, *long)


def _write_images(folder: Path, images: Iterable[tuple[str, bytes]]) -> None:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:  # stored: images don't get smaller
        for name, content in images:
            archive.writestr(name, content)


def _write_captions(folder: Path, names: Sequence[str], english: Sequence[str], chinese: Sequence[str]) -> None:
    """Write DOCCI's lines of JSON and Flickr30k's list in English, LIT-CN's lines in Chinese."""
    folder.mkdir()
    docci = [
        {"split": "test", "image_file": name, "description": text} for name, text in zip(names, english, strict=True)
    ]
    _write_lines(folder / "docci_descriptions.jsonlines", docci)
    flickr = [{"image": name, "caption": [text]} for name, text in zip(names, english, strict=True)]
    _write_text(folder / "flickr30k_test.json", json.dumps(flickr, ensure_ascii=False))
    lines = [f"{name}\t{' '.join(text.split())}\n" for name, text in zip(names, chinese, strict=True)]
    _write_text(folder / "image_caption_long_cn.txt", "".join(lines))


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    _write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _xywh(box: Sequence[float], size: tuple[int, int]) -> list[int]:
    """Turn a box in fractions into x, y, width, height in pixels; those of scenes are whole."""
    x1, y1, x2, y2 = (round(value * side) for value, side in zip(box, size * 2, strict=True))
    return [x1, y1, x2 - x1, y2 - y1]


# ---------------------------------------------------------------------------------------------------------------------
# A control without a model
# ---------------------------------------------------------------------------------------------------------------------


def run_pixels(folder: Path, cache: Path | None = None) -> dict[str, Any]:
    """Classify each box by the training drawing whose pixels are nearest, on crops of 64 by 64 pixels.

    Args:
        folder: What [`build_bundled`] returned.
        cache: Folder of the demo data; `None`: the user's cache.
    """
    started = time.perf_counter()
    benchmark = next(row for row in BUNDLED if row.task is region_classification)
    data = benchmark.read(folder, None, benchmark.paper)
    assert isinstance(data, RegionData)
    crops, owners = [], []
    for index, (image, boxes) in enumerate(zip(data.images, data.boxes, strict=True)):
        picture = load_input(index, image.read())
        for x1, y1, x2, y2 in boxes:
            crop = picture.crop((round(x1), round(y1), round(x2), round(y2)))
            crops.append(np.asarray(crop.resize((_CROP, _CROP))))
        owners += [index] * len(boxes)
    cache = sources.default_cache() if cache is None else cache
    table = load_concepts(cache)
    similarities = pixel_similarities(np.stack(crops), *training_pictures(cache, table), table.thing_ids)
    categories = np.concatenate([np.asarray(its) for its in data.categories])
    ranks = score_ranks(similarities, np.stack([np.arange(len(categories)), categories], axis=1))
    scores = Scores(accuracies(ranks, categories, np.array(owners)), {"rank": ranks})
    model = {"name": PIXELS, "revision": None, "fingerprint": None, "device": "cpu", "dtype": "float32"}
    return make_result(benchmark, "paper", benchmark.paper, benchmark.language, data, {}, scores, model, started)
