"""Composed scenes: several cut-outs on one background, with exact boxes, captions and hard negatives in two languages.

Everything that a text says is known from how the scene was made: which thing, how large, on which plate, where. Plates
with named colours and shapes give exact attributes without guessing an artist's colours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .backgrounds import pyramid, random_crops
from .concepts import ConceptTable
from .cutouts import alpha_box
from .phrases import (
    AWKWARD_NAMES,
    COLOURS,
    SHAPES,
    SIZES,
    Description,
    Language,
    count_sentence,
    expression,
    joined,
    largest_sentence,
    listing,
    look_alikes,
    object_sentence,
    related_expression,
    relation_sentence,
    similar_colours,
    with_article,
)

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in pixels

# NaFlex shapes (width, height) of at most 100 patches of 16.
CANVASES = ((160, 160), (192, 128), (128, 192), (176, 144), (144, 176))
NEGATIVES = 10
MAX_OBJECTS = 5
MIN_THINGS = MAX_OBJECTS + NEGATIVES
NEGATIVE_KINDS = ("object", "color", "shape", "size", "position", "swap", "bind-color")

_PHOTOGRAPH_SHARE = 0.65
_SIBLING_SHARE = 0.3
_PLATE_SHARE = 0.6
_POSITION_SHARE = 0.5  # of the short expressions
_SIDES = {"small": 34, "medium": 48, "large": 66}  # of the longer side, in pixels
_SIDE_JITTER = 5
_MAX_OF_A_SIZE = 2  # small and large objects in a scene: more large ones than small ones would not fit
_MARGIN = 3  # between objects
_PLACEMENT_TRIES = 40
_LAYOUT_TRIES = 20
_AFFINITY = {"subgroup": 60.0, "group": 5.0, "none": 1.0}  # of a thing to its object negatives, before balancing
_LEVELS = ("subgroup", "group")
_BALANCING_STEPS = 50
_CUTOUT_ON_PLATE = 0.68  # of the plate's side, so that a square drawing stays within a round plate
_OPAQUE = 64  # alpha above which a drawing counts for its box: shadows don't
_LARGEST_LEAD = 1.2  # in area, over the second largest, before a caption names the largest
_RGB = {
    "red": (220, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (250, 220, 40),
    "green": (50, 160, 60),
    "cyan": (60, 200, 210),
    "blue": (40, 80, 200),
    "purple": (130, 60, 170),
    "pink": (250, 150, 190),
    "brown": (125, 75, 40),
    "black": (30, 30, 30),
    "white": (245, 245, 245),
    "gray": (140, 140, 140),
}


@dataclass(frozen=True)
class Region:
    """One object of a scene."""

    box: Box  # of the plate if it has one, else of the drawing's opaque part
    truth: Description  # all that holds of it
    said: Description  # what its short expression says
    negatives: tuple[tuple[str, Description], ...]  # (kind, false description), `NEGATIVES` of them
    relation: tuple[str, int]  # "left", "right", "above" or "below" of the region with that index


@dataclass(frozen=True)
class Scene:
    """A picture and all that is known of it, in no language."""

    image: Image.Image
    background_colour: str | None  # None: a photograph
    regions: tuple[Region, ...]


@dataclass(frozen=True)
class _Item:
    """An object to be placed."""

    truth: Description  # without position
    drawing: Image.Image  # RGBA, cropped to its opaque part
    size: tuple[int, int]  # width and height that it takes, with its plate


class SceneBuilder:
    """Makes scenes from given drawings and photographs."""

    def __init__(
        self,
        table: ConceptTable,
        cutouts: Mapping[str, tuple[np.ndarray, np.ndarray]],
        photographs: Sequence[np.ndarray],
    ) -> None:
        """Index the drawings.

        Args:
            table: The concepts.
            cutouts: Artist -> (concept_ids, rgba), as `load_training_cutouts` or `load_cutouts` give them. Only things
                with natural names are used, and only those that occur here serve as negatives: no text of a scene
                names anything else.
            photographs: (H, W, 3) uint8 arrays.

        Raises:
            ValueError: There are fewer than `MIN_THINGS` things, too few for a scene and its negatives.
        """
        self.table = table
        self._pyramids = [pyramid(photo) for photo in photographs]
        self._rgba = {artist: rgba for artist, (_, rgba) in cutouts.items()}
        self._drawings: dict[int, list[tuple[str, int]]] = {}
        for artist, (concept_ids, _) in cutouts.items():
            for row, concept_id in enumerate(concept_ids.tolist()):
                if table[concept_id].is_thing and table[concept_id].name_en not in AWKWARD_NAMES:
                    self._drawings.setdefault(concept_id, []).append((artist, row))
        self._ids = np.array(sorted(self._drawings), dtype=np.int64)
        if len(self._ids) < MIN_THINGS:
            raise ValueError(f"`cutouts` must have drawings of at least {MIN_THINGS} things, got {len(self._ids)}")
        self._confusable = table.near_synonyms | look_alikes(table.names_en)
        self._shares = self._negative_shares()

    def build(self, rng: np.random.Generator) -> Scene:
        """Make one scene; the same random state gives the same scene."""
        width, height = CANVASES[rng.integers(len(CANVASES))]
        items, boxes = self._layout(width, height, rng)
        image, background_colour = self._background(width, height, {item.truth.colour for item in items}, rng)
        for item, box in zip(items, boxes, strict=True):
            _draw(image, item, box)
        truths = []
        for item, (x1, y1, x2, y2) in zip(items, boxes, strict=True):  # the centre's row and column of a 3 x 3 grid
            position = 3 * (y1 + y2) // (2 * image.height), 3 * (x1 + x2) // (2 * image.width)
            truths.append(replace(item.truth, position=position))
        regions = []
        for index, truth in enumerate(truths):
            # A short expression says name, size, plate, and the position half of the time.
            said = replace(_sayable(truth), position=truth.position if rng.random() < _POSITION_SHARE else None)
            others = truths[:index] + truths[index + 1 :]
            negatives = self._negatives(said, others, rng)
            regions.append(Region(boxes[index], truth, said, negatives, _relation(index, boxes, rng)))
        return Scene(image, background_colour, tuple(regions))

    def _layout(self, width: int, height: int, rng: np.random.Generator) -> tuple[list[_Item], list[Box]]:
        """Choose 2 to 5 objects and places for them that don't overlap."""
        while True:
            items: list[_Item] = []
            count = int(rng.integers(2, MAX_OBJECTS + 1))
            while True:  # small as often as large
                sizes = [str(size) for size in rng.choice(list(_SIDES), size=count)]
                if max(sizes.count(size) for size in SIZES) <= _MAX_OF_A_SIZE:
                    break
            for size in sizes:
                items.append(self._random_item([item.truth.concept_id for item in items], size, rng))
            # The same objects again: to take others at once would leave more of the small ones.
            for _ in range(_LAYOUT_TRIES):
                boxes = _free_places([item.size for item in items], (width, height), rng)
                if boxes is not None:
                    return items, boxes

    def _random_item(self, present: list[int], size: str, rng: np.random.Generator) -> _Item:
        concept_id = self._random_concept(present, rng)
        artist, row = self._drawings[concept_id][rng.integers(len(self._drawings[concept_id]))]
        rgba = self._rgba[artist][row]
        drawing = Image.fromarray(rgba).crop(alpha_box(rgba, _OPAQUE))
        side = _SIDES[size] + int(rng.integers(-_SIDE_JITTER, _SIDE_JITTER + 1))
        if rng.random() >= _PLATE_SHARE:
            return _Item(Description(concept_id, size), drawing, _fitted(drawing.size, side))
        colour, shape = str(rng.choice(list(COLOURS))), str(rng.choice(list(SHAPES)))
        return _Item(Description(concept_id, size, colour, shape), drawing, (side, side))

    def _random_concept(self, present: list[int], rng: np.random.Generator) -> int:
        """Draw a thing that is no near synonym of those already there, often a sibling of the last one."""
        allowed = self._distinct_from(present)
        siblings = allowed
        if present:
            subgroup = self.table[present[-1]].subgroup
            siblings = allowed[np.array([self.table[i].subgroup == subgroup for i in allowed], dtype=bool)]
        if len(siblings) and rng.random() < _SIBLING_SHARE:
            return int(rng.choice(siblings))
        return int(rng.choice(allowed))

    def _distinct_from(self, present: list[int]) -> np.ndarray:
        """Return the concepts that none of `present` could pass for."""
        confusable = np.logical_or.reduce(self._confusable[present], axis=0)  # (N,)
        return self._ids[~confusable[self._ids] & ~np.isin(self._ids, present)]

    def _background(
        self, width: int, height: int, taken: set[str | None], rng: np.random.Generator
    ) -> tuple[Image.Image, str | None]:
        """Return a crop of a photograph, or a plain colour that no plate has, and the colour."""
        if self._pyramids and rng.random() < _PHOTOGRAPH_SHARE:
            return Image.fromarray(random_crops(self._pyramids, 1, height, width, rng)[0]), None
        colour = str(rng.choice([name for name in COLOURS if name not in taken]))
        return Image.new("RGB", (width, height), _RGB[colour]), colour

    def _negatives(
        self, said: Description, others: Sequence[Description], rng: np.random.Generator
    ) -> tuple[tuple[str, Description], ...]:
        """Draw `NEGATIVES` descriptions that differ from `said` in one thing and are false; kinds take turns."""
        by_kind = attribute_negatives(said, others, rng)
        # Up to `NEGATIVES` things that are neither in the scene nor near synonyms of what is, mostly kin.
        present = [said.concept_id, *(other.concept_id for other in others)]
        allowed = np.isin(self._ids, self._distinct_from(present))
        shares = self._shares[np.searchsorted(self._ids, said.concept_id)] * allowed
        count = min(NEGATIVES, int(np.count_nonzero(shares)))
        strangers = self._ids[rng.choice(len(shares), size=count, replace=False, p=shares / shares.sum())]
        by_kind["object"] = [replace(said, concept_id=int(concept_id)) for concept_id in strangers]
        queues = {kind: list(by_kind[kind]) for kind in NEGATIVE_KINDS}
        chosen: list[tuple[str, Description]] = []
        while len(chosen) < NEGATIVES and any(queues.values()):
            chosen += [(kind, queue.pop(0)) for kind, queue in queues.items() if queue]
        return tuple(chosen[:NEGATIVES])

    def _negative_shares(self) -> np.ndarray:
        """Return (T, T): how often each thing is an object negative of each other one.

        Symmetric, and all rows and columns sum to 1: each thing is as often a negative as it is a positive, whatever
        the size of its subgroup, so that its name alone says nothing.
        """
        concepts = [self.table[concept_id] for concept_id in self._ids]
        subgroups, groups = (np.unique([getattr(c, by) for c in concepts], return_inverse=True)[1] for by in _LEVELS)
        affinity = np.full((len(concepts), len(concepts)), _AFFINITY["none"])
        affinity[groups[:, None] == groups] = _AFFINITY["group"]
        affinity[subgroups[:, None] == subgroups] = _AFFINITY["subgroup"]
        affinity[self._confusable[np.ix_(self._ids, self._ids)]] = 0
        np.fill_diagonal(affinity, 0)
        return balanced(affinity)


