"""The language stage: the text tower learns free wording, to the embeddings of a locked image tower.

Locked-image tuning (Zhai et al., LiT, CVPR 2022): images are embedded once, texts are trained to them, and no vector of
an image changes. Captions learn from the start's embeddings of the composed ones as well, which say all of a scene.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from fgclip2.drawings.concepts import ConceptTable
from fgclip2.embedding.fingerprint import model_fingerprint
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.modeling_fgclip2 import SCALES
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer
from fgclip2.training import FGClip2ForTraining, FGClip2Objective

from ..embedded_checkpoint.loop import ReadyBatches
from ..embedded_checkpoint.losses import unit
from .grammar import LONG_TOKENS, SHORT_TOKENS, Grammar, build_grammars
from .pool import ScenePool
from .settings import LanguageSettings

_PART = 64  # scenes or texts that are embedded at once


@dataclass(frozen=True)
class LockedEmbeddings:
    """Embeddings of scenes and labels by the model that the stage starts from; all rows are L2-normalised.

    Args:
        images: Shape (scenes, D).
        regions: Shape (regions, D), in the order of scenes.
        first_region: Integer, shape (scenes + 1,): where each scene's regions begin.
        captions: Shape (scenes, D), of the composed captions, the mean of both languages by the head of long captions.
        labels: Shape (2, texts, D), of names and keywords by the heads of captions and of region phrases.
    """

    images: Tensor
    regions: Tensor
    first_region: Tensor
    captions: Tensor
    labels: Tensor


def locked_embeddings(
    folder: Path, model: FGClip2ForTraining, tokenizer: FGClip2Tokenizer, pool: ScenePool, label_ids: Tensor
) -> LockedEmbeddings:
    """Embed scenes and labels by a model, or read what an earlier call has written to `folder` for the same ones."""
    captions = {language: [record["caption"] for record in pool.records[language]] for language in LANGUAGES}
    texts = json.dumps([model_fingerprint(model), captions]).encode()
    digest = hashlib.sha256(b"".join([texts, pool.grids.tobytes(), label_ids.numpy().tobytes()])).hexdigest()
    file = folder / f"locked-{digest[:12]}.safetensors"
    if not file.exists():
        with torch.inference_mode():
            images, regions = _embed_scenes(model, pool)
            whole = sum(_embed_captions(model, tokenizer, captions[language]) for language in LANGUAGES)
            heads = [_embed_texts(model, label_ids, walk) for walk in ("short", "box")]
        counts = torch.tensor([0, *map(len, pool.concepts)])
        tensors = {
            "images": images,
            "regions": regions,
            "first_region": counts.cumsum(0),
            "captions": F.normalize(whole, dim=-1),
            "labels": torch.stack(heads),
        }
        save_file(tensors, file)
    return LockedEmbeddings(**load_file(file))


def _embed_scenes(model: FGClip2ForTraining, pool: ScenePool) -> tuple[Tensor, Tensor]:
    images, regions = [], []
    for start in tqdm(range(0, len(pool), _PART), "scenes"):
        rows = np.arange(start, min(start + _PART, len(pool)))
        infos = [pool.records["en"][row]["bbox_info"] for row in rows]
        boxes = torch.zeros(len(rows), max(map(len, infos)), 4)
        for image, its in enumerate(infos):
            boxes[image, : len(its)] = torch.tensor([info["bbox"] for info in its])
        grids = torch.from_numpy(pool.grids[rows])
        pixels = pool.pixel_values(rows)
        outputs = model(
            pixel_values=pixels,
            pixel_attention_mask=(torch.arange(pixels.shape[1]) < grids.prod(1)[:, None]).int(),
            spatial_shapes=grids,
            boxes=boxes,
            region_index=torch.tensor([(image, slot) for image, its in enumerate(infos) for slot in range(len(its))]),
        )
        images.append(outputs["image_embeds"])
        regions.append(outputs["region_embeds"])
    return torch.cat(images), torch.cat(regions)


def _embed_captions(model: FGClip2ForTraining, tokenizer: FGClip2Tokenizer, captions: list[str]) -> Tensor:
    return _embed_texts(model, tokenizer(captions, walk_type="long", return_tensors="pt")["input_ids"], "long")


def _embed_texts(model: FGClip2ForTraining, ids: Tensor, walk: str) -> Tensor:
    parts = tqdm(ids.split(_PART), f"texts ({walk})")
    return torch.cat([unit(model.get_text_features(part, walk_type=walk)) for part in parts])


def training_grammars(
    table: ConceptTable, tokenizer: FGClip2Tokenizer, settings: LanguageSettings
) -> dict[str, list[Grammar]]:
    """Return language -> the training split's grammars, one for each pair of the settings' `word_shares`."""
    grammars = [
        build_grammars(
            table, tokenizer, "train", synonym_share, whole_share=settings.whole_share, unknown_share=unknown_share
        )
        for synonym_share, unknown_share in settings.word_shares
    ]
    return {language: [of_shares[language] for of_shares in grammars] for language in LANGUAGES}


class LanguageBatches(ReadyBatches):
    """Batches from `start` to the last step, all texts of scenes in one language, which alternates.

    Args:
        settings: Of the run.
        pool: The scenes.
        locked: Their embeddings.
        label_ids: Names and keywords, integer, shape (texts, 64).
        tokenizer: Of the checkpoint.
        grammars: Of [`training_grammars`]; one of them, by chance, writes each text that does not stay as composed.
    """

    def __init__(
        self,
        settings: LanguageSettings,
        pool: ScenePool,
        locked: LockedEmbeddings,
        label_ids: Tensor,
        tokenizer: FGClip2Tokenizer,
        grammars: Mapping[str, Sequence[Grammar]],
    ):
        self.settings, self.pool, self.locked, self.label_ids = settings, pool, locked, label_ids
        self.tokenizer, self.grammars = tokenizer, grammars
        self.start = 0
        self._order = lru_cache(2)(lambda epoch: np.random.default_rng([settings.seed, epoch]).permutation(len(pool)))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for step in range(self.start, self.settings.total_steps):
            yield self.batch(step)

    def __len__(self) -> int:
        return self.settings.total_steps - self.start

    def batch(self, step: int) -> dict[str, Tensor]:
        """Token ids beside the locked embeddings that they belong to; rows of regions in the order of scenes."""
        settings, locked = self.settings, self.locked
        rng = np.random.default_rng([settings.seed, 1, step])
        language = LANGUAGES[step % 2]
        grammars = self.grammars[language]

        def free() -> Grammar | None:
            """Return what writes a text, None where it stays as composed."""
            is_free = rng.random() < settings.grammar_share
            return grammars[rng.integers(len(grammars))] if is_free else None

        epoch, index = divmod(step, len(self.pool) // settings.scenes_per_batch)
        rows = self._order(epoch)[index * settings.scenes_per_batch :][: settings.scenes_per_batch]
        short, long, regions, infos = [], [], [], []
        for row in rows:
            record, facts = self.pool.records[language][row], self.pool.facts[row]
            for captions, composed, tokens in (
                (short, record["short_caption"], SHORT_TOKENS),
                (long, record["caption"], LONG_TOKENS),
            ):
                grammar = free()
                captions.append(grammar.caption(facts, rng, tokens) if grammar else composed)
            infos += record["bbox_info"]
            for info, said in zip(record["bbox_info"], facts.objects, strict=True):
                composed = info["long_expr" if rng.random() < 0.5 else "short_expr"]
                grammar = free()
                regions.append(grammar.region_phrase(said, rng) if grammar else composed)
        of_scene = [torch.arange(*locked.first_region[[row, row + 1]].tolist()) for row in rows]
        region_embeds = locked.regions[torch.cat(of_scene)]
        hard = torch.from_numpy(np.sort(rng.permutation(len(regions))[: settings.hard_regions_per_batch]))
        hard_texts = [
            text for place in hard for text in (infos[place]["short_expr"], *infos[place]["short_expr_negs"].values())
        ]
        labels = torch.from_numpy(rng.permutation(len(self.label_ids))[: settings.labels_per_batch])
        phrases = self._tokenize([*regions, *hard_texts], is_full=rng.random() < settings.full_text_share)
        images = torch.from_numpy(rows)
        return {
            "image_embeds": locked.images[images],
            "region_embeds": region_embeds,
            "hard_region_embeds": region_embeds[hard],
            "caption_targets": locked.captions[images],
            "short_input_ids": self.tokenizer(short, return_tensors="pt")["input_ids"],
            "long_input_ids": self.tokenizer(long, walk_type="long", return_tensors="pt")["input_ids"],
            "region_input_ids": phrases[: len(regions)],
            "hard_input_ids": phrases[len(regions) :].unflatten(0, (len(hard), -1)),
            "label_input_ids": self.label_ids[labels],
            "label_targets": locked.labels[:, labels],
        }

    def _tokenize(self, texts: Sequence[str], is_full: bool) -> Tensor:
        """Mostly cut to the longest of these texts, for padding costs time."""
        ids = self.tokenizer(list(texts), return_tensors="pt")["input_ids"]
        return ids if is_full else ids[:, : int((ids != self.tokenizer.pad_token_id).sum(1).max())]


class LanguageTrainee(nn.Module):
    """The training model, of which only the text tower and the scales learn, and its objective.

    Args:
        model: With the region scales that training starts with; its image tower is frozen here.
        settings: Of the run.
    """

    def __init__(self, model: FGClip2ForTraining, settings: LanguageSettings):
        super().__init__()
        self.model, self.weights = model, settings.loss_weights
        self.objective = FGClip2Objective("released", **settings.objective)
        for part in (model.vision_model, model.dense_feature_head):
            part.requires_grad_(False)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Named losses of a batch of [`LanguageBatches`], unweighted, and their weighted sum `loss`."""
        hard_ids = batch["hard_input_ids"]
        short, long = self._embed(batch["short_input_ids"], "short"), self._embed(batch["long_input_ids"], "long")
        phrases = self._embed(torch.cat([batch["region_input_ids"], hard_ids.flatten(0, 1)]), "box")
        hard = phrases[len(batch["region_input_ids"]) :].unflatten(0, hard_ids.shape[:2])
        outputs = {
            **{name: batch[name] for name in ("image_embeds", "region_embeds", "hard_region_embeds")},
            "short_text_embeds": short,
            "long_text_embeds": long,
            "region_text_embeds": phrases[: len(batch["region_input_ids"])],
            "hard_positive_embeds": hard[:, 0],
            "hard_negative_embeds": hard[:, 1:],
            **{name: getattr(self.model, name) for name in SCALES},
        }
        of_objective = self.objective(outputs)
        losses = {
            "objective": of_objective.pop("loss"),
            "caption_distillation": _distance(torch.stack([short, long]), batch["caption_targets"]),
            "label_distillation": _distance(self._embed_labels(batch["label_input_ids"]), batch["label_targets"]),
        }
        loss = sum(self.weights[name] * value for name, value in losses.items())
        return {"loss": loss, **losses, **of_objective}

    def _embed(self, ids: Tensor, walk: str) -> Tensor:
        return unit(self.model.get_text_features(ids, walk_type=walk))

    def _embed_labels(self, ids: Tensor) -> Tensor:
        """Return (2, texts, D): the walks short and box differ in their last layer only."""
        pooled = self.model.text_model(ids, walk_type="box").pooler_output
        return unit(torch.stack([self.model.text_model.head(pooled), self.model.boxtext_head(pooled)]))


def _distance(embeds: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of one minus the cosine of L2-normalised rows."""
    return (1 - (embeds * targets).sum(-1)).mean()
