"""Embeddings of class names in templates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..embedding import average_templates, fill_templates
from . import class_names
from .encoding import Encoder


def label_vectors(encoder: Encoder, names: Sequence[str], templates: str, language: str, walk_type: str) -> np.ndarray:
    """Float32 (C, D), L2-normalised: the mean over templates of the embeddings of each name.

    Args:
        names: C names.
        templates: A set of `class_names.templates`, or "none": the bare names.
        language: Of the names.
        walk_type: The text head.
    """
    texts = ("{}",) if templates == "none" else class_names.templates(templates, language)
    return average_templates(encoder.texts(fill_templates(names, texts), walk_type), len(names))
