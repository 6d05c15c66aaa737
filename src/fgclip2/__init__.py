"""FG-CLIP 2: bilingual (Chinese/English) fine-grained image-text embeddings, regions and dense features.

Importing this package registers its classes with transformers' Auto classes and pipelines.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

# Not the top-level name: some releases put a dummy there that asks for torchvision.
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForZeroShotImageClassification
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.models.auto.processing_auto import AutoProcessor
from transformers.models.auto.tokenization_auto import AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY

from ._moved import keep_old_names
from .assets import embedded_checkpoint
from .modeling.configuration_fgclip2 import FGClip2Config, FGClip2TextConfig, FGClip2VisionConfig
from .modeling.image_processing_fgclip2 import FGClip2ImageProcessor
from .modeling.modeling_fgclip2 import FGClip2Model, FGClip2TextModel, FGClip2VisionModel
from .modeling.pipeline_fgclip2 import FGClip2ZeroShotImageClassificationPipeline
from .modeling.processing_fgclip2 import FGClip2Processor
from .modeling.tokenization_fgclip2 import FGClip2Tokenizer

if TYPE_CHECKING:
    from .embedding import FGClip2Embedder
    from .training import FGClip2Trainer, FGClip2TrainingArguments

__version__ = version("fgclip2")

# Loaded when first used: what they need is no part of plain embedding.
_LAZY = {
    "FGClip2Embedder": ".embedding",
    "FGClip2Trainer": ".training",
    "FGClip2TrainingArguments": ".training",
}

__all__ = [
    "FGClip2Config",
    "FGClip2Embedder",
    "FGClip2ImageProcessor",
    "FGClip2Model",
    "FGClip2Processor",
    "FGClip2TextConfig",
    "FGClip2TextModel",
    "FGClip2Tokenizer",
    "FGClip2Trainer",
    "FGClip2TrainingArguments",
    "FGClip2VisionConfig",
    "FGClip2VisionModel",
    "FGClip2ZeroShotImageClassificationPipeline",
    "__version__",
    "embedded_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def _register() -> None:
    """Make transformers' Auto classes and pipelines find this model, also in folders in the official layout."""
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


keep_old_names()
_register()
