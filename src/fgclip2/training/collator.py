"""From records to the batches that the training model and the objective take."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.records import InvalidRecordError, Record, Region, open_record_image
from ..data.shard_files import BrokenShardError
from ..errors import UnreadableImageError
from ..modeling.processing_fgclip2 import FGClip2Processor
from .sampler import DrawnRecord, OnError


@dataclass(frozen=True)
class FGClip2Collator:
    """Opens images, chooses regions and texts, tokenizes, and pads.

    What is chosen at random (which regions, short or long text of a region) follows from `seed`, the epoch and the
    record's source, so a run that is continued sees the same samples.

    Args:
        processor: Of the checkpoint.
        max_num_patches: Patch budget of each image, or `"auto"`, by its size; `None`: the processor's setting.
        max_regions: Regions per image and step, drawn anew in each epoch (released: 4); `None`: all.
        num_hard_negatives: Hard negatives per region (released: 10); where there are fewer, they are masked.
        short_caption_prefix: Put before English short captions (the released training has `"a photo of "`).
        training: `False`, for evaluation: every region with its short text, and a hash of each image.
        with_regions, with_hard_negatives, with_long_captions: What the objective needs.
        on_error: `"raise"` an `UnreadableImageError`, or `"skip"`: leave the record out of its batch and say so.
        seed: Of the choices.
    """

    processor: FGClip2Processor
    max_num_patches: int | str | None = None
    max_regions: int | None = 4
    num_hard_negatives: int = 10
    short_caption_prefix: str = ""
    training: bool = True
    with_regions: bool = True
    with_hard_negatives: bool = True
    with_long_captions: bool = True
    on_error: OnError = "raise"
    seed: int = 0

    def __call__(self, drawn: Sequence[DrawnRecord]) -> dict[str, Any]:
        """Make a batch.

        Returns:
            The arguments of [`FGClip2ForTraining.forward`]; `short_image_index` and `long_image_index`, the image of
            each caption; `hard_negative_mask`; with `training=False` `image_hash`, int64 (B,), the same for equal
            images only; and `skipped`, a list of reasons, one for each record left out.

        Raises:
            UnreadableImageError: An image can't be read, with `on_error="raise"`; names record and file.
            InvalidRecordError: A record can't be used, likewise; a broken shard, also with `on_error="skip"`.
        """
        if drawn and drawn[0].record is None:  # had before the run was continued: it is only counted off
            return {}
        records, images, epochs, skipped = self._open(drawn)
        batch: dict[str, Any] = {**self._pixels(images), "skipped": skipped}
        if not self.training:
            batch["image_hash"] = torch.tensor([_hash(image) for image in images], dtype=torch.int64)
        batch.update(self._captions("short", [self._short_caption(record) for record in records]))
        if self.with_long_captions:
            batch.update(self._captions("long", [record.long_caption for record in records]))
        if self.with_regions or self.with_hard_negatives:
            pairs = zip(records, epochs, strict=True)
            batch.update(self._regions([self._choose(record, epoch) for record, epoch in pairs]))
        return batch

    def _open(self, drawn: Sequence[DrawnRecord]) -> tuple[list[Record], list[Image.Image], list[int], list[str]]:
        records, images, epochs, skipped = [], [], [], []
        for record, epoch in drawn:
            try:
                if isinstance(record, Exception):
                    raise record
                images.append(open_record_image(record))
            except (InvalidRecordError, UnreadableImageError) as error:
                if self.on_error == "raise" or isinstance(error, BrokenShardError):
                    raise _with_remedy(error) from error
                skipped.append(str(error))
                continue
            records.append(record)
            epochs.append(epoch)
        return records, images, epochs, skipped

    def _pixels(self, images: list[Image.Image]) -> dict[str, Tensor]:
        if not images:  # all were left out: no rows, which the model and the objective take
            width = 3 * self.processor.image_processor.patch_size**2
            return {
                "pixel_values": torch.zeros(0, 1, width),
                "pixel_attention_mask": torch.zeros(0, 1, dtype=torch.int32),
                "spatial_shapes": torch.zeros(0, 2, dtype=torch.int64),
            }
        inputs = self.processor.image_processor(images, max_num_patches=self.max_num_patches, return_tensors="pt")
        longest = int(inputs["pixel_attention_mask"].sum(1).max())  # beyond it all is padding
        return {
            "pixel_values": inputs["pixel_values"][:, :longest],
            "pixel_attention_mask": inputs["pixel_attention_mask"][:, :longest],
            "spatial_shapes": inputs["spatial_shapes"],
        }

    def _short_caption(self, record: Record) -> str | None:
        if record.short_caption is None or record.language != "en":
            return record.short_caption
        return self.short_caption_prefix + record.short_caption

    def _captions(self, walk_type: str, captions: list[str | None]) -> dict[str, Tensor]:
        index = [number for number, caption in enumerate(captions) if caption is not None]
        return {
            f"{walk_type}_input_ids": self._tokenize([captions[number] for number in index], walk_type),
            f"{walk_type}_image_index": torch.tensor(index, dtype=torch.int64),
        }

    def _tokenize(self, texts: Sequence[str | None], walk_type: str) -> Tensor:
        if not texts:
            return self.processor.tokenizer([""], walk_type=walk_type, return_tensors="pt")["input_ids"][:0]
        return self.processor.tokenizer(list(texts), walk_type=walk_type, return_tensors="pt")["input_ids"]

    def _choose(self, record: Record, epoch: int) -> list[tuple[Region, str]]:
        """Regions of a record, in its order, each with one of its texts."""
        regions = record.regions
        if not self.training:
            return [(region, region.short_text) for region in regions]
        source = record.source.encode(errors="surrogateescape")  # names of files need not be UTF-8
        rng = np.random.default_rng([self.seed, epoch, zlib.crc32(source)])
        if self.max_regions is not None and len(regions) > self.max_regions:
            chosen = sorted(rng.choice(len(regions), self.max_regions, replace=False).tolist())
            regions = tuple(regions[number] for number in chosen)
        takes_long = rng.random(len(regions)) < 0.5
        return [
            (region, region.long_text if long and region.long_text else region.short_text)
            for region, long in zip(regions, takes_long, strict=True)
        ]

    def _regions(self, chosen: list[list[tuple[Region, str]]]) -> dict[str, Tensor]:
        boxes = torch.zeros(len(chosen), max((len(regions) for regions in chosen), default=0), 4)
        index, texts, hard_index, hard_texts = [], [], [], []
        for image, regions in enumerate(chosen):
            for slot, (region, text) in enumerate(regions):
                boxes[image, slot] = torch.tensor(region.box)
                index.append((image, slot))
                texts.append(text)
                if region.hard_negatives:
                    hard_index.append((image, slot))
                    hard_texts.append([region.short_text, *region.hard_negatives[: self.num_hard_negatives]])
        batch = {"boxes": boxes}
        if self.with_regions:
            batch["region_index"] = torch.tensor(index, dtype=torch.int64).view(-1, 2)
            batch["region_input_ids"] = self._tokenize(texts, "box")
        if self.with_hard_negatives:
            batch["hard_index"] = torch.tensor(hard_index, dtype=torch.int64).view(-1, 2)
            batch.update(self._hard_texts(hard_texts))
        return batch

    def _hard_texts(self, groups: list[list[str]]) -> dict[str, Tensor]:
        """Groups of texts, the true one first, padded to equal numbers by repeating it."""
        size = 1 + self.num_hard_negatives
        padded = [text for group in groups for text in [*group, *group[:1] * (size - len(group))]]
        counts = torch.tensor([len(group) - 1 for group in groups], dtype=torch.int64)
        ids = self._tokenize(padded, "box")
        return {
            "hard_input_ids": ids.view(len(groups), size, ids.shape[-1]),
            "hard_negative_mask": torch.arange(self.num_hard_negatives) < counts[:, None],
        }


@dataclass(frozen=True)
class ErrorsAsBatches:
    """Hands out what a collator raises about the data as a batch, for [`raise_error`] in the process that trains.

    Raised in a loader worker, torch would make it one text with a traceback, or another error.
    """

    collator: Callable[[Sequence[DrawnRecord]], dict[str, Any]]

    def __call__(self, drawn: Sequence[DrawnRecord]) -> dict[str, Any]:
        """The batch, or `{"error": ...}`."""
        try:
            return self.collator(drawn)
        except (ValueError, OSError) as error:
            return {"error": error}


def raise_error(batch: MutableMapping[str, Any]) -> None:
    """Raise what [`ErrorsAsBatches`] has handed out in place of a batch."""
    if "error" in batch:
        raise batch.pop("error")  # in the batch it would keep its own traceback, and with that the loader, alive


def _hash(image: Image.Image) -> int:
    """64 bits, signed, of the size and the pixels: one image may lie in several files."""
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=8)
    digest.update(image.tobytes())
    return int.from_bytes(digest.digest(), "little", signed=True)


def _with_remedy(error: ValueError) -> ValueError:
    if not isinstance(error, UnreadableImageError):
        return error
    return UnreadableImageError(f"{error} (on_error='skip' leaves such records out and counts them)")
