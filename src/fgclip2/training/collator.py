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
from ..errors import UnreadableImageError
from ..modeling.interface import DualEncoderProcessor, Role
from .patch_dropout import check_patch_dropout, draw_kept_patches, take_patches
from .sampler import DrawnRecord, OnError


@dataclass(frozen=True)
class FGClip2Collator:
    """Opens images, chooses regions and texts, tokenizes, and pads.

    What is chosen at random (which regions, short or long text of a region) follows from `seed`, the epoch and the
    record's source, so a run that is continued sees the same samples.

    Args:
        processor: Processor of the checkpoint.
        max_num_patches: Patch budget of each image, or `"auto"`, by its size; `None`: the processor's setting.
        max_regions: Regions per image and step, drawn anew in each epoch (released: 4); `None`: all.
        num_hard_negatives: Hard negatives per region (released: 10); where there are fewer, they are masked.
        short_caption_prefix: Put before English short captions (the released training has `"a photo of "`).
        patch_dropout: Share of an image's patches that are dropped in training, drawn anew in each epoch.
        training: `False`, for evaluation: every region with its short text, and a hash of each image.
        with_regions, with_hard_negatives, with_long_captions, with_image_hash: What the objective needs.
        on_error: `"raise"` an `UnreadableImageError`, or `"skip"`: leave the record out of its batch and say so.
        seed: Seed of the choices.

    Raises:
        ValueError: As [`check_patch_budget`] and [`check_patch_dropout`].
    """

    processor: DualEncoderProcessor
    max_num_patches: int | str | None = None
    max_regions: int | None = 4
    num_hard_negatives: int = 10
    short_caption_prefix: str = ""
    patch_dropout: float = 0.0
    training: bool = True
    with_regions: bool = True
    with_hard_negatives: bool = True
    with_long_captions: bool = True
    with_image_hash: bool = False
    on_error: OnError = "raise"
    seed: int = 0

    def __post_init__(self) -> None:
        check_patch_budget(self.processor, self.max_num_patches)
        check_patch_dropout(self.patch_dropout, self.processor, self.with_regions or self.with_hard_negatives)

    def __call__(self, drawn: Sequence[DrawnRecord]) -> dict[str, Any]:
        """Make a batch.

        Returns:
            The arguments of the training model, of which [`normalize_pixels`] makes `pixel_values` out of `pixels`,
            uint8, and `value_table`; `short_image_index` and `long_image_index`, the image of each caption;
            `hard_negative_mask`; with `patch_dropout` `kept_patches` of [`draw_kept_patches`], and pixels of no others;
            with `training=False` or `with_image_hash` `image_hash`, int64 (B,), the same for equal images only; with
            `training=False` `short_text_hash`, `long_text_hash` and `region_text_hash`, of the ids of captions and
            regions' texts; and `skipped`, a list of reasons, one for each record left out.

        Raises:
            UnreadableImageError: An image can't be read, with `on_error="raise"`; names record and file.
            InvalidRecordError: A record can't be used, or is labelled as a pair that does not match, likewise.
        """
        if drawn and drawn[0].record is None:  # had before the run was continued: it is only counted off
            return {}
        records, images, epochs, skipped = open_drawn(drawn, self.on_error, check_no_mismatch)
        batch: dict[str, Any] = {
            **prepare_images(self.processor, images, self.max_num_patches),
            "skipped": skipped,
        }
        if self.patch_dropout and self.training:
            counts = batch["pixel_attention_mask"].sum(1).tolist()
            # From random states of their own: whether patches are dropped changes nothing else that is drawn.
            rngs = [random_of(*its, self.seed).spawn(1)[0] for its in zip(records, epochs, strict=True)]
            kept = batch["kept_patches"] = draw_kept_patches(counts, self.patch_dropout, rngs)
            batch["pixels"], batch["pixel_attention_mask"] = take_patches(batch["pixels"], kept)
        if self.with_image_hash or not self.training:
            batch["image_hash"] = hash_images(images)
        prefixes = [self.short_caption_prefix if record.language == "en" else "" for record in records]
        short = [
            None if record.short_caption is None else prefix + record.short_caption
            for record, prefix in zip(records, prefixes, strict=True)
        ]
        batch.update(self._captions("short", "caption", short))
        if self.with_long_captions:
            batch.update(self._captions("long", "long_caption", [record.long_caption for record in records]))
        if self.with_regions or self.with_hard_negatives:
            pairs = zip(records, epochs, strict=True)
            batch.update(self._regions([self._choose(record, epoch) for record, epoch in pairs]))
        return batch

    def _captions(self, name: str, role: Role, captions: list[str | None]) -> dict[str, Tensor]:
        index = [number for number, caption in enumerate(captions) if caption is not None]
        return {
            **self._texts(name, [caption for caption in captions if caption is not None], role),
            f"{name}_image_index": torch.tensor(index, dtype=torch.int64),
        }

    def _texts(self, name: str, texts: Sequence[str], role: Role) -> dict[str, Tensor]:
        """Return the ids of texts and, for evaluation, a hash of each."""
        ids = self._tokenize(texts, role)
        if self.training:
            return {f"{name}_input_ids": ids}
        return {f"{name}_input_ids": ids, f"{name}_text_hash": hash_texts(ids, self.processor.tokenizer.pad_token_id)}

    def _tokenize(self, texts: Sequence[str], role: Role) -> Tensor:
        ids = self.processor.tokenize(texts or [""], role)["input_ids"]  # (texts, tokens)
        return ids[: len(texts)]

    def _choose(self, record: Record, epoch: int) -> list[tuple[Region, str]]:
        """Return regions of a record, in its order, each with one of its texts."""
        regions = record.regions
        if not self.training:
            return [(region, region.short_text) for region in regions]
        rng = random_of(record, epoch, self.seed)
        if self.max_regions is not None and len(regions) > self.max_regions:
            chosen = sorted(rng.choice(len(regions), self.max_regions, replace=False).tolist())
            regions = tuple(regions[number] for number in chosen)
        takes_long = rng.random(len(regions)) < 0.5
        return [
            (region, region.long_text if long and region.long_text else region.short_text)
            for region, long in zip(regions, takes_long, strict=True)
        ]

    def _regions(self, chosen: list[list[tuple[Region, str]]]) -> dict[str, Tensor]:
        boxes = np.zeros((len(chosen), max((len(regions) for regions in chosen), default=0), 4), np.float32)
        index, texts, hard_index, hard_texts = [], [], [], []
        for image, regions in enumerate(chosen):
            for slot, (region, text) in enumerate(regions):
                boxes[image, slot] = region.box
                index.append((image, slot))
                texts.append(text)
                if region.hard_negatives:
                    hard_index.append((image, slot))
                    hard_texts.append([region.short_text, *region.hard_negatives[: self.num_hard_negatives]])
        batch = {"boxes": torch.from_numpy(boxes)}
        if self.with_regions:
            batch["region_index"] = torch.tensor(index, dtype=torch.int64).view(-1, 2)
            batch.update(self._texts("region", texts, "region_phrase"))
        if self.with_hard_negatives:
            batch["hard_index"] = torch.tensor(hard_index, dtype=torch.int64).view(-1, 2)
            # Groups of texts, the true one first, padded to equal numbers by repeating it.
            size = 1 + self.num_hard_negatives
            padded = [text for group in hard_texts for text in [*group, *group[:1] * (size - len(group))]]
            counts = torch.tensor([len(group) - 1 for group in hard_texts], dtype=torch.int64)
            ids = self._tokenize(padded, "region_phrase")  # (H size, tokens)
            batch["hard_input_ids"] = ids.unflatten(0, (len(hard_texts), size))  # (H, size, tokens)
            batch["hard_negative_mask"] = torch.arange(self.num_hard_negatives) < counts[:, None]  # (H, size - 1)
        return batch


