"""How well probabilities and thresholds hold: reliability, expected calibration error, conformal thresholds."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ..checks import check_positive_integer, is_number

BINS = 15  # as in Guo et al. 2017, "On Calibration of Modern Neural Networks"


class ReliabilityBin(NamedTuple):
    """The pairs whose probability lies in one interval.

    Attributes:
        confidence: Mean of their probabilities.
        frequency: Share of matches among them.
        weight: Their share of all pairs.
        pairs: How many there are.
    """

    confidence: float
    frequency: float
    weight: float
    pairs: int


def prevalence_weights(matches: np.ndarray, prevalence: float | None) -> np.ndarray:
    """Return weights of pairs, summing to 1, by which a share `prevalence` of them match; `None`: all weigh the same.

    Args:
        matches: Booleans (N,), some of both.
        prevalence: Share of matches.

    Raises:
        ValueError: There are no pairs, or a prevalence is asked for and all or none of them match.
    """
    matches = np.asarray(matches, bool)
    count = np.count_nonzero(matches)
    if prevalence is None and len(matches):
        return np.full(len(matches), 1 / len(matches))
    if count in (0, len(matches)):
        raise ValueError(f"pairs that match and others are needed, got {count} and {len(matches) - count}")
    return np.where(matches, prevalence / count, (1 - prevalence) / (len(matches) - count))  # type: ignore[operator]


def reliability_bins(
    probabilities: np.ndarray, matches: np.ndarray, prevalence: float | None = None, bins: int = BINS
) -> list[ReliabilityBin]:
    """Sort pairs into intervals of equal width by their probability; intervals without pairs are left out.

    Args:
        probabilities: Float (N,), from 0 to 1.
        matches: Booleans (N,), whether each pair does match.
        prevalence: Weigh pairs as if this share matched; `None`: as they are.
        bins: How many intervals.

    Raises:
        ValueError: There are no pairs, not as many of both, or values that are no probabilities.
    """
    check_positive_integer("bins", bins)
    values, matches = np.asarray(probabilities, np.float64), np.asarray(matches, bool)
    if values.shape != matches.shape or values.ndim != 1:
        raise ValueError(f"probabilities {values.shape} and matches {matches.shape} must be (N,) both")
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError("probabilities must be from 0 to 1")
    weights = prevalence_weights(matches, prevalence)
    numbers = np.minimum((values * bins).astype(int), bins - 1)
    pairs = np.bincount(numbers, minlength=bins)
    sums = [np.bincount(numbers, weights * part, bins) for part in (np.ones(len(values)), values, matches)]
    return [
        ReliabilityBin(float(confidence / weight), float(frequency / weight), float(weight), int(count))
        for count, weight, confidence, frequency in zip(pairs, *sums, strict=True)
        if count
    ]


def expected_calibration_error(
    probabilities: np.ndarray, matches: np.ndarray, prevalence: float | None = None, bins: int = BINS
) -> float:
    """Return how far probabilities are from how often pairs match, on average over [`reliability_bins`]."""
    found = reliability_bins(probabilities, matches, prevalence, bins)
    return sum(part.weight * abs(part.confidence - part.frequency) for part in found)


def conformal_threshold(cosines: np.ndarray, false_positive_rate: float) -> float | None:
    """Return the cosine above which a pair that does not match lies with at most a stated probability.

    Split conformal prediction: of n cosines of pairs that do not match, and a new one exchangeable with them, the new
    one is above the k-th smallest with a probability of at most `false_positive_rate` where
    k = ceil((n + 1) (1 - false_positive_rate)), whatever the distribution and for any n (Vovk, Gammerman and Shafer
    2005; Angelopoulos and Bates 2021).

    Args:
        cosines: Float (n,), of pairs that do not match.
        false_positive_rate: Above 0 and below 1.

    Returns:
        The threshold; `None` if there are too few pairs to promise the rate, fewer than 1 / rate - 1.

    Raises:
        ValueError: The rate is none.
    """
    if not is_number(false_positive_rate) or not 0 < false_positive_rate < 1:
        raise ValueError(f"false_positive_rate must be above 0 and below 1, got {false_positive_rate!r}")
    # As a fraction: (n + 1) (1 - 0.1) in floating point may be just above a whole number.
    may_be_above = int((len(cosines) + 1) * Fraction(str(false_positive_rate)))
    rank = len(cosines) + 1 - may_be_above  # k
    return float(np.partition(np.asarray(cosines), rank - 1)[rank - 1]) if rank <= len(cosines) else None
