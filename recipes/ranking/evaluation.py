"""Which queries have their scene in the first place, by each way to rank, and which hard negatives are beaten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fgclip2 import FGClip2Embedder
from fgclip2.drawings.concepts import ConceptTable
from fgclip2.drawings.scene_sets import SceneSet, build_scene_set
from fgclip2.embedding.reranker import CANDIDATES, WINDOW_SIDES, match_pairs, spread_weight
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.modeling_matching_fgclip2 import FGClip2ForImageTextMatching

from ..reranking.ablation import CachedScenes
from .stage import cross_encode
from .tokens import CAPTIONS, PATCHES, WORDINGS, SceneTokens, Texts, captions_of_scenes, scene_tokens

SEED = 1  # of the scenes, as in recipes/scenes
NEGATIVES = 10  # false phrases of a region
DESCRIBED = 300  # scenes whose captions are encoded
WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the stage's logits beside phrases, of which validation chooses
_PAIRS = 320  # that are scored at once

Hits = dict[str, dict[str, str]]  # way to rank -> name of queries -> a digit for each, 1 where it is answered rightly


def digits(values: Tensor) -> str:
    """Return booleans as a string of 0 and 1."""
    return "".join(str(int(value)) for value in values)


def first_places(scores: Tensor, is_right: Tensor) -> str:
    """Return a 1 for each query whose right candidate has the highest score alone, else a 0; both are (Q, K)."""
    right = torch.where(is_right, scores, -torch.inf).amax(1)  # (Q,)
    return digits(right > torch.where(is_right, -torch.inf, scores).amax(1))


@dataclass(frozen=True)
class Queries:
    """Captions of one kind, wording and language, and their candidates.

    Args:
        texts: The captions; caption i is of scene i.
        kind: Of [`SceneTokens.captions`].
        rows: Integer, shape (Q,), of the kind's texts.
        cosines: Float32, shape (Q, CANDIDATES), of the nearest scenes by the dual encoder.
        scenes: Integer, shape (Q, CANDIDATES), which scenes these are.
    """

    texts: list[str]
    kind: str
    rows: Tensor
    cosines: Tensor
    scenes: Tensor

    @property
    def is_right(self) -> Tensor:
        """Return which candidates are right, boolean (Q, CANDIDATES)."""
        return self.scenes == torch.arange(len(self.scenes))[:, None]


class ScenesOfTokens(CachedScenes):
    """The scenes as re-ranking by phrases sees them, from the tokens of the ranking stage."""

    def __init__(self, embedder: FGClip2Embedder, tokens: SceneTokens):
        self.embedder, self.sides, self.shift = embedder, WINDOW_SIDES, 0
        self.vectors, self.grids = tokens.image_embeddings().numpy(), tokens.grids.numpy()
        self.maps = tokens.images[:, 1:].numpy()


class Measured:
    """Scenes of a split, and what is found among them.

    Args:
        embedder: Of the dual encoder that is frozen.
        table: The concepts.
        cache, work: Folder of the drawings; folder for what is computed once.
        split: "validation" or "test".
        scenes: How many are searched.
        captions: How many of them are searched for, by each kind of caption.
        region_scenes: Of how many the regions are told from hard negatives.
        bf16: Whether a stage computes in bfloat16 autocast.
    """

    def __init__(
        self,
        embedder: FGClip2Embedder,
        table: ConceptTable,
        cache: Path,
        work: Path,
        split: Any,
        scenes: int,
        captions: int,
        region_scenes: int,
        bf16: bool,
    ):
        self.embedder, self.bf16 = embedder, bf16
        self.scenes: SceneSet = build_scene_set(cache, table, split, scenes, SEED)
        self.tokens = scene_tokens(
            work, cache, table, embedder, self.scenes, split, SEED, DESCRIBED, region_scenes, NEGATIVES
        )
        self.scale, self.bias = embedder.model.get_score_scale_and_bias()
        tokenizer = embedder.processor.tokenizer
        texts = captions_of_scenes(cache, table, tokenizer, self.scenes, split, SEED, captions)
        images = self.tokens.image_embeddings()
        self.queries: dict[str, Queries] = {}
        for kind, (encoded, rows) in self.tokens.captions.items():
            for number, wording in enumerate(WORDINGS):
                for index, language in enumerate(LANGUAGES):
                    its = rows[index, number, :captions]
                    found = (encoded.embeddings(its) @ images.T).topk(min(CANDIDATES, len(images)))
                    self.queries[f"{kind} {wording} {language}"] = Queries(
                        texts[kind][language][number], kind, its, found.values, found.indices
                    )
        phrases = work / f"phrases-{split}-{scenes}-{captions}-{embedder.fingerprint[:16]}.safetensors"
        if not phrases.exists():
            save_file({name: self._phrase_means(its) for name, its in self.queries.items()}, phrases)
        self.phrase_means = load_file(phrases)

    def _phrase_means(self, its: Queries) -> Tensor:
        """Return the means of the cosines of each caption's phrases, float32 (Q, CANDIDATES)."""
        pairs = [(text, image) for text, row in enumerate(its.scenes.tolist()) for image in row]
        images, scenes = range(len(self.tokens)), ScenesOfTokens(self.embedder, self.tokens)
        found = match_pairs(scenes, its.texts, images, pairs)  # type: ignore[arg-type]
        means = {pair: np.mean([match.cosine for match in one.phrases]) for pair, one in found}  # type: ignore[union-attr]
        return torch.tensor([means[pair] for pair in pairs], dtype=torch.float32).view(its.scenes.shape)

    def by_phrases(self, name: str) -> Tensor:
        """Return the scores of re-ranking by phrases with the package's settings, in cosines (Q, CANDIDATES)."""
        cosines, means = self.queries[name].cosines, self.phrase_means[name]
        weights = [spread_weight(*both) for both in zip(cosines.numpy(), means.numpy(), strict=True)]
        return cosines + torch.tensor(weights)[:, None] * means

    def hits_without_training(self) -> Hits:
        """Return the hits of the dual encoder and of re-ranking by phrases."""
        hits: Hits = {"dual encoder": {}, "phrases": {}}
        for name, its in self.queries.items():
            hits["dual encoder"][name] = first_places(its.cosines, its.is_right)
            hits["phrases"][name] = first_places(self.by_phrases(name), its.is_right)
        images = self.tokens.image_embeddings()
        hits["dual encoder"] |= self._hard_negatives(
            lambda text, image: (self.tokens.phrases.embeddings(text) * images[image]).sum(-1)
        )
        return hits

    def hits_of_stage(self, model: FGClip2ForImageTextMatching) -> Hits:
        """Return the hits of a ranking stage, and of the stage beside phrases at each of `WEIGHTS`."""
        hits: Hits = {}
        for name, its in self.queries.items():
            text, image = its.rows.repeat_interleave(its.scenes.shape[1]), its.scenes.flatten()
            logits = self._stage_logits(model, self.tokens.captions[its.kind][0], text, image).view(its.scenes.shape)
            phrases = self.scale * self.by_phrases(name)
            scores = {f"phrases + {weight:g} x stage": phrases + weight * logits for weight in WEIGHTS}
            for way, values in {"stage": self.scale * its.cosines + logits, **scores}.items():
                hits.setdefault(way, {})[name] = first_places(values, its.is_right)
        images = self.tokens.image_embeddings()

        def score(text: Tensor, image: Tensor) -> Tensor:
            cosines = (self.tokens.phrases.embeddings(text) * images[image]).sum(-1)
            return self.scale * cosines + self._stage_logits(model, self.tokens.phrases, text, image)

        hits["stage"] |= self._hard_negatives(score)
        return hits

    def hits_of_dual_encoder(self, model: Any) -> Hits:
        """Return the hits of another dual encoder."""
        embedder = FGClip2Embedder(model, self.embedder.processor)
        images = [self.scenes.image(index) for index in range(len(self.scenes))]
        vectors = torch.from_numpy(embedder.encode_images(images, PATCHES))
        hits: dict[str, str] = {}
        for name, its in self.queries.items():
            cosines = torch.from_numpy(embedder.encode_texts(its.texts, role=CAPTIONS[its.kind][0])) @ vectors.T
            hits[name] = first_places(cosines, torch.eye(len(vectors))[: len(cosines)].bool())
        return {"dual encoder": hits}

    @torch.inference_mode()
    def _stage_logits(self, model: FGClip2ForImageTextMatching, texts: Texts, text: Tensor, image: Tensor) -> Tensor:
        return cross_encode(model, self.tokens.images, texts, text[:, None], image, _PAIRS, self.bf16)[:, 0]

    def _hard_negatives(self, score: Callable[[Tensor, Tensor], Tensor]) -> dict[str, str]:
        """Return the regions whose true phrase beats all false ones; `score` takes phrases and scenes (P,)."""
        count = self.tokens.choices.shape[1]
        text, image = self.tokens.choices.flatten(), self.tokens.region_scenes.repeat_interleave(count)
        scores = score(text, image).view(-1, count)
        wins = (scores[:, :1] > scores[:, 1:]).all(1)
        of_language = self.tokens.region_languages
        return {f"hard negatives {its}": digits(wins[of_language == index]) for index, its in enumerate(LANGUAGES)}