def random_of(record: Record, epoch: int, seed: int) -> np.random.Generator:
    """Return the random state of all that is drawn for a record in an epoch, wherever and whenever that is."""
    source = record.source.encode(errors="surrogateescape")  # names of files need not be UTF-8
    return np.random.default_rng([seed, epoch, zlib.crc32(source)])


def open_drawn(
    drawn: Sequence[DrawnRecord], on_error: OnError, check: Callable[[Record], None] = lambda record: None
) -> tuple[list[Record], list[Image.Image], list[int], list[str]]:
    """Open the images of drawn records.

    Args:
        drawn: What a data set of drawn records gives.
        on_error: What to do about records and images that can't be used.
        check: Raises an `InvalidRecordError` about a record that can't be used.

    Returns:
        Records, their images, their epochs, and the reasons for what is left out.

    Raises:
        UnreadableImageError, InvalidRecordError: With `on_error="raise"`.
    """
    records, images, epochs, skipped = [], [], [], []
    for record, epoch in drawn:
        try:
            if isinstance(record, Exception):
                raise record
            check(record)
            images.append(open_record_image(record))
        except (InvalidRecordError, UnreadableImageError) as error:
            if on_error == "skip":
                skipped.append(str(error))
                continue
            if isinstance(error, UnreadableImageError):
                remedy = "on_error='skip' leaves such records out and counts them"
                raise UnreadableImageError(f"{error} ({remedy})") from error
            raise
        records.append(record)
        epochs.append(epoch)
    return records, images, epochs, skipped


