"""Registration of the model with transformers, so that its Auto classes and pipelines find it by themselves."""

from __future__ import annotations

import functools
import logging
import os

# Not the top-level name: some releases put a dummy there that asks for torchvision.
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForZeroShotImageClassification
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.processing_auto import AutoProcessor
from transformers.models.auto.tokenization_auto import AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY

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
    if os.environ.get("FGCLIP2_NO_REGISTER", "0") not in ("", "0"):
        return
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
    # Not register_pipeline, which warns: for every other model the class does what the one that it replaces does.
    task = PIPELINE_REGISTRY.supported_tasks["zero-shot-image-classification"]
    task["impl"] = FGClip2ZeroShotImageClassificationPipeline
