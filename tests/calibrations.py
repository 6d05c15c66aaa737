"""Calibrations whose probabilities a test can compute by heart."""

import numpy as np

from fgclip2.calibration import CalibratedScores, Calibration, Curve, Evaluation, ScoreKey

EVIDENCE = np.log(3)  # of every pair: at even odds, three of four match


def level_scores(role: str, language: str, budget: int | None, evidence: float = EVIDENCE) -> CalibratedScores:
    """A level curve, at which each pair is evidence alike."""
    curve = Curve((0.0,), (evidence,))
    return CalibratedScores(
        ScoreKey(role, language, budget), "platt", 50, 50, curve, {}, Evaluation(50, 50, 0.0, None, {})
    )


def level_calibration(fingerprint: str, name: str, budget: int | None) -> Calibration:
    """Level curves of Chinese captions and region phrases, and none of other texts."""
    scores = (level_scores("caption", "zh", budget), level_scores("region_phrase", "zh", budget))
    return Calibration({"name": name, "fingerprint": fingerprint}, scores)
