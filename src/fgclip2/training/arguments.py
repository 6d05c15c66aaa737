"""Arguments of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from .objective import ObjectiveSettings


@dataclass
class FGClip2TrainingArguments(TrainingArguments):
    """transformers' `TrainingArguments` with those of the FG-CLIP 2 objective, its data and its parameters.

    Defaults are those of the published stage 2 where it has any (FG-CLIP 2, section 4; released scripts): AdamW with
    betas 0.9 and 0.98 and epsilon 1e-6, learning rate 1e-6, weight decay 0.001, cosine schedule with 3% warm-up.

    Args:
        objective: Preset of [`FGClip2Objective`]: `"released"` or `"paper"`.
        objective_settings: Fields of [`ObjectiveSettings`] that differ from the preset's, as a dict or JSON text.
        gradient_cache_chunk_size: Images in memory at once; the whole per-device batch still is the contrastive batch
            ([`cached_step`]). `None`: the plain step.
        language_batches: `"homogeneous"` (all ranks have one language at a time, as released) or `"mixed"`.
        max_num_patches: Patches per image: an integer, or `"auto"`, by its size; `None`: the processor's setting.
        max_regions: Regions per image and step.
        num_hard_negatives: Hard negatives per region.
        short_caption_prefix: Put before English short captions; the released scripts have `"a photo of "`.
        on_error: What to do about records and images that can't be used: `"raise"`, or `"skip"`, count and report.
        head_learning_rate: Of the heads, scales and bias; `None`: `learning_rate`.
        freeze: Modules or parameters, by their dotted names, that are not trained, e.g. `text_model`.
        freeze_vision_layers, freeze_text_layers: First encoder layers that are not trained, with the embeddings below.
        max_logit_scale: Upper bound of `logit_scale.exp()` and the region scales, kept after each step; `None`: none.
        ema_decay: Of a moving average of the weights, which is evaluated and saved at the end; `None`: none.
    """

    objective: str = field(default="released", metadata={"help": "released or paper"})
    objective_settings: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Settings that differ from the preset's, as JSON"}
    )
    gradient_cache_chunk_size: int | None = field(
        default=None, metadata={"help": "Images in memory at once; the contrastive batch stays the whole batch"}
    )
    language_batches: Literal["homogeneous", "mixed"] = field(
        default="homogeneous", metadata={"help": "homogeneous or mixed"}
    )
    max_num_patches: str | None = field(default=None, metadata={"help": "Patches per image, or auto"})
    max_regions: int = field(default=4, metadata={"help": "Regions per image and step"})
    num_hard_negatives: int = field(default=10, metadata={"help": "Hard negatives per region"})
    short_caption_prefix: str = field(default="", metadata={"help": "Put before English short captions"})
    on_error: Literal["raise", "skip"] = field(
        default="raise", metadata={"help": "raise, or skip and count unusable records and images"}
    )
    head_learning_rate: float | None = field(default=None, metadata={"help": "Of heads, scales and bias"})
    freeze: list[str] = field(default_factory=list, metadata={"help": "Modules that are not trained"})
    freeze_vision_layers: int = field(default=0, metadata={"help": "First vision layers that are not trained"})
    freeze_text_layers: int = field(default=0, metadata={"help": "First text layers that are not trained"})
    max_logit_scale: float | None = field(default=None, metadata={"help": "Upper bound of the scales' exponentials"})
    ema_decay: float | None = field(default=None, metadata={"help": "Of a moving average of the weights"})

    # Other defaults than transformers'.
    learning_rate: float = field(default=1e-6, metadata={"help": "Highest learning rate"})
    weight_decay: float = field(default=0.001, metadata={"help": "Of matrices"})
    adam_beta2: float = field(default=0.98, metadata={"help": "Second beta of AdamW"})
    adam_epsilon: float = field(default=1e-6, metadata={"help": "Epsilon of AdamW"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the learning rate"})
    warmup_steps: float = field(default=0.03, metadata={"help": "Steps, or below 1 their share of the run"})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Always: see FGClip2Trainer"})
    hub_strategy: str = field(default="end", metadata={"help": "Only end: checkpoints hold pickles"})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Never: records have no columns"})
    # Every trained parameter gets a gradient on every rank, so DDP need not look for those that don't.
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "Let DDP look for unused ones"})

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("language_batches", self.language_batches, ("homogeneous", "mixed"))
        _check_choice("on_error", self.on_error, ("raise", "skip"))
        for name in ("gradient_cache_chunk_size", "max_regions", "num_hard_negatives"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}; allowed: from 1 on")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay}; allowed: between 0 and 1, e.g. 0.999")
        if self.max_logit_scale is not None and not self.max_logit_scale > 0:
            raise ValueError(f"max_logit_scale={self.max_logit_scale}; allowed: positive, e.g. 100")
        if self.push_to_hub and self.hub_strategy != HubStrategy.END:
            strategy = HubStrategy(self.hub_strategy).value
            raise ValueError(f"hub_strategy={strategy!r}; allowed: 'end', for the state of a run has pickles")
        if self.save_only_model and self.ema_decay is not None and self.load_best_model_at_end:
            raise ValueError(
                "save_only_model leaves out the average that load_best_model_at_end would load; allowed: "
                "save_only_model=False, or no ema_decay"
            )
        if not self.dataloader_drop_last:
            raise ValueError("dataloader_drop_last=False; allowed: True, for a padded batch has false negatives")
        if self.objective_settings is not None and not isinstance(self.objective_settings, dict):
            raise ValueError(f"objective_settings={self.objective_settings!r}; allowed: a JSON object")
        self.objective_settings = _typed_settings(self.objective_settings or {})

    # transformers turns JSON text into a dict for the fields that it finds here.
    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "objective_settings"]

    @property
    def settings(self) -> dict[str, Any]:
        """`objective_settings`, which are a dict once these arguments exist."""
        assert isinstance(self.objective_settings, dict)
        return self.objective_settings

    @property
    def order_seed(self) -> int:
        """Of the order of records and of what is drawn from each."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def patch_budget(self) -> int | str | None:
        """`max_num_patches` as the processor takes it."""
        value = self.max_num_patches
        if value is None or value == "auto":
            return value
        if not str(value).isdecimal() or int(value) < 1:
            raise ValueError(f"max_num_patches={value!r}; allowed: 'auto' or a positive integer")
        return int(value)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}; allowed: {', '.join(map(repr, allowed))}")


def _typed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists where the settings have tuples."""
    known = {field.name for field in fields(ObjectiveSettings)}
    if unknown := sorted(set(settings) - known):
        raise ValueError(f"objective_settings has {', '.join(unknown)}; allowed: {', '.join(sorted(known))}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
