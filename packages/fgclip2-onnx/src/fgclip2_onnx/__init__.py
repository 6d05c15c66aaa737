"""FG-CLIP 2 and FG-CLIP without torch: image, text, region and dense embeddings from an exported ONNX folder.

`fgclip2 export OUT --format onnx` of the package fgclip2 makes such a folder.
"""

from ._fgclip2.embedding.inputs import Skipped
from ._fgclip2.embedding.phrases import split_phrases
from ._fgclip2.embedding.reranker import PhraseMatch, RerankedHit
from ._fgclip2.errors import UnreadableImageError
from .embedder import OnnxEmbedder
from .manifest import MANIFEST
from .model import OnnxModel
from .processor import OnnxProcessor

__version__ = "0.2.0"

__all__ = [
    "MANIFEST",
    "OnnxEmbedder",
    "OnnxModel",
    "OnnxProcessor",
    "PhraseMatch",
    "RerankedHit",
    "Skipped",
    "UnreadableImageError",
    "__version__",
    "split_phrases",
]
