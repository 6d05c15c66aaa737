"""Labels in templates, and vectors that stand for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def fill_templates(labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Put each label into every template, the templates of the first label first."""
    # Not str.format: a label or template may have braces of its own.
    return [template.replace("{}", label) for label in labels for template in templates]


def average_templates(vectors: np.ndarray, labels: int) -> np.ndarray:
    """Average the vectors of [`fill_templates`], (labels * templates, D), to L2-normalised float32 (labels, D)."""
    return normalised(vectors.reshape(labels, len(vectors) // labels, -1).mean(1))


def normalised(vectors: np.ndarray) -> np.ndarray:
    """L2-normalise in float32; zero vectors stay zero."""
    vectors = vectors.astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Turn (..., labels) into shares that sum to 1 over the labels."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True, initial=-np.inf))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
