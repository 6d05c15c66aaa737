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
    total_steps: int = 5800
    large_canvas_from: int = 1200
    scenes_from: int = 900
    scenes_every: int = 3
    augmentation_ramp: int = 1200  # steps until drawings vary most and most backgrounds are photographs
    warmup_steps: int = 60
    decay_from: int = 3900  # the learning rate is constant before, and falls linearly to zero from here
    ema_decay: float = 0.995

    # Optimizers
    muon_lr: float = 4.5e-3
    adam_lr: float = 3e-3
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    bf16: bool = True  # autocast; on a CPU without bfloat16 instructions this is slower, not faster

    # Data made in advance
    num_scenes: int = 8000
    num_backgrounds: int = 9000

    # Loss weights
    global_weight: float = 1.0
    proxy_weight: float = 1.0
    region_weight: float = 0.4
    scene_weight: float = 0.5
    long_weight: float = 0.3

    eval_every: int = 400
    save_every: int = 200

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
    """Side in pixels of the canvases of single drawings: 64 first, for they cost the least, then more often 96."""
    if step < settings.large_canvas_from:
        return 80 if step % 8 == 7 else 64
    return 96 if step % (3 if step < settings.decay_from else 2) == 1 else 64


def lr_factor(settings: Settings, step: int) -> float:
    """Learning rate at a step as a fraction of its peak: warm-up, constant, linear decay."""
    warmup = min(1.0, (step + 1) / settings.warmup_steps)
    decay = min(1.0, (settings.total_steps - step) / (settings.total_steps - settings.decay_from))
    return warmup * max(decay, 0.0)


def plain_share(settings: Settings, step: int) -> float:
    """Share of single drawings on white or another plain colour, from more than half to 15%."""
    return 0.57 - 0.42 * min(1.0, step / settings.augmentation_ramp)


def augmentation_strength(settings: Settings, step: int) -> float:
    """How much drawings are varied, 0 to 1: rises at first, and falls a little while the learning rate does."""
    if step < settings.decay_from:
        return 0.3 + 0.45 * min(1.0, step / settings.augmentation_ramp)
    return 0.75 - 0.2 * (step - settings.decay_from) / (settings.total_steps - settings.decay_from)
