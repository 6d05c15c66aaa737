"""Every number of the recipe, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Settings of one training run; steps are optimizer steps."""

    seed: int = 0

    # Model: 16-pixel patches, so that the image processor's rules hold; widths are what two CPU cores train in an hour.
    vocab_size: int = 6000
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 2
    vision_width: int = 192
    vision_layers: int = 4
    vision_heads: int = 6
    position_grid: int = 8  # side of the position table
    export_patches: int = 36  # the exported image processor's budget: 96 x 96 pixels for a square picture

    # Batches: each concept comes as two drawings by different artists and one text.
    concepts_per_batch: int = 128
    region_images: int = 64  # of the single drawings, how many also teach the dense head
    scenes_per_batch: int = 16
    short_text_length: int = 16  # holds every training text, and saves time
    full_text_share: float = 0.2  # of the steps, those that pad to 64 tokens as users do

    # Schedule: small canvases first, for they cost the least; scenes and some larger canvases later.
    total_steps: int = 3400
    large_canvas_from: int = 2000
    scenes_from: int = 1000
    background_ramp: int = 2000  # steps until most backgrounds are photographs
    warmup_steps: int = 60
    decay_from: int = 1750  # the learning rate is constant before, and falls linearly to zero from here
    ema_decay: float = 0.995

    # Optimizers
    muon_lr: float = 4.5e-3
    adam_lr: float = 3e-3
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0

    # Data made in advance
    num_scenes: int = 8000
    num_backgrounds: int = 9000

    # Loss weights
    global_weight: float = 1.0
    proxy_weight: float = 1.0
    region_weight: float = 0.4
    scene_weight: float = 0.5
    long_weight: float = 0.3

    eval_every: int = 250
    save_every: int = 250

    @property
    def loss_weights(self) -> dict[str, float]:
        """By the names that `Trainee.forward` gives."""
        return {
            "global": self.global_weight,
            "proxy": self.proxy_weight,
            "region": self.region_weight,
            "region_proxy": self.region_weight,
            "scene": self.scene_weight,
            "scene_proxy": self.scene_weight,
            "long": self.long_weight,
        }


def canvas_side(settings: Settings, step: int) -> int:
    """Side in pixels of the canvases of single drawings at a step: 64 mostly, for they cost the least."""
    if step < settings.large_canvas_from:
        return (64, 64, 64, 64, 64, 64, 64, 80)[step % 8]
    return (64, 64, 64, 64, 64, 64, 64, 96)[step % 8]


def lr_factor(settings: Settings, step: int) -> float:
    """Learning rate at a step as a fraction of its peak: warm-up, constant, linear decay."""
    warmup = min(1.0, (step + 1) / settings.warmup_steps)
    decay = min(1.0, (settings.total_steps - step) / (settings.total_steps - settings.decay_from))
    return warmup * max(decay, 0.0)


def plain_share(settings: Settings, step: int) -> float:
    """Share of single drawings on white or another plain colour, from more than half to a fifth."""
    return 0.57 - 0.42 * min(1.0, step / settings.background_ramp)


def augmentation_strength(settings: Settings, step: int) -> float:
    """How much drawings are varied, 0 to 1: rises while the learning rate is constant, and falls to 0.45 with it."""
    rising = 0.3 + 0.7 * min(1.0, step / settings.background_ramp)
    if step < settings.decay_from:
        return rising
    peak = 0.3 + 0.7 * min(1.0, settings.decay_from / settings.background_ramp)
    return peak + (0.45 - peak) * (step - settings.decay_from) / (settings.total_steps - settings.decay_from)