def balanced(affinity: np.ndarray) -> np.ndarray:
    """Scale a symmetric matrix (N, N), not negative, so that its rows and columns sum to 1 and it stays symmetric."""
    scale = np.ones(len(affinity))
    for _ in range(_BALANCING_STEPS):
        scale = np.sqrt(scale / np.maximum(affinity @ scale, np.finfo(float).tiny))
    return affinity * scale[:, None] * scale


def attribute_negatives(
    said: Description, others: Sequence[Description], rng: np.random.Generator
) -> dict[str, list[Description]]:
    """Return false variants of a description by kind, but for other objects.

    Each kind is drawn symmetrically (red may become blue as blue may become red), so that no text is likelier to be
    the negative one by itself.

    Args:
        said: The true description; only what it mentions is varied.
        others: The truth about the other objects of the scene.
        rng: Random state of the order within a kind.
    """
    unclear = (said.colour, *similar_colours(said.colour)) if said.colour else ()
    worn = [other.colour for other in others if other.colour and other.colour not in unclear]
    free = [str(colour) for colour in rng.permutation(list(COLOURS)) if colour not in (*unclear, *worn)]
    negatives: dict[str, list[Description]] = {kind: [] for kind in NEGATIVE_KINDS}
    negatives["swap"] = [replace(said, concept_id=other.concept_id) for other in others]
    if said.colour:
        negatives["color"] = [replace(said, colour=colour) for colour in free]
        negatives["bind-color"] = [replace(said, colour=colour) for colour in dict.fromkeys(worn)]
        negatives["shape"] = [replace(said, shape=shape) for shape in SHAPES if shape != said.shape]
    if said.size:
        negatives["size"] = [replace(said, size=size) for size in SIZES if size != said.size]
    if said.position not in (None, (1, 1)):
        row, column = said.position
        negatives["position"] = [replace(said, position=(2 - row, 2 - column))]
    return negatives


