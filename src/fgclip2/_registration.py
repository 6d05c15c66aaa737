"""Registration of the model with transformers, so that its Auto classes and pipelines find it by themselves."""

from __future__ import annotations

import functools
import logging
from typing import Any

# Not the top-level name: some releases put a dummy there that asks for torchvision.
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForZeroShotImageClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, AutoProcessor
from transformers.models.auto.tokenization_auto import AutoTokenizer
from transformers.pipelines.zero_shot_image_classification import ZeroShotImageClassificationPipeline

from .checks import environment_flag
from .modeling.configuration_fgclip2 import FGClip2Config, FGClip2TextConfig, FGClip2VisionConfig
from .modeling.image_processing_fgclip2 import FGClip2ImageProcessor
from .modeling.modeling_fgclip2 import FGClip2Model, FGClip2TextModel, FGClip2VisionModel
from .modeling.pipeline_fgclip2 import FGClip2ZeroShotImageClassificationPipeline
from .modeling.processing_fgclip2 import FGClip2Processor
from .modeling.tokenization_fgclip2 import FGClip2Tokenizer

logger = logging.getLogger("fgclip2")


@functools.cache
def register() -> None:
    """Make transformers' Auto classes and pipelines find this model, also in folders in the official layout.

    The environment variable `FGCLIP2_NO_REGISTER=1` turns this off.
    """
    if environment_flag("FGCLIP2_NO_REGISTER"):
        return
    if FGClip2Config.model_type in CONFIG_MAPPING:
        logger.warning(
            "transformers has a model 'fgclip2' of its own; its Auto classes now give that of the package fgclip2 "
            "(FGCLIP2_NO_REGISTER=1 leaves them as they are)"
        )
        # Processors are found by the names of their classes, and transformers looks among its own first.
        PROCESSOR_MAPPING_NAMES.pop(FGClip2Config.model_type, None)
    for config, model in (
        (FGClip2Config, FGClip2Model),
        (FGClip2TextConfig, FGClip2TextModel),
        (FGClip2VisionConfig, FGClip2VisionModel),
    ):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, model, exist_ok=True)
    # The official quick start loads the model by AutoModelForCausalLM.
    for auto_model in (AutoModelForCausalLM, AutoModelForZeroShotImageClassification):
        auto_model.register(FGClip2Config, FGClip2Model, exist_ok=True)
    AutoImageProcessor.register(FGClip2Config, slow_image_processor_class=FGClip2ImageProcessor, exist_ok=True)
    AutoTokenizer.register(FGClip2Config, fast_tokenizer_class=FGClip2Tokenizer, exist_ok=True)
    AutoProcessor.register(FGClip2Config, FGClip2Processor, exist_ok=True)
    ZeroShotImageClassificationPipeline.__new__ = _new_zero_shot_pipeline  # type: ignore[method-assign]


def _new_zero_shot_pipeline(cls: type, *args: Any, **kwargs: Any) -> Any:
    """Make transformers' zero-shot pipeline, as ours if it is for a model of ours.

    `pipeline()` chooses its class by the task alone. A class registered for the task would take the place of
    transformers' own for every other model too, and one named by a model's configuration is code of its folder, for
    which the user has to set `trust_remote_code`. So the class that transformers has chosen is asked here, when it
    already has the model: of other models nothing changes, and neither does the registry.
    """
    model_type = getattr(getattr(kwargs.get("model"), "config", None), "model_type", None)
    if cls is ZeroShotImageClassificationPipeline and model_type == FGClip2Config.model_type:
        cls = FGClip2ZeroShotImageClassificationPipeline
    return object.__new__(cls)
