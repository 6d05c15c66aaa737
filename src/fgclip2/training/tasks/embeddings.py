"""The task of both FG-CLIP families: embeddings of images, captions, regions and hard negatives, contrasted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from .. import estimates, evaluation
from ..arguments import FGClip2TrainingArguments
from ..collator import FGClip2Collator
from ..estimates import DataSummary, StepContents
from ..losses.sigmoid_over_ranks import SIGMOID_FORMS
from ..objective import PRESETS, FGClip2Objective, ObjectiveSettings
from ..patch_dropout import count_kept


class EmbeddingTask:
    """Meets [`TrainingTask`] for models whose outputs are embeddings, by [`FGClip2Objective`]."""

    objectives = tuple(PRESETS)
    has_gradient_cache = True

    def check_arguments(self, args: FGClip2TrainingArguments) -> None:
        """Take all arguments but those of pairs alone."""
        if args.image_augmentation != "none":
            raise ValueError(
                f"`image_augmentation` must be 'none' for a model whose data have boxes, got "
                f"{args.image_augmentation!r}: it would move what these name"
            )

    def make_objective(self, preset: str, settings: Mapping[str, Any]) -> FGClip2Objective:
        """Return the objective of a preset."""
        return FGClip2Objective(preset, **settings)

    def make_collator(
        self, processor: Any, args: FGClip2TrainingArguments, settings: ObjectiveSettings, training: bool = True
    ) -> FGClip2Collator:
        """Return a collator that leaves out what an objective of these settings does not need."""
        return FGClip2Collator(
            processor,
            max_num_patches=args.patch_budget,
            max_regions=args.max_regions,
            num_hard_negatives=args.num_hard_negatives,
            short_caption_prefix=args.short_caption_prefix,
            patch_dropout=args.patch_dropout,
            training=training,
            with_regions=settings.uses_regions,
            with_hard_negatives=settings.uses_hard_negatives,
            with_long_captions=settings.long_weight > 0,
            on_error=args.on_error,
            seed=args.order_seed,
        )

    def embed_batches(
        self, model: Any, batches: Iterable[MutableMapping[str, Any]], objective: FGClip2Objective
    ) -> tuple[dict[str, Tensor], dict[str, float], list[str]]:
        """Embed this rank's batches, and gather the embeddings of all ranks."""
        return evaluation.embed_batches(model, batches, objective)

    def evaluation_metrics(self, embedded: Mapping[str, Tensor]) -> dict[str, float]:
        """Return recalls and region accuracy."""
        return evaluation.evaluation_metrics(embedded)

    def step_contents(
        self, args: FGClip2TrainingArguments, data: DataSummary, settings: ObjectiveSettings
    ) -> StepContents:
        """Return what a batch of one process is expected to hold."""
        contents = StepContents.expected(args.per_device_train_batch_size, data, settings, args.num_hard_negatives)
        return replace(contents, patches=count_kept(contents.patches, args.patch_dropout))

    def describe_terms(self, settings: ObjectiveSettings, data: DataSummary) -> dict[str, dict[str, float]]:
        """Return the weight of each term, and the share of the records looked at that have data for it."""
        shares = {
            "short": data.short_captions,
            "long": data.long_captions,
            "region": data.with_regions,
            "tic": data.with_regions,
            "hard_negative": data.with_hard_negatives,
        }
        if settings.distillation_weight:  # asked for only, and of whatever else there is
            shares["distillation"] = 1.0
        return {term: {"weight": getattr(settings, f"{term}_weight"), "records": shares[term]} for term in shares}

    def advice(self, settings: ObjectiveSettings, data: DataSummary) -> list[str]:
        """Name settings that don't fit the data. Heads without data get no gradient, but decay."""
        advice = []
        if settings.uses_regions and not data.regions:
            advice.append("no regions were found: without any in the data, region and tic count 0")
        if settings.uses_hard_negatives and not data.hard_regions:
            advice.append(
                "no hard negatives were found: make them by `fgclip2 data hard-negatives`, else hard_negative counts 0"
            )
        for name, share in (("short", data.short_captions), ("long", data.long_captions)):
            if getattr(settings, f"{name}_weight") and not share:
                advice.append(f"no {name} captions were found: without any in the data, {name} counts 0")
        return advice

    def start_memory(self, model: Any, settings: ObjectiveSettings) -> Any:
        """Return `None`: what distillation keeps begins with the trainer ([`FrozenStart`])."""
        return None

    def kept_memory(self, model: Any, settings: ObjectiveSettings) -> float:
        """Return bytes of the frozen start, of which LoRA needs no copy."""
        if not settings.distillation_weight or hasattr(model, "peft_config"):
            return 0.0
        return estimates.FLOAT32 * sum(parameter.numel() for parameter in model.parameters())

    def saved_memory(self, model: Any, settings: ObjectiveSettings) -> float:
        """Return zero: a checkpoint has a fingerprint of the start only."""
        return 0.0

    def exchange_memory(
        self, model: Any, settings: ObjectiveSettings, contents: StepContents, world_size: int
    ) -> float:
        """Return bytes of the losses of captions."""
        form = settings.sigmoid_form if settings.caption_loss == "sigmoid" else settings.caption_loss
        return estimates.similarity_memory(model.embedding_size, contents, world_size, form)

    def exchange_traffic(
        self, model: Any, settings: ObjectiveSettings, contents: StepContents, world_size: int
    ) -> dict[str, float]:
        """Return bytes sent for the losses of captions, by the form of the loss."""
        forms = SIGMOID_FORMS if settings.caption_loss == "sigmoid" else (settings.caption_loss,)
        width = model.embedding_size
        return {form: estimates.embedding_traffic(width, contents, world_size, form) for form in forms}