def scene_record(scene: Scene, table: ConceptTable, language: Language, path: str) -> dict[str, Any]:
    """Return a scene as one FineHARD record, with the kind of each negative and the object's name beside it.

    Args:
        scene: What `SceneBuilder.build` gives.
        table: The concepts.
        language: "en" or "zh"; Chinese records carry `is_cn`.
        path: The path of the picture, for `f_path`.
    """
    named = [with_article(_name(table, r, "en"), _name(table, r, "en")) for r in scene.regions]
    if language == "zh":
        named = [_name(table, region, "zh") for region in scene.regions]
    record: dict[str, Any] = {
        "f_path": path,
        "caption": long_caption(scene, table, language),
        "short_caption": listing(named, language),
        "bbox_info": [region_record(scene, index, table, language) for index in range(len(scene.regions))],
    }
    return {**record, "is_cn": True} if language == "zh" else record


def region_record(scene: Scene, index: int, table: ConceptTable, language: Language) -> dict[str, Any]:
    """Return one entry of a record's `bbox_info`; the box is normalised to 0..1."""
    region, (width, height) = scene.regions[index], scene.image.size
    x1, y1, x2, y2 = region.box
    relation, other = region.relation
    other_concept = table[scene.regions[other].truth.concept_id]
    placed = replace(region.said, position=region.truth.position)
    negatives = [expression(negative, table, language) for _, negative in region.negatives]
    return {
        "bbox": [x1 / width, y1 / height, x2 / width, y2 / height],
        "short_expr": expression(region.said, table, language),
        "long_expr": related_expression(placed, relation, other_concept, table, language),
        "flag_short_neg": 1,
        "short_expr_negs": {str(number): text for number, text in enumerate(negatives)},
        "neg_kinds": {str(number): kind for number, (kind, _) in enumerate(region.negatives)},
        "category": _name(table, region, language),
    }