def check_no_mismatch(record: Record) -> None:
    """Raise an `InvalidRecordError` if a record is labelled as a pair that does not match."""
    if record.matches is False:
        raise InvalidRecordError(record.source, "label", "0", "1, or none: this objective learns from pairs that match")


def prepare_images(
    processor: DualEncoderProcessor, images: list[Image.Image], max_num_patches: int | str | None = None
) -> dict[str, Tensor]:
    """Return the inputs of a model for a batch of images, of no rows if there are none.

    In place of `pixel_values` there are `pixels`, uint8, a quarter of their bytes, and `value_table`, float32 (3, 256),
    by which [`normalize_pixels`] makes them where the model is.
    """
    # One image in place of none, as all may be left out.
    inputs = processor.process_images(images or [Image.new("RGB", (1, 1))], max_num_patches, normalized=False)
    rows = {name: value[: len(images)] for name, value in inputs.items()}
    table = torch.from_numpy(processor.image_processor.value_table())
    return {"pixels": rows.pop("pixel_values"), "value_table": table, **rows}


def hash_images(images: Sequence[Image.Image]) -> Tensor:
    """Return int64 (B,), the same for equal pictures only."""
    return torch.tensor([_hash(image.size, image.tobytes()) for image in images], dtype=torch.int64)


def hash_texts(input_ids: Tensor, padding_id: int) -> Tensor:
    """Return int64 (B,), the same for equal texts only, however far they are padded."""
    # Without their padding: families pad to the longest text of each batch.
    hashes = [_hash("text", np.trim_zeros(row - padding_id, "b").tobytes()) for row in input_ids.numpy()]
    return torch.tensor(hashes, dtype=torch.int64)


@dataclass(frozen=True)
class ErrorsAsBatches:
    """Hands out what a collator raises about the data as a batch, for [`raise_error`] in the process that trains.

    Raised in a loader worker, torch would make it one text with a traceback, or another error.
    """

    collator: Callable[[Sequence[DrawnRecord]], dict[str, Any]]

    def __call__(self, drawn: Sequence[DrawnRecord]) -> dict[str, Any]:
        """Return the batch, or `{"error": ...}`."""
        try:
            return self.collator(drawn)
        except (ValueError, OSError) as error:
            return {"error": error}


def raise_error(batch: MutableMapping[str, Any]) -> None:
    """Raise what [`ErrorsAsBatches`] has handed out in place of a batch."""
    if "error" in batch:
        raise batch.pop("error")  # in the batch it would keep its own traceback, and with that the loader, alive


def check_patch_budget(processor: DualEncoderProcessor, max_num_patches: int | str | None) -> None:
    """Raise a `ValueError` if a patch budget is given for a family whose images are squares of one size."""
    if max_num_patches is not None and processor.patch_budgets is None:
        raise ValueError(
            f"`max_num_patches` means nothing to this model, whose images are squares of one size, got "
            f"{max_num_patches!r}: leave it out"
        )


def _hash(kind: object, content: bytes) -> int:
    """Return 64 bits, signed: one image may lie in several files, and one text in several records."""
    digest = hashlib.blake2b(repr(kind).encode(), digest_size=8)
    digest.update(content)
    return int.from_bytes(digest.digest(), "little", signed=True)
