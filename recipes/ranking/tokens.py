"""Make what the ranking stage takes of scenes and texts, once by the frozen towers, and keep it in float16."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from fgclip2 import FGClip2Embedder
from fgclip2.drawings.concepts import ConceptTable
from fgclip2.drawings.scene_sets import SceneSet
from fgclip2.files import replacing
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.interface import Role
from fgclip2.modeling.modeling_matching_fgclip2 import FGClip2ForImageTextMatching

from ..scenes.free_language import free_captions, scene_facts
from ..scenes.grammar import LONG_TOKENS, SHORT_TOKENS, SceneFacts
from ..scenes.language_stage import training_grammars
from ..scenes.settings import LanguageSettings

PATCHES = 100
WORDINGS = ("composed", "other orders", "other words")  # of captions to be measured
FREE_WORDINGS = 2  # of a caption to be trained on, beside the composed one
# Kind of text -> role, field of a record, and the tokens that its head reads.
CAPTIONS: dict[str, tuple[Role, str, int]] = {
    "long": ("long_caption", "caption", LONG_TOKENS),
    "short": ("caption", "short_caption", SHORT_TOKENS),
}
_PART = 256  # texts that are encoded at once


@dataclass(frozen=True)
class Texts:
    """Tokens of texts of different lengths, one text behind the other.

    Args:
        tokens: Float16, shape (sum of lengths, D), of each text what `get_text_tokens` returns, without padding.
        lengths: Integer, shape (texts,).
    """

    tokens: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", self.lengths.cumsum(0) - self.lengths)

    def padded(self, rows: Tensor) -> Tensor:
        """Return the tokens of some texts, float32 (B, T, D), padded with zeros."""
        lengths, positions = self.lengths[rows], torch.arange(int(self.lengths[rows].max()))
        index = (self.starts[rows][:, None] + positions).clamp(max=len(self.tokens) - 1)  # (B, T)
        return self.tokens[index].float() * (positions < lengths[:, None])[..., None]

    def embeddings(self, rows: Tensor) -> Tensor:
        """Return the embeddings of some texts, float32 (B, D), L2-normalised."""
        return F.normalize(self.tokens[self.starts[rows]].float(), dim=-1)


@dataclass(frozen=True)
class SceneTokens:
    """Scenes with their captions and the phrases of their regions.

    Args:
        images: Float16, shape (scenes, 1 + PATCHES, D), of each scene what `get_image_tokens` returns.
        grids: Integer, shape (scenes, 2), height and width in patches.
        captions: Kind -> its texts, and integer rows (2 languages, wordings, described scenes) of each.
        phrases: Texts of regions, each once.
        choices: Integer, shape (regions, 1 + N), rows of `phrases`: the true text of a region, then false ones.
        region_scenes, region_languages: Integer, shape (regions,): scene and language of each.
    """

    images: Tensor
    grids: Tensor
    captions: dict[str, tuple[Texts, Tensor]]
    phrases: Texts
    choices: Tensor
    region_scenes: Tensor
    region_languages: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def image_embeddings(self) -> Tensor:
        """Return the scenes' embeddings, float32 (scenes, D), L2-normalised."""
        return F.normalize(self.images[:, 0].float(), dim=-1)


def captions_of_scenes(
    cache: Path, table: ConceptTable, tokenizer: Any, scenes: SceneSet, split: Any, seed: int, count: int
) -> dict[str, dict[str, list[list[str]]]]:
    """Return kind -> language -> for each wording a caption of each of the first scenes.

    Of validation and test scenes these are `WORDINGS`; of training scenes the composed caption and others that the
    grammar writes as the language stage reads them.
    """
    facts = scene_facts(cache, table, split, count, seed)
    if split == "train":
        free = _training_captions(facts, table, tokenizer, seed)
    else:
        by_language = free_captions(facts, table, tokenizer, split, seed)
        free = {
            kind: {language: [its[kind] for its in by_language[language].values()] for language in LANGUAGES}
            for kind in CAPTIONS
        }
    return {
        kind: {
            language: [[record[field] for record in scenes.records[language][:count]], *free[kind][language]]
            for language in LANGUAGES
        }
        for kind, (_, field, _) in CAPTIONS.items()
    }


def _training_captions(
    facts: Sequence[SceneFacts], table: ConceptTable, tokenizer: Any, seed: int
) -> dict[str, dict[str, list[list[str]]]]:
    grammars = training_grammars(table, tokenizer, LanguageSettings())
    captions: dict[str, dict[str, list[list[str]]]] = {kind: {} for kind in CAPTIONS}
    for kind, (_, _, most_tokens) in CAPTIONS.items():
        for number, language in enumerate(LANGUAGES):
            rngs = [np.random.default_rng([seed, index, number]) for index in range(len(facts))]
            captions[kind][language] = [
                [
                    grammars[language][rng.integers(len(grammars[language]))].caption(one, rng, most_tokens)
                    for one, rng in zip(facts, rngs, strict=True)
                ]
                for _ in range(FREE_WORDINGS)
            ]
    return captions


