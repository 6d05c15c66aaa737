"""The training objective of FG-CLIP 2 and FG-CLIP: which losses, with what weights, over which processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..checks import check_choice, check_number, check_positive_integer, is_number
from ..distributed import counts_over_ranks, gather_rows, mean_over_ranks, sum_over_ranks
from .losses import (
    feature_distillation_loss,
    hard_negative_loss,
    info_nce_loss,
    region_contrastive_loss,
    sigmoid_loss,
    textual_intra_modal_contrastive_loss,
)
from .losses.info_nce import info_nce_loss_over_ranks
from .losses.sigmoid_over_ranks import SIGMOID_FORMS, SigmoidForm, sigmoid_loss_over_ranks

# The terms of the sum: each is logged as `NAME_loss` and has the weight `NAME_weight`.
TERMS = ("short", "long", "region", "tic", "hard_negative", "distillation")
# What distillation keeps, as far as a step has it: `NAME` of the outputs, beside `start_NAME` of the batch.
DISTILLED = ("image_embeds", "short_text_embeds", "long_text_embeds", "region_embeds", "region_text_embeds")
START = "start_"


@dataclass(frozen=True)
class ObjectiveSettings:
    """Weights and constants; the values here are those of FG-CLIP 2's released code, from which the paper's differ.

    The hard-negative term is `contrast_weight * contrast + pair_weight * pair + rank_weight * rank`. One margin serves
    all hard negatives, as released; the paper writes one for each place in the list of ten.
    """

    short_weight: float = 1.0
    long_weight: float = 1.0
    region_weight: float = 0.2  # paper: 0.1
    tic_weight: float = 0.1
    hard_negative_weight: float = 0.5
    distillation_weight: float = 0.0  # in neither: of the distance from what the frozen start makes of the batch
    contrast_weight: float = 0.6  # not in the paper
    pair_weight: float = 3.0  # paper: 1
    rank_weight: float = 0.4  # paper: 0.4 in all, so 0.8 of the 0.5
    num_hardest: int = 10  # of the TIC loss; both
    max_similarity: float = 0.95  # of the TIC loss; both
    margin_bounds: tuple[float, float] = (0.0, 10.0)  # of the rank margin; the paper names none
    # A rank without hard negatives contributes its old margin ("all"), or does not count ("with_hard_negatives").
    margin_ranks: Literal["all", "with_hard_negatives"] = "all"
    region_negatives: Literal["local", "global"] = "local"  # both; "global": regions and texts of all ranks compete
    # Images and captions: each pair by itself, or ("info_nce", the first FG-CLIP) each among all others.
    caption_loss: Literal["sigmoid", "info_nce"] = "sigmoid"
    sigmoid_form: SigmoidForm = "gather"  # how texts of other ranks come; the result is the same

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name.endswith("_weight"):
                check_number(f"`{field.name}`", getattr(self, field.name), 0)
        check_positive_integer("`num_hardest`", self.num_hardest)
        check_number("`max_similarity`", self.max_similarity, -1, 1)
        check_choice("`margin_ranks`", self.margin_ranks, ("all", "with_hard_negatives"))
        check_choice("`region_negatives`", self.region_negatives, ("local", "global"))
        check_choice("`caption_loss`", self.caption_loss, ("sigmoid", "info_nce"))
        check_choice("`sigmoid_form`", self.sigmoid_form, SIGMOID_FORMS)
        if self.caption_loss == "info_nce" and self.sigmoid_form != "gather":
            raise ValueError(
                f"`sigmoid_form` must be 'gather' where `caption_loss` is 'info_nce', got {self.sigmoid_form!r}"
            )
        bounds: Any = self.margin_bounds
        is_pair = isinstance(bounds, (list, tuple)) and len(bounds) == 2 and all(map(is_number, bounds))
        if not is_pair or bounds[0] > bounds[1]:
            raise ValueError(f"`margin_bounds` must be two numbers, the lower one first, got {bounds!r}")

    @property
    def uses_regions(self) -> bool:
        """Tell if regions and their texts have any weight."""
        return self.region_weight > 0 or self.tic_weight > 0

    @property
    def uses_hard_negatives(self) -> bool:
        """Tell if hard negatives have any weight."""
        return self.hard_negative_weight > 0


PRESETS: dict[str, ObjectiveSettings] = {
    "released": ObjectiveSettings(),  # the released training script
    "paper": ObjectiveSettings(  # FG-CLIP 2, section 3.2 and appendix
        region_weight=0.1,
        contrast_weight=0.0,
        pair_weight=1.0,
        rank_weight=0.8,
        margin_ranks="with_hard_negatives",
    ),
    "fgclip": ObjectiveSettings(  # the first FG-CLIP: paper and released script agree
        region_weight=0.1,
        tic_weight=0.0,
        contrast_weight=0.0,
        pair_weight=1.0,
        rank_weight=0.0,
        caption_loss="info_nce",
    ),
}


class FGClip2Objective(nn.Module):
    """Embeddings in, named losses and their sum out; the same on 1 to N processes.

    The mean over ranks of each value, and of the gradients of the parameters (as DDP takes it), is that of one process
    with all ranks' data: of the losses of captions always, of the region losses with `region_negatives="global"`. With
    `"local"` (as published) the region losses are the mean of what each rank gives by itself.

    The rank margin is that of the step before, averaged over ranks and clamped. It is the buffer `margin`, moves only
    in training mode, and has to be saved with a run (the trainer does).

    Args:
        preset: `"released"` or `"paper"` of FG-CLIP 2, or `"fgclip"`, of the first version.
        settings: Fields of [`ObjectiveSettings`] that differ from the preset's.

    Raises:
        ValueError: The preset or a field is unknown, or a value is not allowed.

    Example:
        >>> objective = FGClip2Objective("paper", tic_weight=0.0)
        >>> losses = objective(model(**batch), batch)
        >>> losses["loss"].backward()
    """

    margin: Tensor

    terms = TERMS
    forward_arguments: Mapping[str, Any] = {}

    def __init__(self, preset: str = "released", **settings: Any):
        super().__init__()
        check_choice("`preset`", preset, PRESETS)
        known = sorted(field.name for field in fields(ObjectiveSettings))
        if unknown := sorted(set(settings) - set(known)):
            raise ValueError(f"`objective_settings` must be of {', '.join(known)}, got {', '.join(unknown)}")
        self.settings = replace(PRESETS[preset], **settings)
        self.register_buffer("margin", torch.zeros(()))

    def forward(
        self, outputs: Mapping[str, Any], batch: Mapping[str, Any] | None = None, across_ranks: bool = True
    ) -> dict[str, Tensor]:
        """Compute the losses.

        Args:
            outputs: Embeddings, L2-normalised, and scales, as training models return them: `image_embeds`
                (B, D), `short_text_embeds` (S, D), `long_text_embeds` (L, D), `region_embeds` and `region_text_embeds`
                (K, D), `hard_region_embeds` and `hard_positive_embeds` (H, D), `hard_negative_embeds` (H, N, D),
                `logit_scale`, `logit_bias`, `logit_scale_finegraind`, `logit_scale_hardneg` (1,). A loss whose
                embeddings are absent is left out, which has to be so on all ranks; a rank without data has no rows.
            batch: `short_image_index` (S,) and `long_image_index` (L,): the image of each caption, `None` for image i
                and caption i; `hard_negative_mask` (H, N), `False` where there is no negative, `None` for all there;
                for distillation `start_image_embeds` (B, D) and so on, what the frozen start makes of the same rows.
            across_ranks: `False`: this process by itself, without collectives; the margin stays.

        Returns:
            Scalars: `loss`, and of `short`, `long`, `region`, `tic`, `hard_negative`, `distillation`, `contrast`,
            `pair`, `rank` those that have data and weight, not weighted.
        """
        batch = batch or {}
        settings, losses = self.settings, {}
        for name in ("short", "long"):
            if getattr(settings, f"{name}_weight") and outputs.get(f"{name}_text_embeds") is not None:
                losses[name] = self._captions(outputs, name, batch.get(f"{name}_image_index"), across_ranks)
        if settings.uses_regions and outputs.get("region_embeds") is not None:
            regions, texts = self._rows(across_ranks, outputs["region_embeds"], outputs["region_text_embeds"])
            losses["region"] = region_contrastive_loss(regions, texts, outputs["logit_scale_finegraind"])
            if settings.tic_weight:
                losses["tic"] = textual_intra_modal_contrastive_loss(
                    texts, settings.num_hardest, settings.max_similarity
                )
        if settings.uses_hard_negatives and outputs.get("hard_region_embeds") is not None:
            losses.update(self._hard_negatives(outputs, batch.get("hard_negative_mask"), across_ranks))
        kept = [name for name in DISTILLED if outputs.get(name) is not None and START + name in batch]
        if settings.distillation_weight and kept:
            losses["distillation"] = self._distill(outputs, batch, kept, across_ranks)
        weighted = [getattr(settings, f"{name}_weight") * losses[name] for name in TERMS if name in losses]
        if not weighted:
            raise ValueError(f"outputs has {', '.join(outputs)}: nothing that a loss with any weight needs")
        return {"loss": torch.stack(weighted).sum(), **losses}

    def _captions(
        self, outputs: Mapping[str, Any], name: str, image_index: Tensor | None, across_ranks: bool
    ) -> Tensor:
        images, texts = outputs["image_embeds"], outputs[f"{name}_text_embeds"]
        if image_index is not None:
            images = images[image_index]  # (B, D) -> (S, D): the image of each caption
        is_sigmoid, scale = self.settings.caption_loss == "sigmoid", outputs["logit_scale"]
        if not across_ranks:
            if is_sigmoid:
                return sigmoid_loss(images, texts, scale, outputs["logit_bias"])
            return info_nce_loss(images, texts, scale)
        counts = [count for (count,) in counts_over_ranks([len(texts)], texts.device)]
        if is_sigmoid:
            form = self.settings.sigmoid_form
            return sigmoid_loss_over_ranks(images, texts, scale, outputs["logit_bias"], counts, form)
        return info_nce_loss_over_ranks(images, texts, scale, counts)

    def _distill(
        self, outputs: Mapping[str, Any], batch: Mapping[str, Any], names: list[str], across_ranks: bool
    ) -> Tensor:
        """Return the mean over the kinds of embeddings of their distance from the start's."""
        own = [len(outputs[name]) for name in names]
        counts = counts_over_ranks(own, outputs[names[0]].device) if across_ranks else [own]
        # A rank's part, so that the mean over ranks is the mean over all ranks' rows.
        totals = [max(1, sum(of_ranks)) for of_ranks in zip(*counts, strict=True)]
        distances = [
            feature_distillation_loss(outputs[name], batch[START + name]) * (rows * len(counts) / total)
            for name, rows, total in zip(names, own, totals, strict=True)
        ]
        return torch.stack(distances).mean()

    def _hard_negatives(self, outputs: Mapping[str, Any], mask: Tensor | None, across_ranks: bool) -> dict[str, Tensor]:
        settings, negatives = self.settings, outputs["hard_negative_embeds"]
        if mask is None:
            mask = torch.ones(negatives.shape[:2], dtype=torch.bool, device=negatives.device)  # (H, N)
        regions, positives, negatives, mask = self._rows(
            across_ranks, outputs["hard_region_embeds"], outputs["hard_positive_embeds"], negatives, mask
        )
        losses = hard_negative_loss(
            regions,
            positives,
            negatives,
            outputs["logit_scale_hardneg"],
            self.margin,
            contrast_weight=settings.contrast_weight,
            pair_weight=settings.pair_weight,
            rank_weight=settings.rank_weight,
            negative_mask=mask,
        )
        new_margin = losses.pop("new_margin")
        if self.training and across_ranks:
            self._move_margin(new_margin, len(regions))
        weighted = {name: value for name, value in losses.items() if getattr(settings, f"{name}_weight", 0)}
        return {"hard_negative": losses["loss"], **weighted}

    def _rows(self, across_ranks: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the rows of all ranks with `region_negatives="global"`, else those of this one."""
        if not across_ranks or self.settings.region_negatives == "local":
            return tensors
        counts = [count for (count,) in counts_over_ranks([len(tensors[0])], tensors[0].device)]
        return tuple(gather_rows(tensor, counts) for tensor in tensors)

    @torch.no_grad()
    def _move_margin(self, new_margin: Tensor, count: int) -> None:
        """Average the ranks' new margins, clamp, and keep the result for the next step."""
        contribution = new_margin.to(self.margin) if count else self.margin
        if self.settings.margin_ranks == "all":
            average = mean_over_ranks(contribution)
        else:
            present = torch.full_like(contribution, float(count > 0))
            total, ranks = sum_over_ranks(torch.stack([contribution * present, present]))
            average = torch.where(ranks > 0, total / ranks.clamp(min=1), self.margin)
        self.margin.copy_(average.clamp(*self.settings.margin_bounds))
