"""Which family a checkpoint is of: one table, read by everything that opens a folder or a hub id."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from .configuration_fgclip import OFFICIAL_MODEL_TYPE, FGClipConfig
from .configuration_fgclip2 import FGClip2Config
from .modeling_fgclip2 import FGClip2Model
from .processing_fgclip2 import FGClip2Processor
from .weights import base_of_adapter


@dataclass(frozen=True)
class Family:
    """A model family of this package."""

    title: str  # as people write it
    model_type: str  # in config.json
    config: type[Any]
    model: type[Any]  # a DualEncoder
    processor: type[Any]  # its DualEncoderProcessor


FAMILIES = (Family("FG-CLIP 2", "fgclip2", FGClip2Config, FGClip2Model, FGClip2Processor),)


def read_model_type(name: str | os.PathLike, **hub_arguments: Any) -> str | None:
    """Return the model type that a checkpoint, or the base model of an adapter, names in its config.json.

    Args:
        name: Folder or hub id.
        hub_arguments: `revision`, `token`, `cache_dir`, `local_files_only` or `subfolder`.

    Raises:
        OSError: There is no such checkpoint, or it has no config.json.
        ValueError: Its config.json is damaged, or it is a checkpoint of the first FG-CLIP.
    """
    base = base_of_adapter(name, **hub_arguments)
    if base is not None:
        name, revision = base
        hub_arguments = {**hub_arguments, "revision": revision or "main"}
        hub_arguments.pop("subfolder", None)  # that of the adapter
    try:
        # Not AutoConfig, which would want to run code of folders that name some.
        settings, _ = PretrainedConfig.get_config_dict(name, **hub_arguments)
        model_type = settings.get("model_type")
    except (AttributeError, TypeError, RecursionError) as error:  # what transformers makes of JSON that is no object
        raise ValueError(f"the config.json of {name} is not a JSON object of settings: get it again") from error
    if not settings:
        raise OSError(f"{name} has no config.json, so it is no checkpoint: give the folder that has one")
    # Official ones call themselves CLIP, as which they run without an error, on images that are cut, not squashed.
    names = str([settings.get("architectures"), settings.get("auto_map")]).lower()
    if model_type == FGClipConfig.model_type or (model_type == OFFICIAL_MODEL_TYPE and "fgclip" in names):
        raise ValueError(
            f"{name} is a checkpoint of FG-CLIP, the first version, which this package does not support here: load it "
            "by FGClipModel.from_pretrained and FGClipProcessor.from_pretrained, or use a checkpoint of FG-CLIP 2"
        )
    return model_type


def find_family(name: str | os.PathLike, **hub_arguments: Any) -> Family | None:
    """Return the family of a checkpoint, or `None` if it is of none that this package has; see [`read_model_type`]."""
    model_type = read_model_type(name, **hub_arguments)
    return next((family for family in FAMILIES if family.model_type == model_type), None)