def region_choices(
    records: Mapping[str, Sequence[dict]], scenes: int, negatives: int, seed: int
) -> tuple[list[str], dict[str, Tensor]]:
    """Return the phrases of the first scenes' regions, each once, and which of them belong to which region.

    Args:
        records: Language -> records of the scenes.
        scenes: How many scenes have their regions read.
        negatives: How many false texts of a region are kept, others for each region.
        seed: Of the choice.
    """
    row: dict[str, int] = {}
    choices, of_scene, of_language = [], [], []
    for number, language in enumerate(LANGUAGES):
        for scene, record in enumerate(records[language][:scenes]):
            for place, region in enumerate(record["bbox_info"]):
                false = list(region["short_expr_negs"].values())
                kept = np.random.default_rng([seed, scene, place]).permutation(len(false))[:negatives]
                texts = [region["short_expr"], *(false[index] for index in kept.tolist())]
                choices.append([row.setdefault(text, len(row)) for text in texts])
                of_scene.append(scene)
                of_language.append(number)
    of_regions = {"choices": choices, "region_scenes": of_scene, "region_languages": of_language}
    return list(row), {name: torch.tensor(values) for name, values in of_regions.items()}


@torch.inference_mode()
def encode_images(model: FGClip2ForImageTextMatching, processor: Any, scenes: SceneSet) -> dict[str, Tensor]:
    """Return `images` and `grids` of [`SceneTokens`]."""
    rows, grids = [], []
    for index in range(len(scenes)):
        inputs = processor.collate_images([processor.prepare_image(scenes.image(index), PATCHES)])
        tokens = model.get_image_tokens(**inputs)[0].half()  # (1 + N, D)
        rows.append(F.pad(tokens, (0, 0, 0, 1 + PATCHES - len(tokens))))
        grids.append(inputs["spatial_shapes"][0])
    return {"images": torch.stack(rows), "grids": torch.stack(grids)}


@torch.inference_mode()
def encode_texts(
    model: FGClip2ForImageTextMatching, processor: Any, texts: Sequence[str], role: Role
) -> dict[str, Tensor]:
    """Return `tokens` and `lengths` of [`Texts`]."""
    rows = []
    for start in range(0, len(texts), _PART):
        inputs = processor.tokenize(texts[start : start + _PART], role)
        tokens = model.get_text_tokens(inputs["input_ids"]).half()  # (B, 1 + T, D)
        rows += [its[its.any(-1)] for its in tokens]
    return {"tokens": torch.cat(rows), "lengths": torch.tensor([len(row) for row in rows])}


def scene_tokens(
    folder: Path,
    cache: Path,
    table: ConceptTable,
    embedder: FGClip2Embedder,
    scenes: SceneSet,
    split: Any,
    seed: int,
    described: int,
    region_scenes: int,
    negatives: int,
) -> SceneTokens:
    """Encode scenes and their texts by the towers, or read what was encoded before.

    Args:
        folder: Of the files that this writes.
        cache, table: Of the drawings.
        embedder: Of the dual encoder.
        scenes: The set.
        split: Of the scenes and of the grammar: "train", "validation" or "test".
        seed: That the scenes were made with.
        described: How many scenes have their captions read; the others are only searched.
        region_scenes, negatives: As in [`region_choices`].
    """
    file = (
        folder / f"{scenes.folder.name}-{described}-{region_scenes}-{negatives}-{embedder.fingerprint[:16]}.safetensors"
    )
    if not file.exists():
        model, processor = FGClip2ForImageTextMatching.from_dual_encoder(embedder.model), embedder.processor
        captions = captions_of_scenes(cache, table, processor.tokenizer, scenes, split, seed, described)
        phrases, tensors = region_choices(scenes.records, region_scenes, negatives, seed)
        tensors |= encode_images(model, processor, scenes)
        encoded = {"phrases": encode_texts(model, processor, phrases, "caption")}
        for kind, by_language in captions.items():
            flat = [text for language in LANGUAGES for its in by_language[language] for text in its]
            encoded[kind] = encode_texts(model, processor, flat, CAPTIONS[kind][0])
        tensors |= {f"{name}.{part}": values for name, its in encoded.items() for part, values in its.items()}
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as unfinished:
            save_file(tensors, unfinished)
    tensors = load_file(file)
    texts = {name: Texts(tensors[f"{name}.tokens"], tensors[f"{name}.lengths"]) for name in ("phrases", *CAPTIONS)}
    rows = {kind: torch.arange(len(texts[kind].lengths)).view(len(LANGUAGES), -1, described) for kind in CAPTIONS}
    return SceneTokens(
        captions={kind: (texts[kind], rows[kind]) for kind in CAPTIONS},
        phrases=texts["phrases"],
        **{name: tensors[name] for name in ("images", "grids", "choices", "region_scenes", "region_languages")},
    )
