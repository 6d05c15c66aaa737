"""Batches of the second stage: single drawings and scenes, each a function of the seed and the step alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fgclip2.languages import LANGUAGES
from fgclip2.modeling.tokenization_fgclip2 import FGClip2Tokenizer

from ..embedded_checkpoint.batches import TrainingBatches
from ..embedded_checkpoint.loop import ReadyBatches
from .pool import ScenePool
from .settings import SceneSettings

Batch = dict[str, Tensor]


class SceneBatches(ReadyBatches):
    """Batches from `start` to the last step, all scene texts of a batch in one language, which alternates.

    Args:
        settings: Of the run.
        singles: Makes what the first stage trains on.
        pool: The scenes.
        tokenizer: Of the checkpoint.
    """

    def __init__(self, settings: SceneSettings, singles: TrainingBatches, pool: ScenePool, tokenizer: FGClip2Tokenizer):
        self.settings, self.singles, self.pool, self.tokenizer = settings, singles, pool, tokenizer
        self.start = 0
        self._order = lru_cache(2)(lambda epoch: np.random.default_rng([settings.seed, epoch]).permutation(len(pool)))

    def __iter__(self) -> Iterator[dict[str, Batch]]:
        for step in range(self.start, self.settings.total_steps):
            yield self.batch(step)

    def __len__(self) -> int:
        return self.settings.total_steps - self.start

    def batch(self, step: int) -> dict[str, Batch]:
        """`singles` as the first stage has them, with `scenes` in the layout of the package's collator.

        The scenes have three things more: `region_concepts` (K,), and `region_is_positive` and `region_is_counted`
        (K, T), of the texts of the single drawings.
        """
        rng = np.random.default_rng([self.settings.seed, 1, step])
        rows = self._rows(step)
        present = np.concatenate([self.pool.concepts[row] for row in rows])
        singles, text_rows = self.singles.singles(self._concepts(present, rng), step, rng)
        scenes = self._scenes(rows, LANGUAGES[step % 2], rng)
        concepts = torch.from_numpy(present)
        texts = self.singles.texts
        scenes["region_concepts"] = concepts
        scenes["region_is_positive"] = texts.is_positive[text_rows][:, concepts].T
        scenes["region_is_counted"] = texts.is_counted[text_rows][:, concepts].T
        return {"singles": singles, "scenes": scenes}

    def _rows(self, step: int) -> np.ndarray:
        size = self.settings.scenes_per_batch
        epoch, index = divmod(step, len(self.pool) // size)
        return self._order(epoch)[index * size : (index + 1) * size]

    def _concepts(self, present: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Concepts of single drawings: some that the scenes have, the others at random."""
        shared = rng.permutation(np.unique(present))[: self.settings.shared_concepts]
        others = rng.permutation(len(self.singles.drawings.rows))
        others = others[~np.isin(others, shared)][: self.settings.concepts_per_batch - len(shared)]
        return np.concatenate([shared, others])

    def _scenes(self, rows: np.ndarray, language: str, rng: np.random.Generator) -> Batch:
        records = [self.pool.records[language][row] for row in rows]
        grids = torch.from_numpy(self.pool.grids[rows])
        pixels = self.pool.pixel_values(rows)
        boxes = torch.zeros(len(rows), max(len(record["bbox_info"]) for record in records), 4)
        regions, texts = [], []
        for image, record in enumerate(records):
            infos = record["bbox_info"]
            boxes[image, : len(infos)] = torch.tensor([info["bbox"] for info in infos])
            regions += [(image, slot) for slot in range(len(infos))]
            texts += [info["long_expr" if rng.random() < 0.5 else "short_expr"] for info in infos]
        hard = sorted(rng.permutation(len(regions))[: self.settings.hard_regions_per_batch].tolist())
        hard = [regions[number] for number in hard]
        infos = [records[image]["bbox_info"][slot] for image, slot in hard]
        hard_texts = [text for info in infos for text in (info["short_expr"], *info["short_expr_negs"].values())]
        captions = [record["short_caption"] for record in records]
        short = self._tokenize([*captions, *texts, *hard_texts], rng.random() < self.settings.full_text_share)
        of_captions, of_regions, of_hard = short.split([len(captions), len(texts), len(hard_texts)])
        return {
            "pixel_values": pixels,
            "pixel_attention_mask": (torch.arange(pixels.shape[1]) < grids.prod(1)[:, None]).int(),
            "spatial_shapes": grids,
            "short_input_ids": of_captions,
            "long_input_ids": self._long([record["caption"] for record in records]),
            "boxes": boxes,
            "region_index": torch.tensor(regions),
            "region_input_ids": of_regions,
            "hard_index": torch.tensor(hard),
            "hard_input_ids": of_hard.unflatten(0, (len(hard), -1)),
        }

    def _tokenize(self, texts: Sequence[str], is_full: bool) -> Tensor:
        """Mostly cut to the longest of these texts, for padding costs time."""
        ids = self.tokenizer(list(texts), return_tensors="pt")["input_ids"]
        return ids if is_full else ids[:, : int((ids != self.tokenizer.pad_token_id).sum(1).max())]

    def _long(self, captions: Sequence[str]) -> Tensor:
        return self.tokenizer(list(captions), walk_type="long", return_tensors="pt")["input_ids"]
