"""A control that needs no model: the nearest training picture in raw pixels.

On clean drawings pixels are nearly as good as a small trained model, so recall on them proves little: each reported
number stands beside this one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from .backgrounds import paste, white_canvas
from .concepts import ConceptTable
from .cutouts import load_training_cutouts

PIXEL_SIDE = 21


def pixel_features(images: np.ndarray, side: int = PIXEL_SIDE) -> np.ndarray:
    """Shrink pictures by area averaging: (N, H, W, 3) uint8 -> (N, side * side * 3) float32 from 0 to 1."""
    shrunk = [np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX)) for image in images]
    return np.stack(shrunk).reshape(len(images), -1).astype(np.float32) / 255


def pixel_similarities(
    queries: np.ndarray, references: np.ndarray, reference_ids: np.ndarray, candidate_ids: np.ndarray
) -> np.ndarray:
    """Score each candidate concept by its nearest reference picture.

    Args:
        queries: (Q, H, W, 3) uint8.
        references: (R, H, W, 3) uint8, the training pictures.
        reference_ids: (R,), the concept of each reference.
        candidate_ids: (C,), the concepts to score.

    Returns:
        (Q, C) float32: minus the squared distance of `pixel_features`; minus infinity where a concept has no reference.
        The greatest of a row is the query's nearest neighbour among references of the candidates.
    """
    query, reference = pixel_features(queries), pixel_features(references)
    distances = (query**2).sum(1)[:, None] + (reference**2).sum(1)[None, :] - 2 * query @ reference.T  # (Q, R)
    scores = np.full((len(query), len(candidate_ids)), -np.inf, dtype=np.float32)
    for column, concept_id in enumerate(candidate_ids):
        of_concept = reference_ids == concept_id
        if of_concept.any():
            scores[:, column] = -distances[:, of_concept].min(axis=1)
    return scores


def training_pictures(cache: Path, table: ConceptTable) -> tuple[np.ndarray, np.ndarray]:
    """Return all training drawings on white, (R, 64, 64, 3) uint8, and their concepts, (R,): the pixels' references."""
    pictures, ids = [], []
    for concept_ids, rgba in load_training_cutouts(cache, table).values():
        pictures += [np.asarray(paste(white_canvas(64), Image.fromarray(one), (0, 0, 64, 64))) for one in rgba]
        ids.append(concept_ids)
    return np.stack(pictures), np.concatenate(ids)