def long_caption(scene: Scene, table: ConceptTable, language: Language) -> str:
    """Say count, background, each object, one relation, and the largest object where one clearly leads."""
    sentences = [count_sentence(len(scene.regions), scene.background_colour, language)]
    sentences += [object_sentence(_sayable(region.truth), table, language) for region in scene.regions]
    relation, other = scene.regions[0].relation
    first, second = (table[scene.regions[index].truth.concept_id] for index in (0, other))
    sentences.append(relation_sentence(first, relation, second, language))
    # The largest leads both in area and in its longer side.
    sizes = np.array([(x2 - x1, y2 - y1) for x1, y1, x2, y2 in (region.box for region in scene.regions)])  # (R, 2)
    areas, sides = sizes.prod(axis=1), sizes.max(axis=1)
    largest, next_largest = np.argsort(-areas)[:2]
    if areas[largest] >= _LARGEST_LEAD * areas[next_largest] and sides[largest] == sides.max():
        sentences.append(largest_sentence(table[scene.regions[largest].truth.concept_id], language))
    return joined(sentences, language)


def write_scenes(folder: Path, builder: SceneBuilder, count: int, seed: int) -> None:
    """Write `images/00000.webp` ... and the records in both languages, `scenes_en.json` and `scenes_zh.json`."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    records: dict[Language, list[dict[str, Any]]] = {"en": [], "zh": []}
    for number in range(count):
        scene = builder.build(np.random.default_rng([seed, number]))
        path = f"images/{number:05d}.webp"
        scene.image.save(folder / path, quality=92)
        for language, rows in records.items():
            rows.append(scene_record(scene, builder.table, language, path))
    for language, rows in records.items():
        text = json.dumps(rows, ensure_ascii=False, indent=1)
        (folder / f"scenes_{language}.json").write_text(text, encoding="utf-8")


def _name(table: ConceptTable, region: Region, language: Language) -> str:
    return table[region.truth.concept_id].name(language)


def _sayable(truth: Description) -> Description:
    """Drop the size that nobody mentions, medium."""
    return replace(truth, size=None) if truth.size == "medium" else truth


def _fitted(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Scale (width, height) so that the longer one is `side`."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _free_places(
    sizes: Sequence[tuple[int, int]], canvas: tuple[int, int], rng: np.random.Generator
) -> list[Box] | None:
    """Draw boxes of `sizes` that are apart, the largest placed first; None where no place for one was found."""
    boxes: dict[int, Box] = {}
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index][0] * sizes[index][1]):
        width, height = sizes[index]
        for _ in range(_PLACEMENT_TRIES):
            x, y = int(rng.integers(canvas[0] - width + 1)), int(rng.integers(canvas[1] - height + 1))
            box = (x, y, x + width, y + height)
            gaps = (max(x - o[2], o[0] - box[2], y - o[3], o[1] - box[3]) for o in boxes.values())
            if all(gap >= _MARGIN for gap in gaps):
                boxes[index] = box
                break
        else:
            return None
    return [boxes[index] for index in range(len(sizes))]


def _relation(index: int, boxes: Sequence[Box], rng: np.random.Generator) -> tuple[str, int]:
    """Draw a relation of one box to another that holds for all of both; boxes that are apart always have one."""
    box = boxes[index]
    relations = []
    for other_index, other in enumerate(boxes):
        if other_index != index:
            relations += [("left", other_index)] * (box[2] <= other[0]) + [("right", other_index)] * (
                other[2] <= box[0]
            )
            relations += [("above", other_index)] * (box[3] <= other[1]) + [("below", other_index)] * (
                other[3] <= box[1]
            )
    return relations[rng.integers(len(relations))]


def _draw(image: Image.Image, item: _Item, box: Box) -> None:
    """Draw an object, on its plate if it has one, into its box of `image`, in place."""
    width, height = item.size
    inner = item.size
    if item.truth.colour and item.truth.shape:
        # A filled circle or rounded square, with smooth edges: drawn four times larger and shrunk.
        mask = Image.new("L", (4 * width, 4 * width))
        corners = (0, 0, 4 * width - 1, 4 * width - 1)
        if item.truth.shape == "round":
            ImageDraw.Draw(mask).ellipse(corners, fill=255)
        else:
            ImageDraw.Draw(mask).rounded_rectangle(corners, radius=width // 3, fill=255)
        image.paste(_RGB[item.truth.colour], box, mask.resize((width, width), Image.Resampling.BOX))
        inner = _fitted(item.drawing.size, round(width * _CUTOUT_ON_PLATE))
    drawing = item.drawing.resize(inner, Image.Resampling.LANCZOS)
    image.paste(drawing, (box[0] + (width - inner[0]) // 2, box[1] + (height - inner[1]) // 2), drawing)
