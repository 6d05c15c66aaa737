"""From records to batches of pairs: an image, one caption of it, and what is known of whether both match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.records import InvalidRecordError, Record
from ..modeling.interface import DualEncoderProcessor
from .augmentation import Augmentation, augment
from .collator import (
    check_no_mismatch,
    check_patch_budget,
    hash_images,
    hash_texts,
    open_drawn,
    prepare_images,
    random_of,
)
from .masking import mask_tokens
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
        seed: Seed of the augmentation and of the masks.
        mask_probability: Share of a text's tokens that [`mask_tokens`] hides in a second copy of it; 0: no copy.

    Raises:
        ValueError: As [`check_patch_budget`]; or texts are to be masked, and the vocabulary has no mask.
    """

    processor: DualEncoderProcessor
    labelled: bool = False
    max_num_patches: int | str | None = None
    augmentation: Augmentation = "none"
    training: bool = True
    on_error: OnError = "raise"
    seed: int = 0
    mask_probability: float = 0.0

    def __post_init__(self) -> None:
        check_patch_budget(self.processor, self.max_num_patches)
        if self.mask_probability and self.processor.tokenizer.mask_token_id is None:
            raise ValueError("the vocabulary of the checkpoint must have [MASK], for texts are to be masked")

    def __call__(self, drawn: Sequence[DrawnRecord]) -> dict[str, Any]:
        """Make a batch.

        Returns:
            What the processor makes of images and texts: `pixels` and `value_table`, of which [`normalize_pixels`]
            makes `pixel_values`, `input_ids` and so on; `labels`, int64 (B,),
            1 for a match, or else `ids`, int64 (B,), the same for equal pictures only; with `training=False` also
            `image_hash` and `text_hash`, int64 (B,); with a `mask_probability` also `masked_input_ids` and
            `masked_labels`, int64 (B, T); and `skipped`, a list of reasons, one for each record left out.

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
        if self.mask_probability:
            batch["masked_input_ids"], batch["masked_labels"] = self._mask(batch["input_ids"], records, epochs)
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
                augment(image, caption, side, random_of(record, epoch, self.seed), mirrors_sides)
                for image, caption, record, epoch in zip(images, captions, records, epochs, strict=True)
            ]
        return {**prepare_images(self.processor, images, self.max_num_patches), **batch}

    def _mask(self, input_ids: Tensor, records: Sequence[Record], epochs: Sequence[int]) -> tuple[Tensor, Tensor]:
        tokenizer, length = self.processor.tokenizer, input_ids.shape[1]
        # From random states of their own, token by token: neither the augmentation nor other texts change the masks.
        draws = [
            random_of(record, epoch, self.seed).spawn(1)[0].random((length, 3))
            for record, epoch in zip(records, epochs, strict=True)
        ]
        uniform = torch.from_numpy(np.array(draws).reshape(-1, length, 3))  # (B, T, 3)
        random_ids = (uniform[..., 2] * tokenizer.vocab_size).long()
        special = (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id)
        return mask_tokens(input_ids, uniform, random_ids, tokenizer.mask_token_id, special, self.mask_probability)

    def _check(self, record: Record) -> None:
        if self.labelled and record.matches is None:
            allowed = "1 where image and caption match, else 0 (`label_column` names it in pairs)"
            raise InvalidRecordError(record.source, "label", "missing", allowed)
        if not self.labelled:
            check_no_mismatch(record)
