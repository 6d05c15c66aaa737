"""What the tests of the recipes share: the small cache of drawings, and the bundled scenes as a pool."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgclip2.drawings.concepts import ConceptTable
from fgclip2.drawings.phrases import Description
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer
from recipes.scenes.grammar import SceneFacts
from recipes.scenes.pool import MAX_PATCHES, ScenePool, patches_of

from ..drawings.conftest import cache, drawings, make_concept, photographs, table  # noqa: F401

ASSETS = Path(__file__).parents[2] / "src" / "fgclip2" / "assets"
CONCEPTS = 12


@pytest.fixture(scope="session")
def tokenizer():
    return FGClip2Tokenizer.from_pretrained(ASSETS / "checkpoint")


@pytest.fixture(scope="session")
def records():
    folder = ASSETS / "demo" / "scenes"
    return {lang: json.loads((folder / f"scenes_{lang}.json").read_text("utf-8")) for lang in ("en", "zh")}


@pytest.fixture(scope="session")
def things(records):
    """The things of the bundled scenes, by number of scene and region."""
    pairs = zip(records["en"], records["zh"], strict=True)
    regions = [both for en, zh in pairs for both in zip(en["bbox_info"], zh["bbox_info"], strict=True)]
    return ConceptTable(tuple(make_concept(en["category"], zh["category"]) for en, zh in regions))


@pytest.fixture(scope="session")
def pool(records):
    images = [np.asarray(Image.open(ASSETS / "demo" / "scenes" / r["f_path"]).convert("RGB")) for r in records["en"]]
    patches = np.zeros((len(images), MAX_PATCHES, 768), np.uint8)
    for row, image in enumerate(images):
        own = patches_of(image)
        patches[row, : len(own)] = own
    grids = np.array([[image.shape[0] // 16, image.shape[1] // 16] for image in images])
    rng = np.random.default_rng(0)
    concepts = [rng.choice(CONCEPTS, len(r["bbox_info"]), replace=False).tolist() for r in records["en"]]
    ids = iter(range(sum(map(len, concepts))))
    said = [[Description(next(ids), "large", "red", "round", (1, 1)) for _ in own] for own in concepts]
    facts = [SceneFacts(None, tuple(own)) for own in said]
    return ScenePool([patches], grids, concepts, records, facts)
