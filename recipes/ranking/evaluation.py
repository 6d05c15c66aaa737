"""What the ranking stage is measured by, and what it is measured beside: first places and hard negatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgclip2.embedding.reranker import CANDIDATES, match_pairs, spread_weight
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.modeling_matching_fgclip2 import FGClip2ForImageTextMatching

from .tokens import WORDINGS, SceneTokens

WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the stage's logits beside phrases, of which validation chooses
_PAIRS = 320  # that are scored at once


@dataclass(frozen=True)
class Queries:
    """Captions of one kind, wording and language, and their candidates.

    Args:
        name: `kind wording language`.
        kind: Of [`SceneTokens.captions`].
        rows: Integer, shape (Q,), of the kind's texts; query i is of scene i.
        cosines: Float32, shape (Q, CANDIDATES), of the nearest scenes by the dual encoder.
        scenes: Integer, shape (Q, CANDIDATES), which scenes these are.
    """

    name: str
    kind: str
    rows: Tensor
    cosines: Tensor
    scenes: Tensor

    @property
    def is_right(self) -> Tensor:
        """Return which candidates are right, boolean (Q, CANDIDATES)."""
        return self.scenes == torch.arange(len(self.scenes))[:, None]

    def first_places(self, scores: Tensor) -> str:
        """Return a 1 for each query whose right candidate has the highest score alone, else a 0."""
        best = torch.where(self.is_right, scores, -torch.inf).amax(1)  # (Q,)
        beaten = torch.where(self.is_right, -torch.inf, scores).amax(1) < best
        return digits(beaten)


def digits(values: Tensor) -> str:
    """Return booleans as a string of 0 and 1."""
    return "".join(str(int(value)) for value in values)


def queries(scenes: SceneTokens, count: int) -> Iterator[Queries]:
    """Yield the captions of the first scenes, with their nearest of all scenes."""
    images = scenes.image_embeddings()
    for kind, (texts, rows) in scenes.captions.items():
        for number, wording in enumerate(WORDINGS):
            for index, language in enumerate(LANGUAGES):
                its = rows[index, number, :count]
                cosines, nearest = (texts.embeddings(its) @ images.T).topk(min(CANDIDATES, len(scenes)))
                yield Queries(f"{kind} {wording} {language}", kind, its, cosines, nearest)


@torch.inference_mode()
def stage_logits(
    model: FGClip2ForImageTextMatching, scenes: SceneTokens, texts: Any, text: Tensor, image: Tensor
) -> Tensor:
    """Return what the cross encoder adds to the logits of pairs, float32 (P,), in bfloat16 autocast."""
    parts = []
    for its_text, its_image in zip(text.split(_PAIRS), image.split(_PAIRS), strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            parts.append(model.cross_encoder(scenes.images[its_image].float(), texts.padded(its_text)).float())
    return torch.cat(parts)


def phrase_means(embedder: Any, captions: Sequence[str], candidates: Tensor) -> Tensor:
    """Return the means of the phrases' cosines in the candidates, float32 (Q, CANDIDATES)."""
    pairs = [(text, image) for text, its in enumerate(candidates.tolist()) for image in its]
    images = range(int(candidates.max()) + 1)
    found = {pair: np.mean([m.cosine for m in match.phrases]) for pair, match in match_pairs(embedder, captions, images, pairs)}  # type: ignore[arg-type, union-attr]  # fmt: skip
    return torch.tensor([found[pair] for pair in pairs], dtype=torch.float32).view(candidates.shape)


def phrase_scores(cosines: Tensor, means: Tensor) -> Tensor:
    """Return the scores of re-ranking by phrases with the package's weight, in cosines (Q, CANDIDATES)."""
    weights = [spread_weight(*both) for both in zip(cosines.numpy(), means.numpy(), strict=True)]
    return cosines + torch.tensor(weights)[:, None] * means


def rankings(
    its: Queries, logits: Tensor, means: Tensor, scale: float
) -> dict[str, Tensor]:
    """Return the scores of candidates by the stage, and by the stage beside phrases at each weight.

    Args:
        its: The queries.
        logits: Of the stage, shape (Q, CANDIDATES).
        means: Of [`phrase_means`].
        scale: That of the dual encoder's cosines in its logits.
    """
    by_phrases = scale * phrase_scores(its.cosines, means)
    return {
        "stage": scale * its.cosines + logits,
        **{f"phrases and {weight:g} x stage": by_phrases + weight * logits for weight in WEIGHTS},
    }


def hard_negatives(scenes: SceneTokens, score: Callable[[Tensor, Tensor], Tensor]) -> dict[str, str]:
    """Return language -> a 1 for each region whose true phrase beats all false ones, else a 0.

    Args:
        scenes: With the regions.
        score: Takes rows of phrases and scenes (P,) and returns scores (P,).
    """
    count = scenes.choices.shape[1]
    scores = score(scenes.choices.flatten(), scenes.region_scenes.repeat_interleave(count)).view(-1, count)
    wins = (scores[:, :1] > scores[:, 1:]).all(1)
    return {language: digits(wins[scenes.region_languages == index]) for index, language in enumerate(LANGUAGES)}
