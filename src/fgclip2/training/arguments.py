"""Arguments of a training run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from accelerate.utils.deepspeed import HfDeepSpeedConfig
from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy

from ..checks import check_choice, check_positive_integer, is_number
from ..data.sampling import check_language_shares
from .augmentation import AUGMENTATIONS, Augmentation
from .estimates import Strategy
from .hub_checkpoints import STRATEGIES
from .reporting import check_reporting
from .sampler import PATCH_BATCHES, PatchBatches


@dataclass
class FGClip2TrainingArguments(TrainingArguments):
    """transformers' `TrainingArguments` with those of the objective, its data and its parameters.

    Defaults are those of FG-CLIP 2's published stage 2 where it has any (section 4; released scripts): AdamW with
    betas 0.9 and 0.98 and epsilon 1e-6, learning rate 1e-6, weight decay 0.001, cosine schedule with 3% warm-up.

    Args:
        objective: Preset of the objective: `"released"`, `"paper"` or `"fgclip"` of [`FGClip2Objective`], `"ranking"`
            of FG-CLIP 2's ranking stage, `"retrieval"` or `"matching"` of R2D2, `"after-r2d2"` after its description;
            `None`: that of the model's family, `"released"` for FG-CLIP 2, `"fgclip"` for the first version and
            `"retrieval"` for R2D2.
        objective_settings: Fields of [`ObjectiveSettings`] that differ from the preset's; or `{"negatives": ...,
            "hard_text_weight": ...}` for `"ranking"`, `{"candidates": ...}` for `"retrieval"`, `{"form": ...}` of
            [`matching_loss`] for `"matching"`, fields of [`AfterR2D2Settings`] for `"after-r2d2"`; as a dict or JSON
            text.
        gradient_cache_chunk_size: Images in memory at once; the whole per-device batch still is the contrastive batch
            ([`cached_step`]). `None`: the plain step.
        text_chunk_size: Texts that are encoded at once, and again for the gradient, so that activations of no others
            are in memory; 0: all at once. `None`: `fgclip2 train` chooses by its plan where a step does not fit the
            device; the trainer by itself takes all.
        device_memory: GiB that the plan has; `None`: those of the device, if there is an accelerator.
        language_batches: `"homogeneous"` (all ranks have one language at a time, as released) or `"mixed"`.
        language_shares: Share of each language in an epoch, as a dict or JSON text, e.g. `{"en": 0.5, "zh": 0.5}`: of
            its batches, or with `"mixed"` of its records. `None`: as the data has them.
        patch_batches: `"any"` (as released), or `"alike"`: images of about as many patches share a batch, by the
            sizes that records state, else by the headers of their files: all at the start, or of shards as they come.
        max_num_patches: Patches per image: an integer, or `"auto"`, by its size; `None`: the processor's setting, the
            only choice for families whose images are squares of one size.
        patch_dropout: Share of the patches of each image that its embedding does without in training, e.g. 0.5
            ([`draw_kept_patches`]); goes with captions alone.
        max_regions: Regions per image and step.
        num_hard_negatives: Hard negatives per region.
        image_augmentation: `"none"`; or, of pairs (R2D2), random crops, flips and colours: `"r2d2"` flips no image
            whose caption speaks of left or right, `"r2d2-released"` flips these too ([`augment`]).
        short_caption_prefix: Put before English short captions; the released scripts have `"a photo of "`.
        on_error: What to do about records and images that can't be used: `"raise"`, or `"skip"`, count and report.
        head_learning_rate: Learning rate of the heads, scales and bias; `None`: `learning_rate`.
        layer_decay: Layer-wise decay of the learning rate: each encoder layer has that of the one above it, times this,
            and the embeddings that of the first layer, times this; heads have `learning_rate` itself. `None`: none.
        freeze: Modules or parameters, by their dotted names, that are not trained, e.g. `text_model`.
        freeze_vision_layers, freeze_text_layers: First encoder layers that are not trained, with the embeddings below.
        max_logit_scale: Upper bound of `logit_scale.exp()` and the region scales, kept after each step; `None`: none.
        resume_revision: Branch, tag or commit of `resume_from_checkpoint`, where that is on the hub
            ([`fetch_checkpoint`]).
        ema_decay: Decay of a moving average of the weights, which is evaluated and saved at the end; `None`: none.
    """

    objective: str | None = field(
        default=None,
        metadata={
            "help": "Preset of the objective: released, paper or fgclip; ranking for FG-CLIP 2's ranking stage; "
            "retrieval, matching or after-r2d2 for R2D2; by default that of the model's family"
        },
    )
    objective_settings: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Settings of the objective that differ from the preset's, as JSON"}
    )
    gradient_cache_chunk_size: int | None = field(
        default=None,
        metadata={"help": "Images in memory at once; the contrastive batch stays the whole batch"},
    )
    text_chunk_size: int | None = field(
        default=None,
        metadata={"help": "Texts that are encoded at once, or 0 for all; by default chosen where a step doesn't fit"},
    )
    device_memory: float | None = field(
        default=None, metadata={"help": "GiB of memory of the device, for the plan; by default as it has"}
    )
    language_batches: Literal["homogeneous", "mixed"] = field(
        default="homogeneous", metadata={"help": "Languages of a batch: homogeneous (one at a time) or mixed"}
    )
    language_shares: dict[str, float] | str | None = field(
        default=None,
        metadata={"help": 'Shares of languages, as {"en": 0.5, "zh": 0.5}'},
    )
    patch_batches: PatchBatches = field(
        default="any",
        metadata={"help": "Images of a batch: any, or alike in their patches"},
    )
    max_num_patches: str | None = field(default=None, metadata={"help": "Patches per image, or auto, by its size"})
    patch_dropout: float = field(default=0.0, metadata={"help": "Share of patches that training does not see"})
    max_regions: int = field(default=4, metadata={"help": "Number of regions per image and step"})
    num_hard_negatives: int = field(default=10, metadata={"help": "Number of hard negatives per region"})
    image_augmentation: Augmentation = field(
        default="none",
        metadata={"help": "Random crops, flips and colours, for R2D2: none, r2d2 or r2d2-released"},
    )
    short_caption_prefix: str = field(default="", metadata={"help": "Text to put before English short captions"})
    on_error: Literal["raise", "skip"] = field(
        default="raise",
        metadata={"help": "What to do about unusable records and images: raise, or skip and count"},
    )
    head_learning_rate: float | None = field(default=None, metadata={"help": "Learning rate of heads, scales and bias"})
    layer_decay: float | None = field(
        default=None, metadata={"help": "Factor of the learning rate from each encoder layer to the one below"}
    )
    freeze: list[str] = field(default_factory=list, metadata={"help": "Modules or parameters that are not trained"})
    freeze_vision_layers: int = field(default=0, metadata={"help": "First vision layers that are not trained"})
    freeze_text_layers: int = field(default=0, metadata={"help": "First text layers that are not trained"})
    max_logit_scale: float | None = field(default=None, metadata={"help": "Upper bound of the scales' exponentials"})
    resume_revision: str | None = field(
        default=None, metadata={"help": "Revision of resume_from_checkpoint on the hub"}
    )
    ema_decay: float | None = field(default=None, metadata={"help": "Decay of a moving average of the weights"})

    # Other defaults than transformers'.
    learning_rate: float = field(default=1e-6, metadata={"help": "Highest learning rate"})
    weight_decay: float = field(default=0.001, metadata={"help": "Weight decay of matrices"})
    adam_beta2: float = field(default=0.98, metadata={"help": "Second beta of AdamW"})
    adam_epsilon: float = field(default=1e-6, metadata={"help": "Epsilon of AdamW"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the learning rate"})
    warmup_steps: float = field(default=0.03, metadata={"help": "Steps of warm-up, or below 1 their share of the run"})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Leave out what fills no batch; always true"})
    hub_strategy: str = field(
        default="end",
        metadata={"help": "What to publish: end (only the finished model), checkpoint or all_checkpoints"},
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Has no effect: records have no columns"})
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "Has no effect: a loss that is not finite stops the run"}
    )
    # Every trained parameter gets a gradient on every rank, so DDP need not look for those that don't.
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "Let DDP look for unused ones"})

    def __post_init__(self) -> None:
        # Releases of transformers that have the new name, `activation_checkpointing`, warn of the one that all have.
        for setting in ("checkpointing", "checkpointing_kwargs"):
            if getattr(self, f"activation_{setting}", "") is None:
                setattr(self, f"activation_{setting}", getattr(self, f"gradient_{setting}"))
        super().__post_init__()
        check_choice("`language_batches`", self.language_batches, ("homogeneous", "mixed"))
        check_choice("`patch_batches`", self.patch_batches, PATCH_BATCHES)
        check_choice("`image_augmentation`", self.image_augmentation, AUGMENTATIONS)
        check_choice("`on_error`", self.on_error, ("raise", "skip"))
        if self.language_shares is not None:
            check_language_shares(self.language_shares)
        for name in ("gradient_cache_chunk_size", "max_regions", "num_hard_negatives"):
            if getattr(self, name) is not None:
                check_positive_integer(f"`{name}`", getattr(self, name))
        if self.text_chunk_size is not None and self.text_chunk_size < 0:
            raise ValueError(f"`text_chunk_size` must be 0 or a positive integer, got {self.text_chunk_size!r}")
        if self.device_memory is not None and not self.device_memory > 0:
            raise ValueError(f"`device_memory` must be positive, e.g. 80, got {self.device_memory!r}")
        if not is_number(self.patch_dropout) or not 0 <= self.patch_dropout < 1:
            raise ValueError(f"`patch_dropout` must be 0 or more, and below 1, e.g. 0.5, got {self.patch_dropout!r}")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"`ema_decay` must be between 0 and 1, e.g. 0.999, got {self.ema_decay!r}")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"`layer_decay` must be above 0 and at most 1, e.g. 0.75, got {self.layer_decay!r}")
        if self.max_logit_scale is not None and not self.max_logit_scale > 0:
            raise ValueError(f"`max_logit_scale` must be positive, e.g. 100, got {self.max_logit_scale!r}")
        check_reporting(self)
        if self.push_to_hub and self.hub_strategy not in STRATEGIES:
            strategy = HubStrategy(self.hub_strategy).value
            raise ValueError(
                f"`hub_strategy` must be 'end', 'checkpoint' or 'all_checkpoints', for only finished models and whole "
                f"checkpoints are published, got {strategy!r}"
            )
        if self.push_to_hub and self.hub_strategy != HubStrategy.END and self.save_only_model:
            raise ValueError(
                "save_only_model leaves out what a run goes on with, but `hub_strategy` pushes checkpoints to go on "
                "from: set save_only_model to False, or hub_strategy to 'end'"
            )
        if self.save_only_model and self.ema_decay is not None and self.load_best_model_at_end:
            raise ValueError(
                "save_only_model leaves out the average that load_best_model_at_end would load: set save_only_model to "
                "False, or ema_decay to None"
            )
        if not self.dataloader_drop_last:
            raise ValueError(
                "`dataloader_drop_last` must be True, got False: a padded batch would have false negatives"
            )
        settings = self.objective_settings or {}
        if not isinstance(settings, dict):
            raise ValueError(f"`objective_settings` must be a dict or a JSON object, got {settings!r}")
        # JSON has lists where the settings have tuples.
        self.objective_settings = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }

    # transformers turns JSON text into a dict for the fields that it finds here.
    _VALID_DICT_FIELDS = [*TrainingArguments._VALID_DICT_FIELDS, "objective_settings", "language_shares"]

    @property
    def settings(self) -> dict[str, Any]:
        """Return `objective_settings`, which are a dict once these arguments exist."""
        assert isinstance(self.objective_settings, dict)
        return self.objective_settings

    @property
    def shares_of_languages(self) -> dict[str, float] | None:
        """Return `language_shares`, which are a dict or `None` once these arguments exist."""
        assert not isinstance(self.language_shares, str)
        return self.language_shares

    @property
    def strategy(self) -> Strategy:
        """Return how weights are divided over processes, by these arguments or by what `accelerate launch` has set."""
        if self.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
            return "zero2"
        if self.fsdp or os.environ.get("ACCELERATE_USE_FSDP") == "true":
            return "fsdp"
        return "ddp"

    @property
    def zero_optimization(self) -> dict[str, Any]:
        """Return what DeepSpeed's configuration has under this name, by these arguments or by `accelerate launch`."""
        source = self.deepspeed or os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")  # as accelerate has it
        return {} if source == "none" else HfDeepSpeedConfig(source).get_value("zero_optimization", {})

    @property
    def order_seed(self) -> int:
        """Return the seed of the order of records and of what is drawn from each."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def patch_budget(self) -> int | str | None:
        """Return `max_num_patches` as the processor takes it."""
        value = self.max_num_patches
        if value is None or value == "auto":
            return value
        if not str(value).isdecimal() or int(value) < 1:
            raise ValueError(f"`max_num_patches` must be 'auto' or a positive integer, got {value!r}")
        return int(value)
