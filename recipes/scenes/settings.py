"""Every number of the second stage, in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from ..embedded_checkpoint.settings import Settings

# Weights of the package's objective. Released weights suit towers that know words and things already, fed by batches of
# hundreds; here regions and hard negatives are what is to be learnt, so the region loss has full weight.
OBJECTIVE = {"region_weight": 1.0, "tic_weight": 0.1, "hard_negative_weight": 0.5, "long_weight": 1.0}


@dataclass(frozen=True)
class SceneSettings:
    """Settings of one run; steps are optimizer steps."""

    seed: int = 0

    # Scenes, made before training from drawings that are varied anew for each chunk.
    num_chunks: int = 20
    scenes_per_chunk: int = 2000
    drawing_strength: float = 0.7  # how much drawings are varied before they are pasted, 0 to 1
    photograph_strength: float = 0.6

    # Batches
    scenes_per_batch: int = 56
    hard_regions_per_batch: int = 80  # those whose hard negatives are encoded: eleven texts each
    concepts_per_batch: int = 96  # of single drawings, two of each
    shared_concepts: int = 64  # of these, how many are also in the step's scenes, whose regions they name
    region_images: int = 48
    full_text_share: float = 0.2  # of the steps, those that pad short texts to 64 tokens as users do

    # Schedule
    total_steps: int = 1900
    warmup_steps: int = 60
    ema_decay: float = 0.995
    eval_every: int = 200
    save_every: int = 100
    validation_scenes: int = 300

    # Optimizers, as in the first stage, but slower
    muon_lr: float = 2.0e-3
    adam_lr: float = 1.5e-3
    weight_decay: float = 0.05
    max_grad_norm: float = 2.0
    bf16: bool = True

    # Losses
    region_scale: float = math.log(
        30.0
    )  # start of both region scales: 100, as released, is too sharp for a small model
    objective: dict[str, Any] = field(default_factory=lambda: dict(OBJECTIVE))
    objective_weight: float = 1.0
    global_weight: float = 1.0
    proxy_weight: float = 1.0
    region_weight: float = 0.4
    scene_weight: float = 0.5
    scene_proxy_weight: float = 0.5

    # Export
    start_share: float = 0.1  # of the first stage's weights in those that ship
    export_patches: int = 36

    @property
    def loss_weights(self) -> dict[str, float]:
        """By the names that `SceneTrainee.forward` gives."""
        return {
            "global": self.global_weight,
            "proxy": self.proxy_weight,
            "region_single": self.region_weight,
            "region_proxy": self.region_weight,
            "scene": self.scene_weight,
            "scene_proxy": self.scene_proxy_weight,
            "objective": self.objective_weight,
        }

    @property
    def first_stage(self) -> Settings:
        """How single drawings are made: as at the first stage's end, every third step on larger canvases."""
        return replace(
            Settings(),
            seed=self.seed,
            concepts_per_batch=self.concepts_per_batch,
            full_text_share=self.full_text_share,
            large_canvas_from=0,
            augmentation_ramp=1,
            decay_from=self.total_steps // 2,
            total_steps=self.total_steps,
        )


@dataclass(frozen=True)
class LanguageSettings:
    """Settings of the language stage: the text tower learns free wording while the image tower is locked."""

    seed: int = 0

    # Scenes
    num_chunks: int = 12  # of the scene stage's, the first ones

    # Batches
    scenes_per_batch: int = 64
    hard_regions_per_batch: int = 16
    labels_per_batch: int = 32  # names and keywords whose embeddings are kept
    grammar_share: float = 0.65  # of captions and region texts, those in the grammar's free wording
    # Of the words of these that have synonyms, those replaced; of those replaced, made-up ones. Each text draws a pair:
    # some have the composed captions' words only, some have none of them.
    word_shares: tuple[tuple[float, float], ...] = ((0.0, 0.0), (0.5, 0.4), (1.0, 0.3), (1.0, 0.8))
    whole_share: float = 0.5  # of these texts, those that say everything; the others say some objects and properties
    full_text_share: float = 0.2  # of the steps, those that pad region texts to 64 tokens as users do

    # Schedule
    total_steps: int = 1000
    warmup_steps: int = 50
    ema_decay: float = 0.99
    eval_every: int = 250
    save_every: int = 100
    validation_scenes: int = 300

    # Optimizers, as in the scene stage
    muon_lr: float = 2.0e-3
    adam_lr: float = 1.5e-3
    weight_decay: float = 0.05
    max_grad_norm: float = 2.0
    bf16: bool = False  # the text tower is small, and many CPUs only emulate it

    # Losses
    region_scale: float = math.log(30.0)  # start of both region scales
    objective: dict[str, Any] = field(default_factory=lambda: dict(OBJECTIVE))
    objective_weight: float = 1.0
    caption_distillation_weight: float = 20.0
    label_distillation_weight: float = 10.0

    # Export
    start_share: float = 0.1  # of the start's weights in those that ship
    export_patches: int = 36
    max_caption_tokens: int = 16  # of the automatic head, as `heads.py` has measured it

    @property
    def loss_weights(self) -> dict[str, float]:
        """By the names that `LanguageTrainee.forward` gives."""
        return {
            "objective": self.objective_weight,
            "caption_distillation": self.caption_distillation_weight,
            "label_distillation": self.label_distillation_weight,
        }


def lr_factor(settings: SceneSettings | LanguageSettings, step: int) -> float:
    """Learning rate at a step as a fraction of its peak: warm-up, then linear decay to zero."""
    return min(1.0, (step + 1) / settings.warmup_steps) * max(0.0, 1 - step / settings.total_steps)
