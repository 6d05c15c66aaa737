"""Fitting of curves by scikit-learn, on one fold of labelled pairs, and their evaluation on the other."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np

from .._imports import require
from ..checks import check_choice
from .curves import Curve
from .measures import conformal_threshold, expected_calibration_error, prevalence_weights
from .stored import CalibratedScores, Evaluation, ScoreKey

METHODS = ("platt", "isotonic")
MIN_PAIRS = 50  # of each class and fold
ENOUGH_PAIRS = 130  # of each class, of which a half by chance is hardly ever below MIN_PAIRS
FALSE_POSITIVE_RATES = (0.1, 0.05, 0.01, 0.001)
_DIGITS = 6  # of stored numbers


def fit_curve(cosines: np.ndarray, matches: np.ndarray, method: str = "platt") -> Curve:
    """Fit the curve of cosines of labelled pairs, matches and others weighing the same in all.

    Args:
        cosines: Float (N,).
        matches: Booleans (N,), some of both.
        method: `"platt"`: a line, by logistic regression, which few pairs are enough for. `"isotonic"`: any curve that
            never falls, which wants a thousand pairs of each class.

    Raises:
        ValueError: All or none of the pairs match, cosines don't rise from others to matches, or the method is unknown.
        ImportError: scikit-learn is not installed.
    """
    check_choice("method", method, METHODS)
    cosines, matches = np.asarray(cosines, np.float64), np.asarray(matches, bool)
    weights = prevalence_weights(matches, 0.5) * len(matches)
    count = np.count_nonzero(matches)
    # What n pairs of one class never showed may still be as frequent as 1 in n + 1.
    low, high = -np.log(count + 1), np.log(len(matches) - count + 1)
    if method == "platt":
        line = require("sklearn.linear_model", "calibrate").LogisticRegression(C=1e6)
        center, spread = cosines.mean(), max(cosines.std(), 1e-12)
        line.fit((cosines[:, None] - center) / spread, matches, weights)
        slope, intercept = line.coef_[0, 0] / spread, line.intercept_[0]
        if slope <= 0:
            raise _not_rising(cosines, matches)
        log_odds = np.array([low, high])
        knots = center + (log_odds - intercept) / slope
    else:
        steps = (
            require("sklearn.isotonic", "calibrate").IsotonicRegression().fit(cosines, matches, sample_weight=weights)
        )
        knots, shares = steps.X_thresholds_, steps.y_thresholds_
        if np.ptp(shares) < 1e-9:
            raise _not_rising(cosines, matches)
        with np.errstate(divide="ignore"):
            log_odds = np.clip(np.log(shares) - np.log1p(-shares), low, high)
    knots, last = np.unique(np.round(knots[::-1], _DIGITS), return_index=True)  # of knots that are one now, the higher
    return Curve(tuple(knots.tolist()), tuple(np.round(log_odds[::-1][last], _DIGITS).tolist()))


def _not_rising(cosines: np.ndarray, matches: np.ndarray) -> ValueError:
    return ValueError(
        f"cosines of matches (mean {cosines[matches].mean():.3f}) are not above those of others "
        f"({cosines[~matches].mean():.3f}): are the labels 1 where image and text match?"
    )


def split_folds(groups: Sequence[Hashable]) -> np.ndarray:
    """Return which pairs are to be fitted on, booleans (N,): those of every second group, in the order of a hash.

    Args:
        groups: The image of each pair: no image is in both folds.
    """
    ordered = sorted(set(groups), key=lambda group: hashlib.sha256(str(group).encode(errors="replace")).digest())
    fitted = set(ordered[::2])
    return np.array([group in fitted for group in groups], bool)


def check_folds(key: ScoreKey, matches: np.ndarray, is_fitted: np.ndarray) -> list[int]:
    """Return how many matches and others there are to fit, and how many to evaluate.

    Args:
        key: What pairs they are.
        matches: Booleans (N,).
        is_fitted: Booleans (N,), of [`split_folds`].

    Raises:
        ValueError: One of these is below [`MIN_PAIRS`]; the message says how many are needed.
    """
    counts = [int(np.count_nonzero(fold & its)) for fold in (is_fitted, ~is_fitted) for its in (matches, ~matches)]
    if min(counts) < MIN_PAIRS:
        raise ValueError(
            f"{key} has too few pairs: {counts[0]} matches and {counts[1]} others to fit, {counts[2]} and {counts[3]} "
            f"to evaluate; {MIN_PAIRS} of each are needed. The images are halved by chance: {ENOUGH_PAIRS} matches and "
            f"{ENOUGH_PAIRS} others in all, on different images, are enough"
        )
    return counts


def fit_scores(
    key: ScoreKey,
    cosines: np.ndarray,
    matches: np.ndarray,
    is_fitted: np.ndarray,
    method: str = "platt",
    before: np.ndarray | None = None,
) -> CalibratedScores:
    """Fit curve and thresholds on one fold of pairs of one kind, and evaluate them on the other.

    Args:
        key: What pairs they are.
        cosines: Float (N,).
        matches: Booleans (N,).
        is_fitted: Booleans (N,): the fold that is fitted on; the others are for the evaluation.
        method: As in [`fit_curve`].
        before: Float (N,): probabilities that the model gives without a calibration, if it gives any.

    Raises:
        ValueError: A fold has fewer than [`MIN_PAIRS`] matches or others; see [`fit_curve`].
        ImportError: scikit-learn is not installed.
    """
    cosines, matches = np.asarray(cosines, np.float64), np.asarray(matches, bool)
    counts = check_folds(key, matches, is_fitted)
    curve = fit_curve(cosines[is_fitted], matches[is_fitted], method)
    others = cosines[is_fitted & ~matches]
    thresholds = {rate: conformal_threshold(others, rate) for rate in FALSE_POSITIVE_RATES}
    checked = cosines[~is_fitted], matches[~is_fitted]
    evaluation = Evaluation(
        counts[2],
        counts[3],
        round(expected_calibration_error(curve.probabilities(checked[0]), checked[1], 0.5), _DIGITS),
        None
        if before is None
        else round(expected_calibration_error(np.asarray(before)[~is_fitted], checked[1], 0.5), _DIGITS),
        {
            rate: round(float(np.mean(checked[0][~checked[1]] > threshold)), _DIGITS)
            for rate, threshold in thresholds.items()
            if threshold is not None
        },
    )
    return CalibratedScores(key, method, counts[0], counts[1], curve, thresholds, evaluation)
