"""Calibration of an embedder's scores by pairs of image and text that people labelled."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from .._imports import require
from ..calibration import Calibration, LabelledPair, ScoreKey, ScoreQuantiles, fit_scores
from ..calibration.fitting import METHODS, check_folds, split_folds
from ..checks import check_choice
from ..languages import detect_language
from .embedder import BaseEmbedder

QUANTILES = 101


def calibrate(
    embedder: BaseEmbedder,
    pairs: Sequence[LabelledPair],
    max_num_patches: int | str | None = None,
    method: str = "platt",
    batch_size: int = 32,
    show_progress_bar: bool | None = None,
) -> Calibration:
    """Fit probabilities and thresholds to labelled pairs, for each head and language that they have.

    Half of the images are fitted on, the other half evaluates: no image is in both. Of pairs without labels, only the
    quantiles of their cosines are kept, which say how high a cosine is among others and nothing of a match.

    Args:
        embedder: Encodes the pairs: those with a box by their region and as region phrases, the others as whole images
            and as captions, long ones by the long head.
        pairs: All of them with a label, or none.
        max_num_patches: Patch budget that the calibration is for; `None`: the processor's setting.
        method: `"platt"` or `"isotonic"`, see [`fgclip2.calibration.fit_curve`].
        batch_size, show_progress_bar: See [`BaseEmbedder`].

    Returns:
        The calibration, for [`BaseEmbedder.use_calibration`] or to be saved.

    Raises:
        UnreadableImageError: An image can't be read.
        ValueError: There are no pairs, some have a label and others not, there are too few of a head and language, a
            box can't be used, the family has no regions, or the method is unknown.
        ImportError: scikit-learn is not installed.
    """
    check_choice("method", method, METHODS)
    if not pairs:
        raise ValueError("there are no pairs to calibrate by")
    labelled = [pair.matches is not None for pair in pairs]
    if any(labelled) and not all(labelled):
        where = pairs[labelled.index(False)].source or f"pairs[{labelled.index(False)}]"
        raise ValueError(f"{where} has no label, and other pairs have one: label all of them, or none")
    if any(labelled):
        require("sklearn", "calibrate")  # before the work
    roles = roles_of_pairs(embedder, pairs)
    budget = embedder.budget_of(max_num_patches)
    rows_of: dict[ScoreKey, list[int]] = defaultdict(list)
    for row, (pair, role) in enumerate(zip(pairs, roles, strict=True)):
        rows_of[ScoreKey(role, detect_language(pair.text), budget)].append(row)
    rows_of = dict(sorted(rows_of.items(), key=str))
    matches = np.array([pair.matches for pair in pairs], bool)
    is_fitted = split_folds([pair.image for pair in pairs])
    if any(labelled):
        for key, rows in rows_of.items():
            check_folds(key, matches[rows], is_fitted[rows])
    cosines = pair_cosines(embedder, pairs, roles, max_num_patches, batch_size, show_progress_bar)
    model = {"name": embedder.name, "fingerprint": embedder.fingerprint}
    if not any(labelled):
        steps = np.linspace(0, 1, QUANTILES)
        quantiles = [
            ScoreQuantiles(key, len(rows), tuple(np.quantile(cosines[rows].astype(float), steps).tolist()))
            for key, rows in rows_of.items()
        ]
        return Calibration(model, quantiles=tuple(quantiles))
    gives_probabilities = embedder.model.score_function == "sigmoid"
    scores = []
    for key, rows in rows_of.items():
        own = embedder.probabilities(cosines[rows]) if gives_probabilities and key.role != "region_phrase" else None
        scores.append(fit_scores(key, cosines[rows], matches[rows], is_fitted[rows], method, own))
    return Calibration(model, tuple(scores))


def roles_of_pairs(embedder: BaseEmbedder, pairs: Sequence[LabelledPair]) -> list[str]:
    """Return the role of each text: that of region phrases where there is a box, else by its length."""
    role_of: dict[tuple[bool, str], str] = {}
    for has_box in (False, True):
        texts = list(dict.fromkeys(pair.text for pair in pairs if (pair.box is not None) == has_box))
        roles = embedder.roles_of(texts, "region_phrase" if has_box else "auto") if texts else []
        role_of.update(zip(((has_box, text) for text in texts), roles, strict=True))
    return [role_of[pair.box is not None, pair.text] for pair in pairs]


def pair_cosines(
    embedder: BaseEmbedder,
    pairs: Sequence[LabelledPair],
    roles: Sequence[str],
    max_num_patches: int | str | None = None,
    batch_size: int = 32,
    show_progress_bar: bool | None = None,
) -> np.ndarray:
    """Return the cosine of each pair, float32 (N,). Each image and text is encoded once.

    Args:
        roles: Of the texts, see [`roles_of_pairs`].
        embedder, pairs, max_num_patches, batch_size, show_progress_bar: As in [`calibrate`].
    """
    options: Any = {
        "max_num_patches": max_num_patches,
        "batch_size": batch_size,
        "show_progress_bar": show_progress_bar,
    }
    vectors: dict[Hashable, np.ndarray] = {}  # of (image, box), and of (role, text)
    images = list(dict.fromkeys(pair.image for pair in pairs if pair.box is None))
    if images:
        encoded = embedder.encode_images(images, **options)
        vectors.update(zip(((image, None) for image in images), encoded, strict=True))
    boxes: dict[str, list[Any]] = defaultdict(list)
    for image, box in dict.fromkeys((pair.image, pair.box) for pair in pairs if pair.box is not None):
        boxes[image].append(box)
    if boxes:
        try:
            regions = embedder.encode_regions(list(boxes), list(boxes.values()), **options)
        except ValueError as error:
            raise _with_source(error, pairs, boxes) from error
        for (image, its_boxes), its_vectors in zip(boxes.items(), regions, strict=True):
            vectors.update(zip(((image, box) for box in its_boxes), its_vectors, strict=True))
    for role in sorted(set(roles)):
        texts = list(dict.fromkeys(pair.text for pair, its in zip(pairs, roles, strict=True) if its == role))
        name: Any = role
        encoded = embedder.encode_texts(texts, role=name, batch_size=batch_size, show_progress_bar=show_progress_bar)
        vectors.update(zip(((role, text) for text in texts), encoded, strict=True))
    return np.array(
        [vectors[pair.image, pair.box] @ vectors[role, pair.text] for pair, role in zip(pairs, roles, strict=True)],
        np.float32,
    )


def _with_source(error: ValueError, pairs: Sequence[LabelledPair], boxes: dict[str, list[Any]]) -> ValueError:
    """Return an error about a box with the record that it is of, which the embedder doesn't know, else as it is."""
    found = re.match(r"boxes\[(\d+)\]\[(\d+)\]", str(error))
    if not found:
        return error
    image = list(boxes)[int(found[1])]
    box = boxes[image][int(found[2])]
    source = next(pair.source for pair in pairs if (pair.image, pair.box) == (image, box))
    return ValueError(f"{source or image}: {error}")
