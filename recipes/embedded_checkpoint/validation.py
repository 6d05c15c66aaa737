"""The measure that settings are chosen by: the photo protocol with the validation artist and photographs."""

from __future__ import annotations

from functools import cache as memoize
from pathlib import Path
from typing import Any

import numpy as np

from fgclip2 import Embedder
from fgclip2.drawings.concepts import load_concepts
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.interface import Role

from .protocols import build_protocol_set

VALIDATION_ARTIST = "emojione-v1"
CANVAS = 96


@memoize
def _validation_data(cache: Path):
    table = load_concepts(cache)
    pictures = build_protocol_set(cache, table, VALIDATION_ARTIST, "photo", CANVAS, background_split="validation")
    keep = ~table.is_held_out[pictures.concept_ids]
    images = [image for image, kept in zip(pictures.images, keep, strict=True) if kept]
    correct = np.searchsorted(table.thing_ids, pictures.concept_ids[keep])
    return table, images, correct


def validate(model: Any, processor: Any, cache: Path, budgets: tuple[int | None, ...] = (16, 36)) -> dict[str, float]:
    """Recall@1 in percent of pictures of trained concepts among all 837 names, by language and patch budget.

    Args:
        model, processor: Of any family.
        cache: Folder of the data.
        budgets: Of patches; `(None,)` for a family without budgets.
    """
    was_training = model.training
    recalls = {}
    for budget in budgets:
        for language, (scores, correct) in name_similarities(Embedder(model, processor), cache, budget).items():
            recalls[f"{language}_{budget}"] = round(100 * float((scores.argmax(1) == correct).mean()), 1)
    model.train(was_training)
    return recalls


def name_similarities(
    embedder: Embedder, cache: Path, budget: int | None, role: Role = "caption"
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return for each language cosines of pictures and names, (pictures, 837), and each picture's right name."""
    table, images, correct = _validation_data(cache)
    pictures = embedder.encode_images(images, max_num_patches=budget)
    names = {language: [table[int(i)].name(language) for i in table.thing_ids] for language in LANGUAGES}
    return {language: (pictures @ embedder.encode_texts(own, role=role).T, correct) for language, own in names.items()}
