"""The measure that settings are chosen by: the photo protocol with the validation artist and photographs."""

from __future__ import annotations

from functools import cache as memoize
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from fgclip2.drawings.concepts import load_concepts
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.image_processing_fgclip2 import FGClip2ImageProcessor
from fgclip2.modeling.modeling_fgclip2 import FGClip2Model
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer

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
    return table, images, torch.from_numpy(correct)


@torch.no_grad()
def validate(
    model: FGClip2Model, tokenizer: FGClip2Tokenizer, cache: Path, budgets: tuple[int, ...] = (16, 36)
) -> dict[str, float]:
    """Recall@1 in percent of pictures of trained concepts among all 837 names, by language and patch budget."""
    table, images, correct = _validation_data(cache)
    was_training = model.training
    model.eval()
    embeds = {}
    for language in LANGUAGES:
        names = [table[int(concept_id)].name(language) for concept_id in table.thing_ids]
        ids = tokenizer(names, return_tensors="pt")["input_ids"]
        embeds[language] = F.normalize(model.get_text_features(ids, walk_type="short"), dim=-1)
    recalls = {}
    for budget in budgets:
        inputs = FGClip2ImageProcessor(max_num_patches=budget)(images, return_tensors="pt")
        pictures = F.normalize(model.get_image_features(**inputs), dim=-1)
        for language, texts in embeds.items():
            top = (pictures @ texts.T).argmax(1)
            recalls[f"{language}_{budget}"] = round(100 * (top == correct).float().mean().item(), 1)
    model.train(was_training)
    return recalls
