"""Whole training batches, each a function of the seed and the step alone, so that a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer

from .drawings import Drawings, compose_singles, sample_backgrounds
from .scenes import MAX_REGIONS, TrainingScene, group_by_canvas
from .settings import Settings, augmentation_strength, canvas_side, plain_share
from .texts import TextPool

Batch = dict[str, Tensor]


class TrainingBatches(IterableDataset):
    """Batches from `start` to the last step.

    Args:
        settings: Of the run.
        drawings, backgrounds, texts: What single pictures and their texts are made of.
        scenes: What scene steps use.
        tokenizer: For captions.
    """

    def __init__(
        self,
        settings: Settings,
        drawings: Drawings,
        backgrounds: np.ndarray,
        texts: TextPool,
        scenes: list[TrainingScene],
        tokenizer: FGClip2Tokenizer,
    ):
        self.settings, self.drawings, self.backgrounds, self.texts = settings, drawings, backgrounds, texts
        self.scenes, self.canvases, self.tokenizer = scenes, group_by_canvas(scenes), tokenizer
        self.start = 0

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.start, self.settings.total_steps):
            yield self.batch(step)

    def __len__(self) -> int:
        return self.settings.total_steps - self.start

    def batch(self, step: int) -> Batch:
        """`pixels` (2C, 3, S, S) with `boxes` and `concepts`, `input_ids` (T, L) and what belongs to what."""
        settings = self.settings
        rng = np.random.default_rng([settings.seed, step])
        has_scenes = step >= settings.scenes_from and step % settings.scenes_every == 0 and bool(self.scenes)
        scenes = self._sample_scenes(rng) if has_scenes else []
        concepts = rng.permutation(len(self.drawings.rows))[: settings.concepts_per_batch]
        batch, text_rows = self.singles(concepts, step, rng)
        if scenes:
            batch.update(self._scene_batch(scenes, text_rows, rng))
        return batch

    def singles(self, concepts: np.ndarray, step: int, rng: np.random.Generator) -> tuple[Batch, Tensor]:
        """Two pictures and a text of each of C concepts, and the texts' rows of the pool (T,)."""
        settings = self.settings
        texts, is_name = self.texts.sample(concepts, rng)
        rows = self.drawings.sample_pairs(concepts, rng)
        strength, side = augmentation_strength(settings, step), canvas_side(settings, step)
        backgrounds = sample_backgrounds(self.backgrounds, len(rows), side, plain_share(settings, step), rng)
        pixels, boxes = compose_singles(self.drawings, rows, backgrounds, strength, rng)
        image_concepts = torch.from_numpy(np.tile(concepts, 2))
        text_rows = torch.from_numpy(texts)
        batch = {
            "pixels": pixels,
            "boxes": boxes,
            "concepts": image_concepts,
            "input_ids": self._text_ids(texts, rng),
            "text_concepts": torch.from_numpy(concepts),
            "text_is_name": torch.from_numpy(is_name),
            "is_positive": self.texts.is_positive[text_rows][:, image_concepts].T,
            "is_counted": self.texts.is_counted[text_rows][:, image_concepts].T,
        }
        return batch, text_rows

    def _text_ids(self, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Mostly cut to a length that all of these texts fit into, for padding costs time."""
        is_full = rng.random() < self.settings.full_text_share
        length = max(self.settings.short_text_length, int(self.texts.lengths[rows].max()))
        ids = self.texts.ids[torch.from_numpy(rows)]
        return ids if is_full else ids[:, :length]

    def _sample_scenes(self, rng: np.random.Generator) -> list[TrainingScene]:
        sizes = np.array([len(group) for group in self.canvases])
        group = self.canvases[rng.choice(len(sizes), p=sizes / sizes.sum())]
        count = min(self.settings.scenes_per_batch, len(group))
        return [self.scenes[index] for index in rng.choice(group, size=count, replace=False)]

    def _scene_batch(self, scenes: list[TrainingScene], text_rows: Tensor, rng: np.random.Generator) -> Batch:
        """`scene_pixels` (S, 3, H, W), `scene_boxes` (S, R, 4) and their concepts, captions in one language each."""
        boxes = torch.zeros(len(scenes), MAX_REGIONS, 4)
        concepts = torch.zeros(len(scenes), MAX_REGIONS, dtype=torch.long)
        valid = torch.zeros(len(scenes), MAX_REGIONS, dtype=torch.bool)
        for index, scene in enumerate(scenes):
            count = len(scene.boxes)
            boxes[index, :count] = torch.from_numpy(scene.boxes)
            concepts[index, :count] = torch.from_numpy(scene.concepts)
            valid[index, :count] = True
        pixels = torch.from_numpy(np.stack([scene.pixels for scene in scenes])).permute(0, 3, 1, 2)
        first = int(rng.integers(2))
        captions = [scene.captions[(index + first) % 2] for index, scene in enumerate(scenes)]
        present = concepts[valid]
        return {
            "scene_pixels": pixels.float() / 127.5 - 1,
            "scene_boxes": boxes,
            "scene_valid": valid,
            "scene_concepts": concepts,
            "scene_is_positive": self.texts.is_positive[text_rows][:, present].T,
            "scene_is_counted": self.texts.is_counted[text_rows][:, present].T,
            "caption_ids": self.tokenizer(captions, walk_type="long", return_tensors="pt")["input_ids"],
        }
