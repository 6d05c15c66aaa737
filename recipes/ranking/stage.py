"""Training of the ranking stage alone, on tokens that the frozen towers have made."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgclip2.languages import LANGUAGES
from fgclip2.modeling.modeling_matching_fgclip2 import FGClip2ForImageTextMatching

from .tokens import CAPTIONS, SceneTokens, Texts

LOGGED_STEPS = 25
NEIGHBOURS = 20  # nearest other scenes of a caption, among which mined negatives are drawn


@dataclass(frozen=True)
class StageSettings:
    """Settings of one run; steps are optimizer steps."""

    steps: int = 600
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    warmup_steps: int = 10
    max_grad_norm: float = 1.0
    groups: int = 4  # of scenes in a batch; each is a scene and scenes that the dual encoder takes for it
    group_size: int = 4
    false_phrases: int = 3  # beside the true phrase of one region of each scene
    images_at_once: int = 8
    bf16: bool = True  # autocast; on a CPU without bfloat16 instructions this is ten times slower, not faster
    hidden_size: int = 128
    num_hidden_layers: int = 1
    num_attention_heads: int = 2

    @property
    def cross_config(self) -> dict[str, int]:
        """Return the sizes as `FGClip2CrossConfig` takes them."""
        sizes = {name: getattr(self, name) for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
        return {**sizes, "intermediate_size": 4 * self.hidden_size}


def nearest_others(scenes: SceneTokens) -> Tensor:
    """Return integers (languages, scenes, NEIGHBOURS): what the dual encoder finds for each long composed caption."""
    texts, rows = scenes.captions["long"]
    images, nearest = scenes.image_embeddings(), []
    for language in range(len(LANGUAGES)):
        cosines = texts.embeddings(rows[language, 0]) @ images.T  # (scenes, scenes)
        nearest.append(cosines.fill_diagonal_(-1).topk(min(NEIGHBOURS, len(scenes) - 1)).indices)
    return torch.stack(nearest)


class Pairs(NamedTuple):
    """Images and the texts that they are compared with.

    Attributes:
        texts: What `text` are rows of.
        text: Integer, shape (B, K).
        image: Integer, shape (B,), scenes whose patches are seen.
        cosines: Float32, shape (B, K), of the dual encoder.
        right: Integer, shape (B,), which of its texts is the image's own.
    """

    texts: Texts
    text: Tensor
    image: Tensor
    cosines: Tensor
    right: Tensor


class StageBatches:
    """Pairs of images and texts, step by step: languages alternate, and each scene comes once in so many steps.

    Args:
        scenes: Training scenes.
        settings: Of the run.
        seed: Of the order and of all choices.
        shuffled: Give every scene the patches of another, so that only texts can be learnt from.
    """

    def __init__(self, scenes: SceneTokens, settings: StageSettings, seed: int, shuffled: bool):
        self.scenes, self.settings, self.seed = scenes, settings, seed
        self.nearest, self.of_images = nearest_others(scenes).numpy(), scenes.image_embeddings()
        own = np.arange(len(scenes))
        self.image_of = np.random.default_rng([seed, 1]).permutation(own) if shuffled else own
        self.regions: dict[tuple[int, int], list[int]] = {}
        pairs = zip(scenes.region_scenes.tolist(), scenes.region_languages.tolist(), strict=True)
        for row, key in enumerate(pairs):
            self.regions.setdefault(key, []).append(row)

    def __iter__(self) -> Iterator[dict[str, Pairs]]:
        """Yield kind of text -> pairs."""
        rng, order = np.random.default_rng([self.seed, 2]), np.empty(0, dtype=int)
        for step in range(self.settings.steps):
            language = step % len(LANGUAGES)
            if len(order) < self.settings.groups:
                order = rng.permutation(len(self.scenes))
            anchors, order = order[: self.settings.groups], order[self.settings.groups :]
            others = self.settings.group_size - 1
            groups = np.array([[a, *rng.choice(self.nearest[language, a], others, replace=False)] for a in anchors])
            batch = {kind: self._captions(kind, language, groups, rng) for kind in self.scenes.captions}
            yield {**batch, "phrase": self._phrases(language, groups.reshape(-1), rng)}

    def _captions(self, kind: str, language: int, groups: np.ndarray, rng: np.random.Generator) -> Pairs:
        """Compare each scene of a group with a caption of every scene of the group."""
        texts, rows = self.scenes.captions[kind]
        count, size = groups.shape
        wordings = torch.from_numpy(rng.integers(rows.shape[1], size=groups.shape))
        of_scene = torch.from_numpy(groups)
        text = rows[language][wordings, of_scene][:, None].expand(-1, size, -1)  # (groups, images, texts)
        return self._pairs(texts, text.flatten(0, 1), of_scene.flatten(), torch.arange(size).repeat(count))

    def _phrases(self, language: int, scenes: np.ndarray, rng: np.random.Generator) -> Pairs:
        """Compare each scene with the phrase of one of its regions, and with false ones."""
        choices = []
        for scene in scenes.tolist():
            true, *false = self.scenes.choices[rng.choice(self.regions[scene, language])].tolist()
            choices.append([true, *rng.choice(false, self.settings.false_phrases, replace=False)])
        image, right = torch.from_numpy(scenes), torch.zeros(len(scenes), dtype=torch.int64)
        return self._pairs(self.scenes.phrases, torch.tensor(choices), image, right)

    def _pairs(self, texts: Texts, text: Tensor, image: Tensor, right: Tensor) -> Pairs:
        embeddings = texts.embeddings(text.flatten()).unflatten(0, text.shape)  # (B, K, D)
        cosines = torch.einsum("bkd,bd->bk", embeddings, self.of_images[image])
        return Pairs(texts, text, torch.from_numpy(self.image_of[image.numpy()]), cosines, right)


def cross_encode(
    model: FGClip2ForImageTextMatching,
    images: Tensor,
    texts: Texts,
    text: Tensor,
    image: Tensor,
    images_at_once: int,
    bf16: bool,
) -> Tensor:
    """Return what the cross encoder of a model adds to the logits of pairs, float32 (B, K).

    Args:
        images: Float16, shape (scenes, 1 + N, D).
        texts: Of the pairs.
        text: Integer, shape (B, K), texts to compare each image with.
        image: Integer, shape (B,).
        images_at_once: How many images run through the layers together, those with texts of a length.
        bf16: Compute in bfloat16 autocast.
    """
    order = texts.lengths[text].amax(1).argsort()
    parts = []
    for part in order.split(images_at_once):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            parts.append(model.cross_encoder(images[image[part]].float(), texts.padded(text[part].flatten())))
    return torch.cat(parts).float().view(text.shape)[order.argsort()]


def train_stage(
    model: FGClip2ForImageTextMatching, scenes: SceneTokens, settings: StageSettings, seed: int, shuffled: bool
) -> dict:
    """Train the cross encoder of a model, and return what is kept of the run."""
    net, (scale, _) = model.cross_encoder.train(), model.get_score_scale_and_bias()
    groups = [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))
    rates = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / settings.warmup_steps) * (1 - step / settings.steps)
    )
    rows: list[dict[str, float]] = []
    log: list[dict[str, float]] = []
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in StageBatches(scenes, settings, seed, shuffled):
        losses = {}
        for kind, pairs in batch.items():
            its = (pairs.texts, pairs.text, pairs.image)
            added = cross_encode(model, scenes.images, *its, settings.images_at_once, settings.bf16)
            # The dual encoder was never trained on phrases as captions, so these are left to the stage.
            logits = scale * pairs.cosines + added if kind in CAPTIONS else added  # (B, K)
            losses[kind] = F.cross_entropy(logits, pairs.right)
            if kind in CAPTIONS:  # each caption has candidates, too: the scenes of its group
                of_texts = logits.unflatten(0, (-1, settings.group_size)).mT.flatten(0, 1)
                losses[kind] = (losses[kind] + F.cross_entropy(of_texts, pairs.right)) / 2
        loss = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), settings.max_grad_norm)
        optimizer.step()
        rates.step()
        rows.append({kind: value.item() for kind, value in losses.items()})
        if len(rows) % LOGGED_STEPS == 0:
            means = {kind: round(float(np.mean([row[kind] for row in rows[-LOGGED_STEPS:]])), 4) for kind in losses}
            log.append({"step": len(rows), **means})
            print(json.dumps(log[-1]), flush=True)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    net.eval()
    return {
        "settings": asdict(settings),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "losses": log,
    }
