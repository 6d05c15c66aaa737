"""A small table of concepts and a cache with plain drawings of them; nothing is fetched."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from fgclip2.drawings.concepts import Concept, ConceptTable
from fgclip2.drawings.sources import ARTWORK
from fgclip2.drawings.splits import BACKGROUND_SPLITS

# English, Chinese, subgroup, held out
_THINGS = [
    ("dog", "狗", "animal-mammal", False),
    ("guide dog", "导盲犬", "animal-mammal", False),  # a near synonym of the dog, in English
    ("cat", "猫", "animal-mammal", False),
    ("horse", "马", "animal-mammal", False),
    ("pig", "猪", "animal-mammal", False),
    ("koala", "考拉", "animal-mammal", True),
    ("axe", "斧头", "tool", False),
    ("hammer", "锤子", "tool", False),
    ("scissors", "剪刀", "tool", False),
    ("key", "钥匙", "tool", False),
    ("umbrella", "伞", "tool", False),
    ("magnet", "磁铁", "tool", True),
    ("ladder", "梯子", "tool", False),
    ("candle", "蜡烛", "tool", False),
    ("bread", "面包", "food-prepared", False),
    ("pizza", "披萨", "food-prepared", False),
    ("egg", "蛋", "food-prepared", False),
    ("taco", "墨西哥卷饼", "food-prepared", False),
]


def make_concept(name_en: str, name_zh: str, **changes) -> Concept:
    values = {"group": "objects", "subgroup": "tool", "is_thing": True, "keywords_en": (), "keywords_zh": ()}
    return Concept(**{"key": name_en, "name_en": name_en, "name_zh": name_zh, **values, **changes})


@pytest.fixture(scope="session")
def table() -> ConceptTable:
    things = [make_concept(en, zh, subgroup=subgroup, is_held_out=out) for en, zh, subgroup, out in _THINGS]
    return ConceptTable((make_concept("smile", "微笑", is_thing=False), *things))


@pytest.fixture(scope="session")
def drawings(table: ConceptTable) -> tuple[np.ndarray, np.ndarray]:
    """One drawing of each concept: a rectangle of its own colour and size, with exact edges."""
    rgba = np.zeros((len(table), 96, 96, 4), dtype=np.uint8)
    for concept_id in range(len(table)):
        top, left = 10 + concept_id, 20
        rgba[concept_id, top : top + 60, left : left + 30 + concept_id] = (13 * concept_id, 99, 201, 255)
    return np.arange(len(table)), rgba


@pytest.fixture(scope="session")
def photographs() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size=(384, 400, 3), dtype=np.uint8) for _ in range(2)]


@pytest.fixture(scope="session")
def cache(
    tmp_path_factory, table: ConceptTable, drawings: tuple[np.ndarray, np.ndarray], photographs: list[np.ndarray]
) -> Path:
    folder = tmp_path_factory.mktemp("demo-cache")
    rows = [asdict(concept) for concept in table]
    (folder / "concepts.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    (folder / "cutouts").mkdir()
    for artist in ARTWORK:
        np.save(folder / "cutouts" / f"{artist}.ids.npy", drawings[0])
        np.save(folder / "cutouts" / f"{artist}.npy", drawings[1])
    (folder / "backgrounds").mkdir()
    for name in BACKGROUND_SPLITS:
        np.save(folder / "backgrounds" / f"{name}.npy", photographs[0])
    return folder
