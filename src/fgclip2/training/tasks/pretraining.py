"""The task after R2D2's description: parts of its pre-training that were described and never released.

Beside GCPR and FGR of retrieval: a teacher's share in the targets of the contrast (TgD), a teacher's vectors of whole
texts for a student that reads masked ones (FgD), and the masked tokens themselves (MLM). Nothing here was compared with
code of R2D2's authors, for there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...checks import check_choice, check_number, check_positive_integer
from ..arguments import FGClip2TrainingArguments
from ..estimates import FLOAT32, StepContents
from ..pair_collator import PairCollator
from .pairs import PairObjective, RetrievalSettings, RetrievalTask

# Modules of the model that the teacher has copies of.
_TOWERS = ("visual_encoder", "text_encoder", "vision_proj", "text_proj")
_OF_MASKED_TEXTS = ("text_joint_layer", "mlm_head")


@dataclass(frozen=True)
class AfterR2D2Settings(RetrievalSettings):
    """Settings of the objective `"after-r2d2"`.

    What no source names has the values of the models that R2D2 builds on, ALBEF and BLIP. GCPR and FGR have no weights.

    Args:
        tgd_weight, fgd_weight, mlm_weight: Weights of the three terms in the sum; 0 leaves a term out, and without all
            three GCPR and FGR are left, with a vision tower that is trained. No source names any weight; ALBEF adds its
            losses up.
        fgd_form: What FgD compares: `"cosine"`, vectors of texts; `"relational"`, what these find among the images of
            the step. No source says which; both are guesses.
        alpha: Share of the teacher in the targets of TgD; ALBEF's and BLIP's.
        alpha_epochs: Epochs in which `alpha` grows from 0; ALBEF's, BLIP has 2. With 0 it counts in full at once.
        momentum: Share of the teacher's weights that stays in each step; ALBEF's and BLIP's.
        queue_size: Pairs of former steps that TgD contrasts with too; ALBEF's, BLIP has 57,600.
        queue_decay: Factor of all queued vectors in each step; R2D2's, by a reader's note on the paper.
        mask_probability: Share of the tokens that are masked for FgD and MLM; BERT's and ALBEF's.
        mlm_alpha: Share of the teacher in the targets of MLM, which grows as `alpha` does. ALBEF has 0.4; whether
            R2D2's teacher has a cross encoder, which this takes, no source says.
    """

    tgd_weight: float = 1.0
    fgd_weight: float = 1.0
    mlm_weight: float = 1.0
    fgd_form: Literal["cosine", "relational"] = "cosine"
    alpha: float = 0.4
    alpha_epochs: float = 1.0
    momentum: float = 0.995
    queue_size: int = 65_536
    queue_decay: float = 0.99
    mask_probability: float = 0.15
    mlm_alpha: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("tgd_weight", "fgd_weight", "mlm_weight", "alpha_epochs"):
            check_number(f"`{name}`", getattr(self, name), 0)
        for name in ("alpha", "momentum", "queue_decay", "mlm_alpha"):
            check_number(f"`{name}`", getattr(self, name), 0, 1)
        check_choice("`fgd_form`", self.fgd_form, ("cosine", "relational"))
        check_positive_integer("`queue_size`", self.queue_size)
        check_number("`mask_probability`", self.mask_probability, 0, 1)
        if self.masks_texts and not self.mask_probability:
            raise ValueError("`mask_probability` must be above 0 where `fgd_weight` or `mlm_weight` is, got 0")
        if self.mlm_alpha and not self.mlm_weight:
            raise ValueError(f"`mlm_alpha` must be 0 where `mlm_weight` is, got {self.mlm_alpha}")

    @property
    def masks_texts(self) -> bool:
        """Tell if the student reads masked texts, as all its losses then do."""
        return self.fgd_weight > 0 or self.mlm_weight > 0

    @property
    def of_teacher(self) -> tuple[str, ...]:
        """Return the names of the modules that the teacher has copies of."""
        towers = _TOWERS if self.tgd_weight or self.fgd_weight or self.mlm_alpha else ()
        return (*towers, *(_OF_MASKED_TEXTS if self.mlm_alpha else ()))


class AfterR2D2Task(RetrievalTask):
    """Retrieval, with the terms after R2D2's description."""

    objectives = ("after-r2d2",)
    settings = AfterR2D2Settings

    def check_arguments(self, args: FGClip2TrainingArguments) -> None:
        """Refuse DeepSpeed too, whose weights of few digits a teacher can't follow."""
        super().check_arguments(args)
        if args.strategy != "ddp":
            raise ValueError("the objective 'after-r2d2' has a teacher, which follows whole float32 weights: take DDP")

    def make_objective(self, preset: str, settings: Mapping[str, Any]) -> PairObjective:
        """See the base class. The model has the settings from [`AfterR2D2ForPreTraining.start`], not by each batch."""
        objective = super().make_objective(preset, settings)
        objective.forward_arguments = {}
        return objective

    def make_collator(  # type: ignore[override]
        self, processor: Any, args: FGClip2TrainingArguments, settings: AfterR2D2Settings, training: bool = True
    ) -> PairCollator:
        """Return a collator of pairs, whose texts it also masks."""
        return super().make_collator(
            processor,
            args,
            settings,
            training,
            mask_probability=settings.mask_probability if training and settings.masks_texts else 0.0,
        )

    def start_memory(self, model: Any, settings: AfterR2D2Settings) -> Any:
        """See the protocol."""
        return model.start(settings)

    def kept_memory(self, model: Any, settings: AfterR2D2Settings) -> float:
        """Return bytes of the teacher and of the queues."""
        parts = dict(model.named_children())
        teacher = sum(p.numel() for name in settings.of_teacher for p in parts[name].parameters())
        queues = 2 * settings.queue_size * (model.embedding_size + 1) if settings.tgd_weight else 0
        return FLOAT32 * (teacher + queues)

    def exchange_memory(
        self, model: Any, settings: AfterR2D2Settings, contents: StepContents, world_size: int
    ) -> float:
        """Return bytes of the tokens of all processes with their gradients, and of what TgD and MLM compare."""
        memory = super().exchange_memory(model, settings, contents, world_size)
        if settings.tgd_weight:  # both ways: logits, their logarithms, targets, and a gradient
            memory += FLOAT32 * 2 * 4 * contents.images * (world_size * contents.images + settings.queue_size)
        if settings.mlm_weight:  # of masked tokens: logits, their logarithms, and a gradient
            masked = settings.mask_probability * contents.short_texts * model.config.max_length
            memory += FLOAT32 * 3 * masked * model.config.text_config.vocab_size
        return memory
