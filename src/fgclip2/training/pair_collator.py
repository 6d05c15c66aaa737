"""From records to batches of pairs: an image, one caption of it, and what is known of whether both match."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..data.records import InvalidRecordError, Record
from ..modeling.interface import DualEncoderProcessor
from .augmentation import Augmentation, augment
from .collator import check_no_mismatch, check_patch_budget, hash_images, hash_texts, open_drawn, prepare_images
from .sampler import DrawnRecord, OnError


@dataclass(frozen=True)
class PairCollator:
    """Opens images, augments them, takes a caption of each, and tokenizes.

    The caption is the short one, or the long one of a record that has no short one. What is random follows from
    `seed`, the epoch and the record's source, so a run that is continued sees the same samples.

    Args:
        processor: Processor of the checkpoint.
        labelled: Take pairs labelled as matching or not, in place of those that match.
        max_num_patches: Patch budget of each image, for families that have any; else `None`.
        augmentation: What is done to images in training ([`augment`]).
        training: `False`, for evaluation: no augmentation, and hashes of images and texts.
        on_error: `"raise"` an error about a record or image that can't be used, or `"skip"`: leave it out and say so.
        seed: Seed of the augmentation.

    Raises:
        ValueError: As [`check_patch_budget`].
    """

    processor: DualEncoderProcessor
    labelled: bool = False
    max_num_patches: int | str | None = None
    augmentation: Augmentation = "none"
    training: bool = True
    on_error: OnError = "raise"
    seed: int = 0

    def __post_init__(self) -> None:
        check_patch_budget(self.processor, self.max_num_patches)

    def __call__(self, drawn: Sequence[DrawnRecord]) -> dict[str, Any]:
        """Make a batch.

        Returns:
            What the processor makes of images and texts: `pixels` and `value_table`, of which [`normalize_pixels`]
            makes `pixel_values`, `input_ids` and so on; `labels`, int64 (B,),
            1 for a match, or else `ids`, int64 (B,), the same for equal pictures only; with `training=False` also
            `image_hash` and `text_hash`, int64 (B,); and `skipped`, a list of reasons, one for each record left out.

        Raises:
            UnreadableImageError: An image can't be read, with `on_error="raise"`; names record and file.
            InvalidRecordError: A record can't be used, likewise.
        """
        if drawn and drawn[0].record is None:  # had before the run was continued: it is only counted off
            return {}
        records, images, epochs, skipped = open_drawn(drawn, self.on_error, self._check)
        batch: dict[str, Any] = {"skipped": skipped}
        # Of the pictures themselves: one may lie in several files, and under several records.
        hashes = hash_images(images) if not (self.labelled and self.training) else None
        captions = [record.short_caption or record.long_caption or "" for record in records]
        texts = self.processor.tokenize(captions or [""], "caption")
        batch |= {name: values[: len(captions)] for name, values in texts.items()}  # (B, T)
        if self.labelled:
            batch["labels"] = torch.tensor([int(bool(record.matches)) for record in records], dtype=torch.int64)
        else:
            batch["ids"] = hashes
        if not self.training:
            batch |= {
                "image_hash": hashes,
                "text_hash": hash_texts(batch["input_ids"], self.processor.tokenizer.pad_token_id),
            }
        elif self.augmentation != "none":
            side = self.processor.image_processor.size["height"]
            mirrors_sides = self.augmentation == "r2d2-released"
            images = [
                augment(image, caption, side, self._random(record, epoch), mirrors_sides)
                for image, caption, record, epoch in zip(images, captions, records, epochs, strict=True)
            ]
        return {**prepare_images(self.processor, images, self.max_num_patches), **batch}

    def _check(self, record: Record) -> None:
        if self.labelled and record.matches is None:
            allowed = "1 where image and caption match, else 0 (`label_column` names it in pairs)"
            raise InvalidRecordError(record.source, "label", "missing", allowed)
        if not self.labelled:
            check_no_mismatch(record)

    def _random(self, record: Record, epoch: int) -> np.random.Generator:
        source = record.source.encode(errors="surrogateescape")  # names of files need not be UTF-8
        return np.random.default_rng([self.seed, epoch, zlib.crc32(source)])
