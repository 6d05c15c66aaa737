"""Hard negatives from text: false variants of a phrase in Chinese and English."""

from ..lexicon import KINDS, LEXICON, Kind, Vocabulary, load_vocabulary
from .files import HardNegativeReport, write_hard_negatives
from .generation import Generator, HardNegative, generate_hard_negatives

__all__ = [
    "KINDS",
    "LEXICON",
    "Generator",
    "HardNegative",
    "HardNegativeReport",
    "Kind",
    "Vocabulary",
    "generate_hard_negatives",
    "load_vocabulary",
    "write_hard_negatives",
]
