"""FG-CLIP 2: bilingual (Chinese/English) fine-grained image-text embeddings, regions and dense features.

Importing this package registers its classes with transformers' Auto classes and pipelines, unless the environment
variable `FGCLIP2_NO_REGISTER=1` is set.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._moved import keep_old_names

if TYPE_CHECKING:
    from .assets import embedded_checkpoint
    from .embedding import Embedder, FGClip2Embedder
    from .modeling.configuration_fgclip import FGClipConfig, FGClipTextConfig, FGClipVisionConfig
    from .modeling.configuration_fgclip2 import FGClip2Config, FGClip2TextConfig, FGClip2VisionConfig
    from .modeling.configuration_matching_fgclip2 import FGClip2CrossConfig, FGClip2MatchingConfig
    from .modeling.configuration_r2d2 import R2D2Config, R2D2CrossConfig, R2D2TextConfig, R2D2VisionConfig
    from .modeling.image_processing_fgclip import FGClipImageProcessor
    from .modeling.image_processing_fgclip2 import FGClip2ImageProcessor
    from .modeling.image_processing_r2d2 import R2D2ImageProcessor
    from .modeling.modeling_fgclip import FGClipModel, FGClipTextModel, FGClipVisionModel
    from .modeling.modeling_fgclip2 import FGClip2Model, FGClip2TextModel, FGClip2VisionModel
    from .modeling.modeling_matching_fgclip2 import FGClip2ForImageTextMatching
    from .modeling.modeling_r2d2 import R2D2Model, R2D2TextModel, R2D2VisionModel
    from .modeling.pipeline_fgclip2 import FGClip2ZeroShotImageClassificationPipeline
    from .modeling.processing_fgclip import FGClipProcessor
    from .modeling.processing_fgclip2 import FGClip2Processor
    from .modeling.processing_r2d2 import R2D2Processor
    from .modeling.tokenization_fgclip import FGClipTokenizer
    from .modeling.tokenization_fgclip2 import FGClip2Tokenizer
    from .modeling.tokenization_r2d2 import R2D2Tokenizer
    from .training import FGClip2Trainer, FGClip2TrainingArguments

    __version__: str

# Each public name and its home, which is imported when the name is first used.
_HOMES = {
    "FGClip2Config": ".modeling.configuration_fgclip2",
    "FGClip2CrossConfig": ".modeling.configuration_matching_fgclip2",
    "Embedder": ".embedding",
    "FGClip2Embedder": ".embedding",
    "FGClip2ForImageTextMatching": ".modeling.modeling_matching_fgclip2",
    "FGClip2ImageProcessor": ".modeling.image_processing_fgclip2",
    "FGClip2MatchingConfig": ".modeling.configuration_matching_fgclip2",
    "FGClip2Model": ".modeling.modeling_fgclip2",
    "FGClip2Processor": ".modeling.processing_fgclip2",
    "FGClip2TextConfig": ".modeling.configuration_fgclip2",
    "FGClip2TextModel": ".modeling.modeling_fgclip2",
    "FGClip2Tokenizer": ".modeling.tokenization_fgclip2",
    "FGClip2Trainer": ".training",
    "FGClip2TrainingArguments": ".training",
    "FGClip2VisionConfig": ".modeling.configuration_fgclip2",
    "FGClip2VisionModel": ".modeling.modeling_fgclip2",
    "FGClip2ZeroShotImageClassificationPipeline": ".modeling.pipeline_fgclip2",
    "FGClipConfig": ".modeling.configuration_fgclip",
    "FGClipImageProcessor": ".modeling.image_processing_fgclip",
    "FGClipModel": ".modeling.modeling_fgclip",
    "FGClipProcessor": ".modeling.processing_fgclip",
    "FGClipTextConfig": ".modeling.configuration_fgclip",
    "FGClipTextModel": ".modeling.modeling_fgclip",
    "FGClipTokenizer": ".modeling.tokenization_fgclip",
    "FGClipVisionConfig": ".modeling.configuration_fgclip",
    "FGClipVisionModel": ".modeling.modeling_fgclip",
    "R2D2Config": ".modeling.configuration_r2d2",
    "R2D2CrossConfig": ".modeling.configuration_r2d2",
    "R2D2ImageProcessor": ".modeling.image_processing_r2d2",
    "R2D2Model": ".modeling.modeling_r2d2",
    "R2D2Processor": ".modeling.processing_r2d2",
    "R2D2TextConfig": ".modeling.configuration_r2d2",
    "R2D2TextModel": ".modeling.modeling_r2d2",
    "R2D2Tokenizer": ".modeling.tokenization_r2d2",
    "R2D2VisionConfig": ".modeling.configuration_r2d2",
    "R2D2VisionModel": ".modeling.modeling_r2d2",
    "embedded_checkpoint": ".assets",
}

__all__ = [
    "Embedder",
    "FGClip2Config",
    "FGClip2CrossConfig",
    "FGClip2Embedder",
    "FGClip2ForImageTextMatching",
    "FGClip2ImageProcessor",
    "FGClip2MatchingConfig",
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
    "FGClipConfig",
    "FGClipImageProcessor",
    "FGClipModel",
    "FGClipProcessor",
    "FGClipTextConfig",
    "FGClipTextModel",
    "FGClipTokenizer",
    "FGClipVisionConfig",
    "FGClipVisionModel",
    "R2D2Config",
    "R2D2CrossConfig",
    "R2D2ImageProcessor",
    "R2D2Model",
    "R2D2Processor",
    "R2D2TextConfig",
    "R2D2TextModel",
    "R2D2Tokenizer",
    "R2D2VisionConfig",
    "R2D2VisionModel",
    "__version__",
    "embedded_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


keep_old_names()
# The console script answers --help and shell completion without transformers: there, each command registers first.
if not getattr(sys.modules.get("fgclip2_command"), "registers_before_a_command", False):
    from ._registration import register

    register()
