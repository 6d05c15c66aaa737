"""From images, regions and texts to vectors: the embedder and what it is made of."""

from .backends.torch import Embedder, unit_vectors
from .calibrating import calibrate
from .devices import default_device, resolve_devices, resolve_dtype
from .embedder import BaseEmbedder, EncodedImage
from .fgclip2 import REGION_LOGIT_SCALE, FGClip2Embedder
from .fingerprint import checkpoint_fingerprint, model_fingerprint
from .inputs import ImageInput, Skipped
from .labels import average_templates, fill_templates
from .pairs import PairEmbedder
from .parsers import split_by_jieba
from .phrases import Splitter, split_phrases
from .reranker import DenseMap, PairScores, PhraseMatch, RerankedHit, fit_weight, spread_weight

__all__ = [
    "REGION_LOGIT_SCALE",
    "BaseEmbedder",
    "DenseMap",
    "Embedder",
    "EncodedImage",
    "FGClip2Embedder",
    "ImageInput",
    "PairEmbedder",
    "PairScores",
    "PhraseMatch",
    "RerankedHit",
    "Skipped",
    "Splitter",
    "average_templates",
    "calibrate",
    "checkpoint_fingerprint",
    "default_device",
    "fill_templates",
    "fit_weight",
    "model_fingerprint",
    "resolve_devices",
    "resolve_dtype",
    "split_by_jieba",
    "split_phrases",
    "spread_weight",
    "unit_vectors",
]
