"""Curves: the evidence of a cosine, and with how many matches are expected, a probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..checks import is_number

LEAST_PROBABILITY = 0.5  # of a match, unless another one is asked for


@dataclass(frozen=True)
class Curve:
    """How strongly a cosine speaks for a match: log-odds where half of all pairs match, linear between knots.

    Left of the first knot and right of the last it is level: pairs can't show more evidence than there are pairs. A
    curve of Platt has two knots, where its line reaches these bounds; an isotonic one has a knot at each step.

    Attributes:
        cosines: The knots, rising.
        log_odds: The logarithm of P(cosine | match) / P(cosine | no match) at each knot, never falling.
    """

    cosines: tuple[float, ...]
    log_odds: tuple[float, ...]

    def probabilities(self, cosines: np.ndarray, prevalence: float | np.ndarray = 0.5) -> np.ndarray:
        """Return the probability that pairs of these cosines match.

        Args:
            cosines: Of any shape.
            prevalence: Share of matches among the pairs that are compared, above 0 and below 1. How cosines of matches
                and of others are distributed is taken to be the same whatever their shares are (prior shift).

        Returns:
            Float64 of the same shape.

        Raises:
            ValueError: `prevalence` is none.
        """
        shares = np.asarray(prevalence, np.float64)
        if not np.all((shares > 0) & (shares < 1)):
            raise ValueError(f"prevalence must be a share above 0 and below 1, got {prevalence!r}")
        evidence = np.interp(np.asarray(cosines, np.float64), self.cosines, self.log_odds)
        # Bayes: the odds are those of a match before the cosine was seen, times what the cosine says.
        return 0.5 * (1 + np.tanh((evidence + np.log(shares / (1 - shares))) / 2))

    def problem(self) -> str | None:
        """Return what is wrong with the knots, as of a file that people may have edited, or `None`."""
        if not self.cosines or len(self.cosines) != len(self.log_odds):
            return f"has {len(self.cosines)} cosines and {len(self.log_odds)} log-odds; as many of both are needed"
        if not all(map(is_number, (*self.cosines, *self.log_odds))):
            return "has values that are no finite numbers"
        if not np.all(np.diff(self.cosines) > 0) or not np.all(np.diff(self.log_odds) >= 0):
            return "must have rising cosines, and log-odds that never fall"
        return None


def even_prevalence(candidates: int) -> float:
    """Return the prevalence at which each of several candidates is as likely a match as that none of them is one.

    It is what search assumes of the images of an index, and labelling of the labels, unless it is told otherwise: one
    match in `candidates + 1`.
    """
    return 1 / (candidates + 1)


def none_matches(probabilities: Sequence[float | None], least: float = LEAST_PROBABILITY) -> bool | None:
    """Return whether none of some pairs has the least probability that is asked for.

    `None` where it can't be said: some have no probability (`None` or NaN), and none of the others has the least.
    """
    known = [its for its in probabilities if its is not None and not math.isnan(its)]
    if any(its >= least for its in known):
        return False
    return True if known and len(known) == len(probabilities) else None
