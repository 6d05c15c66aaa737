"""How much of a caption's retrieval survives free language: other orders of the same words, and other words too.

Beside the captions that the generator composes, each scene gets one caption by the grammar's patterns of a split, with
the same words ("other orders") and with the split's synonyms wherever it has any ("other words"). All objects and all
that is known of them is said, in up to 196 tokens for the head of long captions and up to 64 for that of short ones;
the automatic head reads the former, each by the head that its length asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fgclip2 import Embedder
from fgclip2.drawings.concepts import ConceptTable
from fgclip2.drawings.scene_sets import SceneSplit, scene_builder
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer

from .grammar import LONG_TOKENS, SHORT_TOKENS, GrammarSplit, SceneFacts, build_grammars, facts_of

WORDINGS = {"other_orders": 0.0, "other_words": 1.0}  # -> share of synonyms
HEADS: dict[str, Any] = {"long": "long_caption", "short": "caption", "auto": "auto"}  # -> role of the texts

# language -> wording -> length -> one caption a scene
FreeCaptions = dict[str, dict[str, dict[str, list[str]]]]


def scene_facts(cache: Path, table: ConceptTable, split: SceneSplit, count: int, seed: int) -> list[SceneFacts]:
    """Return what is known of the scenes of a set, which are made anew as `write_scenes` makes them."""
    builder = scene_builder(cache, table, split)
    return [facts_of(builder.build(np.random.default_rng([seed, number]))) for number in range(count)]


def free_captions(
    facts: Sequence[SceneFacts], table: ConceptTable, tokenizer: FGClip2Tokenizer, split: GrammarSplit, seed: int
) -> FreeCaptions:
    """Write the captions of both wordings, long and short, in both languages, by the seed alone."""
    captions: FreeCaptions = {}
    for number, (wording, synonym_share) in enumerate(WORDINGS.items()):
        for language, grammar in build_grammars(table, tokenizer, split, synonym_share).items():
            rngs = [np.random.default_rng([seed, number, index]) for index in range(len(facts))]
            captions.setdefault(language, {})[wording] = {
                length: [grammar.caption(one, rng, tokens) for one, rng in zip(facts, rngs, strict=True)]
                for length, tokens in (("long", LONG_TOKENS), ("short", SHORT_TOKENS))
            }
    return captions


def encode_by_heads(embedder: Embedder, captions: dict[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Embed captions (N of each length) by each head: (N, D), L2-normalised."""
    texts = {"long": captions["long"], "short": captions["short"], "auto": captions["long"]}
    return {head: embedder.encode_texts(texts[head], role=role) for head, role in HEADS.items()}
