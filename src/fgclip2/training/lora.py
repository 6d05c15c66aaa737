"""LoRA by PEFT: which modules to adapt, and an adapter folder that keeps all that was trained.

Low-rank matrices go to the encoders, the small heads are trained in full; both PEFT saves by itself. It does not train
or save bare parameters, which the scales and the bias of the logits are: [`FGClip2LoraModel`] and [`save_lora`] put
them into the same file, under the names that `PeftModel.from_pretrained` and transformers' `load_adapter` load.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel

from .._imports import require
from ..checks import check_choice
from ..files import replacing
from ..modeling.adapters import PREFIX, StrictLoraModel, adapter_folder, lora_config_of, scales_of
from ..modeling.auto import FAMILIES
from ..modeling.modeling_matching_fgclip2 import FGClip2ForImageTextMatching
from ..modeling.weights import ADAPTER_WEIGHTS, check_base_folder, shapes_of
from .card import base_name, check_base_is_public, write_card
from .tasks import FGClip2ForTraining, FGClipForTraining, family_to_train

require("peft", "train")  # for its message
from peft import LoraConfig, PeftConfig, PeftModel  # noqa: E402

# Families whose encoders have layers of the names below, and scales that adapters keep.
LORA_MODELS: dict[str, Any] = {"fgclip2": FGClip2ForTraining, "fgclip": FGClipForTraining}

# Full matches: layers of both encoders, never the pooling heads' layers of the same names.
TARGETS = {
    "attention": r"(.*\.)?encoder\.layers\.\d+\.self_attn\.(q|k|v|out)_proj",
    "attention_and_mlp": r"(.*\.)?encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])",
}


def lora_config(
    rank: int = 16,
    alpha: float = 32,
    dropout: float = 0.0,
    target: str = "attention_and_mlp",
    train_heads: bool = True,
    model_type: str = "fgclip2",
) -> LoraConfig:
    """Choose what is adapted and what is trained in full; also for PEFT's own `get_peft_model`.

    Args:
        rank: Rank of the matrices.
        alpha: The matrices' product is multiplied by `alpha / rank`.
        dropout: Dropout probability applied to the input of the matrices, in [0, 1).
        target: `"attention_and_mlp"` or `"attention"` of both encoders' layers; PEFT's `"all-linear"`; or a regular
            expression that the whole name of a module has to match.
        train_heads: Train the heads in full and save them beside the matrices. They weigh more than these.
        model_type: Family of the model, whose heads these are: `"fgclip2"` or `"fgclip"`, as in its config.json.

    Raises:
        ValueError: A number is out of its range, or there is no such family.

    Example:
        >>> model = get_peft_model(FGClip2Model.from_pretrained(path), lora_config(rank=8))
    """
    check_choice("`model_type` of a model with LoRA", model_type, LORA_MODELS)
    if rank < 1:
        raise ValueError(f"`rank` must be 1 or more, got {rank}")
    if alpha <= 0:
        raise ValueError(f"`alpha` must be above 0, got {alpha}")
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must be 0 or more, and below 1, got {dropout}")
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # any number works
        lora_dropout=dropout,
        target_modules=TARGETS.get(target, target),
        modules_to_save=list(LORA_MODELS[model_type].heads) if train_heads else None,
    )


class FGClip2LoraModel(StrictLoraModel):
    """A PEFT model that also trains, saves and loads the scales and the bias of the logits.

    It has one adapter, for there is one set of scales. Folders without safetensors, and adapters that do not fit the
    model wholly, are refused, where PEFT warns or says nothing.
    """

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Push as PEFT does, the scales beside the adapter and with our card.

        Raises:
            ValueError: The base model is a folder of this machine, which nobody else could load the adapter on.
        """
        check_base_is_public(self)
        return super().push_to_hub(*args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:  # type: ignore[override]
        """Save as PEFT does, the scales beside the adapter. Arguments as in `PeftModel`."""
        save_lora(self, save_directory, **kwargs)


def add_lora(model: PreTrainedModel, config: LoraConfig | None = None) -> FGClip2LoraModel:
    """Freeze a model and give it, in place, matrices to train; its heads, scales and bias are trained too.

    Args:
        model: A model of this package, or one in training.
        config: By default [`lora_config`] of its family.

    Raises:
        ValueError: It is not a model of this package, has a ranking stage or an adapter already, or the target matches
            nothing.
    """
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    if not isinstance(model, PreTrainedModel) or model_type not in LORA_MODELS:
        raise ValueError(f"model is {type(model).__name__}; allowed: an FGClip2Model or FGClipModel without adapters")
    if isinstance(model, FGClip2ForImageTextMatching):
        raise ValueError(
            f"model is {type(model).__name__}, whose ranking stage is trained in full, on frozen towers; allowed: an "
            "FGClip2Model or FGClipModel"
        )
    if any("lora_" in name for name, _ in model.named_parameters()):
        raise ValueError("the model has an adapter already; merge it first: model.merge_and_unload()")
    return FGClip2LoraModel(model, config or lora_config(model_type=model_type))


def train_scales(model: nn.Module) -> FGClip2LoraModel:
    """Let what PEFT's `get_peft_model` returns train, save and load the scales too, as [`add_lora`] has it, in place.

    Raises:
        ValueError: It does not wrap a training model, e.g. [`FGClip2ForTraining`].
    """
    if isinstance(model, FGClip2LoraModel):
        return model
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(model, PeftModel) or not isinstance(base, tuple(LORA_MODELS.values())):
        allowed = " or ".join(training_class.__name__ for training_class in LORA_MODELS.values())
        raise ValueError(f"PEFT wraps a {type(base).__name__}; allowed: an {allowed}")
    # Its methods are all that differs, and PEFT has no hook for them.
    model.__class__ = FGClip2LoraModel
    for parameter in scales_of(model).values():
        parameter.requires_grad_(True)
    return cast(FGClip2LoraModel, model)


def save_lora(
    model: PeftModel,
    folder: str | os.PathLike,
    data: Sequence[str] = (),
    license: str = "apache-2.0",
    **kwargs: Any,
) -> Path:
    """Save the adapter of a PEFT model of this package's and, in the same file, the scales and the bias of the logits.

    Args:
        model: From [`add_lora`] or from PEFT's `get_peft_model`.
        folder: Where to write. It gets a card (README.md), unless it has one.
        data: Names of the data sets, for the card.
        license: Licence of the weights, for the card: an identifier of the hub.
        kwargs: Arguments of `PeftModel.save_pretrained`.

    Returns:
        The folder of the adapter: `folder`, or one in it if the adapter is not named `default`, as PEFT has it.

    Raises:
        ValueError: The model has several adapters, or a pickle is asked for.
    """
    if len(model.peft_config) > 1:
        raise ValueError(
            f"the model has the adapters {list(model.peft_config)}, but only the scales of one; allowed: one adapter"
        )
    if not kwargs.get("safe_serialization", True):
        raise ValueError("safe_serialization=False would write a pickle; allowed: safetensors")
    (name,) = model.peft_config
    if kwargs.get("is_main_process", True):
        Path(folder).mkdir(parents=True, exist_ok=True)
        base: Any = model.get_base_model()
        write_card(folder, base_name(model), True, data, license, base.config.model_type)
        card = (Path(folder) / "README.md").read_bytes()
    PeftModel.save_pretrained(model, str(folder), **kwargs)
    written = Path(folder) if name == "default" else Path(folder) / name
    if kwargs.get("is_main_process", True):
        (Path(folder) / "README.md").write_bytes(card)  # PEFT writes the path of the base model into it
        # A trainer passes the whole state where each process has but a part of it.
        state = kwargs.get("state_dict") or {PREFIX + name: value for name, value in scales_of(model).items()}
        file = written / ADAPTER_WEIGHTS
        tensors = load_file(file)
        # As checkpoints have them, whatever their shape in training: transformers' loaders take no other.
        plain_model = next(family.model for family in FAMILIES if family.model_type == base.config.model_type)
        shapes = shapes_of(lambda: plain_model(base.config))
        for name in scales_of(model):
            value = state[PREFIX + name].detach().cpu().clone()
            tensors[PREFIX + name] = value.reshape(shapes.get(name, value.shape))
        with replacing(file) as unfinished:
            save_file(tensors, unfinished, {"format": "pt"})
    return written


def load_lora(
    folder: str | os.PathLike,
    base: PreTrainedModel | str | os.PathLike | None = None,
    trainable: bool = False,
    revision: str | None = None,
) -> FGClip2LoraModel:
    """Load an adapter, with its heads, scales and bias, on the model that it was trained on.

    Args:
        folder: A folder or hub id of an adapter.
        base: The model (changed in place), its folder or hub id; by default the one that the adapter names. One that is
            loaded here is loaded in float32.
        trainable: To train it further; a base that is loaded here is then the family's training model.
        revision: Branch, tag or commit of the adapter on the hub.

    Raises:
        ValueError: The folder has no safetensors, another kind of adapter, or one for another model; or no base model
            is named, or one of no family that can be trained.
    """
    path = adapter_folder(folder, revision=revision)
    config = lora_config_of(path, folder)
    if isinstance(base, PreTrainedModel):
        model = base
    else:
        name, base_revision = (_named_base(config, folder), config.revision) if base is None else (base, None)
        family = family_to_train(name, base_revision)
        model_class = LORA_MODELS[family.model_type] if trainable else family.model
        model = model_class.from_pretrained(name, revision=base_revision or "main", dtype=torch.float32)
    return FGClip2LoraModel.from_pretrained(model, str(path), config=config, is_trainable=trainable)  # type: ignore[return-value]


def read_config(folder: str | os.PathLike, revision: str | None = None) -> PeftConfig:
    """Configuration of an adapter, to make a new one on the base model that it names.

    Raises:
        ValueError: As [`load_lora`].
    """
    config = lora_config_of(adapter_folder(folder, revision=revision), folder)
    _named_base(config, folder)
    config.inference_mode = False
    return config


def _named_base(config: PeftConfig, name: str | os.PathLike) -> str:
    if not config.base_model_name_or_path:
        raise ValueError(f"{name} names no base model; pass base=")
    check_base_folder(name, config.base_model_name_or_path)
    return config.base_model_name_or_path


def merge_lora(folder: str | os.PathLike, base: PreTrainedModel | str | os.PathLike | None = None) -> PreTrainedModel:
    """Add an adapter's matrices to the weights, which gives a plain model.

    Arguments and errors are those of [`load_lora`]; weights that come out as NaN or infinite are a `ValueError` too.
    Merged in a narrower type than float32, outputs differ by its rounding.

    Example:
        >>> merge_lora("adapter").save_pretrained("merged")
    """
    return load_lora(folder, base).merge_and_unload(safe_merge=True)
