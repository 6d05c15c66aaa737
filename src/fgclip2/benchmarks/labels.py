"""Embeddings of class names in templates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..embedding import average_templates, fill_templates
from . import class_names
from .base import LabelSettings
from .encoding import Encoder


def label_vectors(encoder: Encoder, names: Sequence[str], settings: LabelSettings, language: str) -> np.ndarray:
    """Return the mean over templates of the embeddings of each name: float32 (C, D), L2-normalised.

    Args:
        encoder: What embeds texts.
        names: C names.
        settings: The templates, the role of the texts, and whether they are lower-cased.
        language: Language of the names.
    """
    bare = settings.templates == "none"
    templates = ("{}",) if bare else class_names.templates(settings.templates, language)
    texts = encoder.texts(fill_templates(names, templates), settings.role, settings.lower_case)
    return average_templates(texts, len(names))
