"""Which family a checkpoint is of: one table, read by everything that opens a folder or a hub id."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import EntryNotFoundError
from transformers import PretrainedConfig

from .configuration_fgclip import OFFICIAL_MODEL_TYPE, FGClipConfig
from .configuration_fgclip2 import FGClip2Config
from .configuration_r2d2 import R2D2Config
from .modeling_fgclip import FGClipModel, FGClipTextModel, FGClipVisionModel
from .modeling_fgclip2 import FGClip2Model, FGClip2TextModel, FGClip2VisionModel
from .modeling_matching_fgclip2 import FGClip2ForImageTextMatching
from .modeling_r2d2 import R2D2Model, R2D2TextModel, R2D2VisionModel
from .pipeline_fgclip2 import FGClip2ZeroShotImageClassificationPipeline
from .processing_fgclip import FGClipProcessor
from .processing_fgclip2 import FGClip2Processor
from .processing_r2d2 import R2D2Processor
from .weights import INDEX, WEIGHTS, base_of_adapter, find_file, read_header, read_json_object


@dataclass(frozen=True)
class Family:
    """A model family of this package."""

    title: str  # as people write it
    model_type: str  # in config.json
    config: type[Any]
    model: type[Any]  # a DualEncoder
    processor: type[Any]  # its DualEncoderProcessor
    towers: tuple[type[Any], ...] = ()  # models of one tower each
    matching: type[Any] | None = None  # the model with a ranking stage beside the dual encoder
    pipeline: type[Any] | None = None  # of zero-shot image classification; `None`: transformers' own is right
    # What official folders say in place of `model_type`, as folders of other models do. They are told from these by
    # names of classes with `model_type` in them, or by a tensor that the others lack.
    official_model_type: str | None = None
    own_tensor: str = ""
    stage_tensor: str = ""  # of the ranking stage

    @property
    def with_ranking_stage(self) -> Family:
        """Return the family with its other model in place of the dual encoder."""
        assert self.matching is not None
        return replace(self, config=self.matching.config_class, model=self.matching, matching=None)


FAMILIES = (
    Family(
        "FG-CLIP 2",
        "fgclip2",
        FGClip2Config,
        FGClip2Model,
        FGClip2Processor,
        (FGClip2TextModel, FGClip2VisionModel),
        FGClip2ForImageTextMatching,
        FGClip2ZeroShotImageClassificationPipeline,
        stage_tensor="cross_encoder.head.weight",
    ),
    Family(
        "FG-CLIP",
        "fgclip",
        FGClipConfig,
        FGClipModel,
        FGClipProcessor,
        (FGClipTextModel, FGClipVisionModel),
        official_model_type=OFFICIAL_MODEL_TYPE,
        own_tensor="text_filip_projection.weight",
    ),
    Family("R2D2", "r2d2", R2D2Config, R2D2Model, R2D2Processor, (R2D2TextModel, R2D2VisionModel)),
)


def read_model_type(name: str | os.PathLike, **hub_arguments: Any) -> str | None:
    """Return the model type of a checkpoint, or of the base model of an adapter.

    It is what config.json says, but for official folders of a family that say what folders of other models say too.
    Of these on the hub, the header of the weights is fetched where the configuration leaves it open.

    Args:
        name: Folder or hub id.
        hub_arguments: `revision`, `token`, `cache_dir`, `local_files_only` or `subfolder`.

    Raises:
        OSError: There is no such checkpoint, or it has no config.json.
        ValueError: Its config.json, or the header of its weights, is damaged.
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
    classes = str([settings.get("architectures"), settings.get("auto_map")]).lower()
    for family in FAMILIES:
        says_so = model_type is not None and model_type == family.official_model_type
        if says_so and (family.model_type in classes or has_tensor(name, family.own_tensor, **hub_arguments)):
            return family.model_type
    return model_type


def has_tensor(source: str | os.PathLike, name: str, **hub_arguments: Any) -> bool:
    """Tell by headers whether a checkpoint has a tensor: of weights that are only on the hub, no more is fetched.

    Args:
        source, hub_arguments: As in [`read_model_type`].
        name: Name of the tensor.

    Raises:
        OSError: The hub can't be asked.
        ValueError: The header or the index of the weights is damaged.
    """
    weights = find_file(source, WEIGHTS, **{**hub_arguments, "local_files_only": True, "force_download": False})
    if weights is not None:
        return name in read_header(weights)
    index = find_file(source, INDEX, **hub_arguments)
    if index is not None:
        weight_map = read_json_object(index).get("weight_map")
        return isinstance(weight_map, dict) and name in weight_map
    if Path(source).is_dir() or constants.HF_HUB_OFFLINE or hub_arguments.get("local_files_only"):
        return False
    file = "/".join(filter(None, (hub_arguments.get("subfolder"), WEIGHTS)))
    options = {key: hub_arguments.get(key) for key in ("revision", "token")}
    try:
        return name in HfApi().parse_safetensors_file_metadata(str(source), file, **options).tensors
    except EntryNotFoundError:
        return False
    except Exception as error:  # of the HTTP library, which differs between releases of huggingface_hub
        raise OSError(f"can't read the header of {file} of {source} on the hub: {error}") from error


def find_family(name: str | os.PathLike, **hub_arguments: Any) -> Family | None:
    """Return the family of a checkpoint, or `None` if it is of none that this package has; see [`read_model_type`]."""
    model_type = read_model_type(name, **hub_arguments)
    return next((family for family in FAMILIES if family.model_type == model_type), None)


def has_ranking_stage(family: Family, source: str | os.PathLike, **hub_arguments: Any) -> bool:
    """Tell whether a checkpoint is of the family's model with a ranking stage: arguments as in [`read_model_type`]."""
    if family.matching is None:
        return False
    settings, _ = PretrainedConfig.get_config_dict(source, **hub_arguments)
    # The dual encoder of such a folder, saved by itself or trained, keeps the sizes of the stage that it has no more.
    return "cross_config" in settings and has_tensor(source, family.stage_tensor, **hub_arguments)
