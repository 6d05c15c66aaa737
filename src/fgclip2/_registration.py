"""Registration of the models with transformers, so that its Auto classes and pipelines find them by themselves."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
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


@functools.cache
def register() -> None:
    """Make transformers' Auto classes and pipelines find this package's models, also in the official layout.

    Official folders of the first FG-CLIP say that they are CLIP, and stay that to transformers. Folders that
    [`export_checkpoint`] wrote name classes of transformers beside ours: of these, ours are made, also where a class of
    transformers is asked for by its own name, e.g. `Siglip2ImageProcessor.from_pretrained(folder)`. The environment
    variable `FGCLIP2_NO_REGISTER=1` turns all this off.
    """
    if environment_flag("FGCLIP2_NO_REGISTER"):
        return
    for family in FAMILIES:
        if family.model_type in CONFIG_MAPPING and CONFIG_MAPPING[family.model_type] is not family.config:
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
    replace_once(ZeroShotImageClassificationPipeline, "__new__", new_zero_shot_pipeline)
    replace_once(PreTrainedTokenizerFast, "__new__", new_tokenizer)
    replace_once(ImageProcessingMixin, "from_dict", image_processor_from_dict)


def replace_once(owner: type, name: str, replacement: Callable[..., Any]) -> None:
    """Let `replacement(previous, cls, ...)` answer for a static or class method of a class of transformers.

    What others have put there is `previous`, and goes on to be called. Where a replacement of ours is there already,
    e.g. before this module was loaded again, it stays.
    """
    method = getattr(owner, name)
    previous = getattr(method, "__func__", method)
    if getattr(previous, "of_fgclip2", False):
        return

    @functools.wraps(previous)
    def replaced(cls: type, *args: Any, **kwargs: Any) -> Any:
        return replacement(previous, cls, *args, **kwargs)

    replaced.of_fgclip2 = True  # type: ignore[attr-defined]
    setattr(owner, name, staticmethod(replaced) if previous is method else classmethod(replaced))


def new_instance(previous: Callable[..., Any], cls: type, *args: Any, **kwargs: Any) -> Any:
    """Make an empty instance by what was `__new__` before; that of `object` takes no arguments."""
    return previous(cls) if previous is object.__new__ else previous(cls, *args, **kwargs)


def new_zero_shot_pipeline(previous: Callable[..., Any], cls: type, *args: Any, **kwargs: Any) -> Any:
    """Make transformers' zero-shot pipeline, as ours if it is for a model of ours.

    `pipeline()` chooses its class by the task alone. A class registered for the task would take the place of
    transformers' own for every other model too, and one named by a model's configuration is code of its folder, for
    which the user has to set `trust_remote_code`. So the class that transformers has chosen is asked here, when it
    already has the model: of other models nothing changes, and neither does the registry.
    """
    model_type = getattr(getattr(kwargs.get("model"), "config", None), "model_type", None)
    if cls is ZeroShotImageClassificationPipeline:
        cls = next((family.pipeline for family in FAMILIES if family.model_type == model_type and family.pipeline), cls)
    return new_instance(previous, cls, *args, **kwargs)


def code_of_folder_has(settings: dict[str, Any], auto_class: str, cls: type) -> bool:
    """Return whether the settings of a folder say that its own code has a class `cls` for `auto_class`."""
    auto_map = settings.get("auto_map")
    named = auto_map.get(auto_class) if isinstance(auto_map, dict) else None
    # "file.Class", with "repository--" before it if it is from the hub, or a pair of these.
    return any(str(name).rpartition(".")[2] == cls.__name__ for name in (named if isinstance(named, list) else [named]))


def new_tokenizer(previous: Callable[..., Any], cls: type, *args: Any, **kwargs: Any) -> Any:
    """Make a tokenizer, as ours where transformers' own is about to be made for a folder that has our code too.

    Exported folders name transformers' class, so that they can be read without their code and without this package,
    and Auto classes follow that name whatever is registered.
    """
    if cls is PreTrainedTokenizerFast:
        ours = (family.processor.tokenizer_type for family in FAMILIES)
        cls = next((known for known in ours if code_of_folder_has(kwargs, "AutoTokenizer", known)), cls)
    return new_instance(previous, cls, *args, **kwargs)


def image_processor_from_dict(
    previous: Callable[..., Any], cls: type, image_processor_dict: dict[str, Any], **kwargs: Any
) -> Any:
    """Make an image processor of a folder's settings, as ours where [`new_tokenizer`] would."""
    if cls.__module__.startswith("transformers."):
        for family in FAMILIES:
            ours = family.processor.image_processor_type
            if code_of_folder_has(image_processor_dict, "AutoImageProcessor", ours):
                return ours.from_dict(image_processor_dict, **kwargs)
    return previous(cls, image_processor_dict, **kwargs)
