"""From cosines to probabilities that mean something: curves, thresholds, how well they hold, and the stored form.

All of it is maths on arrays. What encodes labelled pairs is [`fgclip2.embedding.calibrate`]; to fit needs scikit-learn
(the extra `calibrate`), to apply what is stored needs NumPy alone.
"""

from .curves import LEAST_PROBABILITY, Curve, even_prevalence, none_matches
from .fitting import METHODS, MIN_PAIRS, fit_curve, fit_scores
from .measures import (
    ReliabilityBin,
    conformal_threshold,
    expected_calibration_error,
    prevalence_weights,
    reliability_bins,
)
from .pairs import LabelledPair
from .stored import CALIBRATION_FILE, CalibratedScores, Calibration, Evaluation, ScoreKey, ScoreQuantiles

__all__ = [
    "CALIBRATION_FILE",
    "LEAST_PROBABILITY",
    "METHODS",
    "MIN_PAIRS",
    "CalibratedScores",
    "Calibration",
    "Curve",
    "Evaluation",
    "LabelledPair",
    "ReliabilityBin",
    "ScoreKey",
    "ScoreQuantiles",
    "conformal_threshold",
    "even_prevalence",
    "expected_calibration_error",
    "fit_curve",
    "fit_scores",
    "none_matches",
    "prevalence_weights",
    "reliability_bins",
]
