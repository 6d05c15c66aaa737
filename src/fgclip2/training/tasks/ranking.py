"""The task of a ranking stage: captions and images told from those that the dual encoder takes for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...checks import check_number, check_positive_integer
from ..arguments import FGClip2TrainingArguments
from ..collator import FGClip2Collator
from ..estimates import DataSummary, StepContents
from .pairs import PairObjective, PairTask, Rows


@dataclass(frozen=True)
class RankingSettings:
    """Settings of the objective `"ranking"`.

    Args:
        negatives: Other images that a caption is told from, and other captions that an image is told from.
        hard_text_weight: Weight of the loss of regions' texts against their hard negatives. A text alone may give them
            away: look at what a run with shuffled images reaches.
    """

    negatives: int = 3
    hard_text_weight: float = 1.0

    def __post_init__(self) -> None:
        check_positive_integer("`negatives`", self.negatives)
        check_number("`hard_text_weight`", self.hard_text_weight, 0)


class RankingTask(PairTask):
    """Trains the ranking stage of a dual encoder whose towers are frozen."""

    objectives = ("ranking",)
    settings = RankingSettings
    labelled = False
    loss_name = "loss"
    reason_without_rows = "a batch of one picture, which has no other to be told from"

    def check_arguments(self, args: FGClip2TrainingArguments) -> None:
        """Refuse what has no meaning where towers and scales are frozen."""
        if args.max_logit_scale is not None:
            raise ValueError(
                f"`max_logit_scale` must be None for the objective 'ranking', which trains no scale, got "
                f"{args.max_logit_scale}"
            )
        if args.patch_dropout:
            raise ValueError(
                f"`patch_dropout` must be 0 for the objective 'ranking', whose stage reads all patches, got "
                f"{args.patch_dropout!r}"
            )
        if args.image_augmentation != "none":
            raise ValueError(
                f"`image_augmentation` must be 'none' for the objective 'ranking', got {args.image_augmentation!r}"
            )

    def make_collator(  # type: ignore[override]
        self, processor: Any, args: FGClip2TrainingArguments, settings: RankingSettings, training: bool = True
    ) -> FGClip2Collator:
        """Return a collator of captions, and of hard negatives if they have any weight."""
        return FGClip2Collator(
            processor,
            max_num_patches=args.patch_budget,
            max_regions=args.max_regions,
            num_hard_negatives=args.num_hard_negatives,
            short_caption_prefix=args.short_caption_prefix,
            training=training,
            with_regions=False,
            with_hard_negatives=settings.hard_text_weight > 0,
            with_image_hash=True,
            on_error=args.on_error,
            seed=args.order_seed,
        )

    def no_rows(self, model: Any) -> Rows:
        """See the base class."""
        return {"right": torch.zeros(0), "image_hash": torch.zeros(0, dtype=torch.int64)}

    def embed_batch(self, model: Any, batch: Mapping[str, Any], objective: PairObjective) -> tuple[Rows, Tensor]:
        """Compute for each image whether it comes first for its captions, and the loss.

        A batch of one picture, as the last one may be, has no other to tell it from: it gives no rows, and no loss.
        """
        if len(batch["image_hash"].unique()) < 2:
            return self.no_rows(model), torch.zeros(())
        inputs = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        outputs = model(**inputs, **objective.forward_arguments)
        return {"right": outputs["right"].float(), "image_hash": batch["image_hash"]}, outputs["loss"]

    def evaluation_metrics(self, embedded: Mapping[str, Tensor]) -> dict[str, float]:
        """Return `accuracy`: how often an image comes before the most similar others of its batch for its captions."""
        return {"accuracy": embedded["right"].mean().item()} if len(embedded["right"]) else {}

    def step_contents(
        self, args: FGClip2TrainingArguments, data: DataSummary, settings: RankingSettings
    ) -> StepContents:
        """Return what a batch of one process is expected to hold: a text for each pair that the stage compares."""
        size = args.per_device_train_batch_size
        pairs_per_caption = 2 * (1 + min(settings.negatives, size - 1))  # with images, and its image with captions
        captions = data.short_captions * size
        hard = data.hard_regions * size * (1 + args.num_hard_negatives) if settings.hard_text_weight else 0.0
        return StepContents(
            images=size,
            patches=data.max_patches,
            short_texts=captions * pairs_per_caption + hard,
            captions=captions,
            long_texts=data.long_captions * size * pairs_per_caption,
            regions=0.0,
        )

    def exchange_memory(self, model: Any, settings: Any, contents: Any, world_size: int) -> float:
        """Return zero: each process has its own candidates."""
        return 0.0

    def exchange_traffic(self, model: Any, settings: Any, contents: Any, world_size: int) -> dict[str, float]:
        """Return nothing: each process has its own candidates."""
        return {}
