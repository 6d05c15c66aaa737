"""Registration of the models with transformers, so that its Auto classes and pipelines find them by themselves."""

from __future__ import annotations

import functools
import logging
from typing import Any

# Not the top-level name: some releases put a dummy there that asks for torchvision.
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForZeroShotImageClassification,
    PreTrainedTokenizerFast,
)
from transformers.image_processing_base import ImageProcessingMixin
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, AutoProcessor
from transformers.models.auto.tokenization_auto import AutoTokenizer
from transformers.pipelines.zero_shot_image_classification import ZeroShotImageClassificationPipeline

from .checks import environment_flag
from .modeling.auto import FAMILIES

logger = logging.getLogger("fgclip2")

_from_dict_of_transformers = ImageProcessingMixin.from_dict.__func__  # type: ignore[attr-defined]


@functools.cache
def register() -> None:
    """Make transformers' Auto classes and pipelines find this package's models, also in the official layout.

    Official folders of the first FG-CLIP say that they are CLIP, and stay that to transformers. The environment
    variable `FGCLIP2_NO_REGISTER=1` turns all this off.
    """
    if environment_flag("FGCLIP2_NO_REGISTER"):
        return
    for family in FAMILIES:
        if family.model_type in CONFIG_MAPPING:
            logger.warning(
                "transformers has a model '%s' of its own; its Auto classes now give that of the package fgclip2 "
                "(FGCLIP2_NO_REGISTER=1 leaves them as they are)",
                family.model_type,
            )
            # Processors are found by the names of their classes, and transformers looks among its own first.
            PROCESSOR_MAPPING_NAMES.pop(family.model_type, None)
        for model in (family.model, *family.towers):
            AutoConfig.register(model.config_class.model_type, model.config_class, exist_ok=True)
            AutoModel.register(model.config_class, model, exist_ok=True)
        # The official quick starts load the models by AutoModelForCausalLM.
        for auto_model in (AutoModelForCausalLM, AutoModelForZeroShotImageClassification):
            auto_model.register(family.config, family.model, exist_ok=True)
        image_processor, tokenizer = family.processor.image_processor_type, family.processor.tokenizer_type
        AutoImageProcessor.register(family.config, slow_image_processor_class=image_processor, exist_ok=True)
        AutoTokenizer.register(family.config, fast_tokenizer_class=tokenizer, exist_ok=True)
        AutoProcessor.register(family.config, family.processor, exist_ok=True)
    ZeroShotImageClassificationPipeline.__new__ = _new_zero_shot_pipeline  # type: ignore[method-assign]
    PreTrainedTokenizerFast.__new__ = _new_tokenizer  # type: ignore[method-assign]
    ImageProcessingMixin.from_dict = classmethod(_image_processor_from_dict)  # type: ignore[method-assign, assignment]


def _new_zero_shot_pipeline(cls: type, *args: Any, **kwargs: Any) -> Any:
    """Make transformers' zero-shot pipeline, as ours if it is for a model of ours.

    `pipeline()` chooses its class by the task alone. A class registered for the task would take the place of
    transformers' own for every other model too, and one named by a model's configuration is code of its folder, for
    which the user has to set `trust_remote_code`. So the class that transformers has chosen is asked here, when it
    already has the model: of other models nothing changes, and neither does the registry.
    """
    model_type = getattr(getattr(kwargs.get("model"), "config", None), "model_type", None)
    if cls is ZeroShotImageClassificationPipeline:
        cls = next((family.pipeline for family in FAMILIES if family.model_type == model_type and family.pipeline), cls)
    return object.__new__(cls)


def _names(settings: dict[str, Any], auto_class: str, cls: type) -> bool:
    """Return whether the settings of a folder say that its own code has a class `cls` for `auto_class`."""
    auto_map = settings.get("auto_map")
    named = auto_map.get(auto_class) if isinstance(auto_map, dict) else None
    # "file.Class", with "repository--" before it if it is from the hub, or a pair of these.
    return any(str(name).rpartition(".")[2] == cls.__name__ for name in (named if isinstance(named, list) else [named]))


def _new_tokenizer(cls: type, *args: Any, **kwargs: Any) -> Any:
    """Make a tokenizer, as ours where transformers' own is about to be made for a folder that has our code too.

    Exported folders name transformers' class, so that they can be read without their code and without this package,
    and Auto classes follow that name whatever is registered.
    """
    if cls is PreTrainedTokenizerFast:
        ours = (family.processor.tokenizer_type for family in FAMILIES)
        cls = next((tokenizer for tokenizer in ours if _names(kwargs, "AutoTokenizer", tokenizer)), cls)
    return object.__new__(cls)


def _image_processor_from_dict(cls: type, image_processor_dict: Any, **kwargs: Any) -> Any:
    """Make an image processor of a folder's settings, as ours where [`_new_tokenizer`] would."""
    for family in FAMILIES:
        ours = family.processor.image_processor_type
        if cls.__module__.startswith("transformers.") and _names(image_processor_dict, "AutoImageProcessor", ours):
            return ours.from_dict(image_processor_dict, **kwargs)
    return _from_dict_of_transformers(cls, image_processor_dict, **kwargs)
