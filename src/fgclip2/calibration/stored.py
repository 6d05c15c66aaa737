"""Calibration: what is known of the scores of one checkpoint, kept as JSON and applied with NumPy alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..checks import is_number, one_of
from ..files import read_json, replacing
from ..languages import LANGUAGES
from .curves import Curve

CALIBRATION_FILE = "calibration.json"  # in the folder of a checkpoint
FORMAT = 1

A_COUNT, RATES = "a positive integer", "an object of false-positive rates and numbers"


class ScoreKey(NamedTuple):
    """The pairs that a curve is for; cosines of others mean something else.

    Attributes:
        role: Of the text: `"caption"` (the short head), `"long_caption"` or `"region_phrase"` (the box head).
        language: `"en"` or `"zh"`.
        max_num_patches: The patch budget of the images; `None` for a family that has none.
    """

    role: str
    language: str
    max_num_patches: int | str | None

    def __str__(self) -> str:
        budget = "" if self.max_num_patches is None else f" at {self.max_num_patches} patches"
        return f"{self.role} in {self.language}{budget}"


@dataclass(frozen=True)
class Evaluation:
    """How a calibration did on pairs of images that it was not fitted on, as if half of them matched.

    Attributes:
        matches, others: How many pairs there were.
        calibration_error: Expected calibration error of the probabilities.
        calibration_error_before: That of the model's own probabilities; `None` where it gives none for a pair.
        false_positive_rates: Promised rate -> share of the others above its threshold.
    """

    matches: int
    others: int
    calibration_error: float
    calibration_error_before: float | None
    false_positive_rates: Mapping[float, float]


@dataclass(frozen=True)
class CalibratedScores:
    """The curve and thresholds that labelled pairs of one kind gave, with an evaluation on others.

    Attributes:
        key: What pairs they are.
        method: `"platt"` or `"isotonic"`.
        matches, others: How many pairs were fitted on.
        curve: From cosines to evidence.
        thresholds: False-positive rate -> the cosine above which no more of the pairs that don't match are; `None`
            where there were too few pairs to promise it.
        evaluation: On other pairs.
    """

    key: ScoreKey
    method: str
    matches: int
    others: int
    curve: Curve
    thresholds: Mapping[float, float | None]
    evaluation: Evaluation


@dataclass(frozen=True)
class ScoreQuantiles:
    """Quantiles of pairs without labels: they show how high a cosine is among others, and are no probabilities.

    Attributes:
        key: What pairs they are.
        pairs: How many there were.
        cosines: Their quantiles at equal steps from 0 to 1.
    """

    key: ScoreKey
    pairs: int
    cosines: tuple[float, ...]

    def quantiles(self, cosines: np.ndarray) -> np.ndarray:
        """Return the share of the pairs whose cosine is lower, float64 of the same shape."""
        return np.interp(cosines, self.cosines, np.linspace(0, 1, len(self.cosines)))


@dataclass(frozen=True)
class Calibration:
    """All that labelled and unlabelled pairs have shown about the scores of one checkpoint.

    Args:
        model: `name` and `fingerprint` of the checkpoint.
        scores: Of labelled pairs.
        quantiles: Of pairs without labels.

    Example:
        >>> calibration = Calibration.load("calibration.json")
        >>> calibration.probabilities(np.array([0.3]), ["caption"], ["zh"], 256, prevalence=0.01)
    """

    model: Mapping[str, str]
    scores: tuple[CalibratedScores, ...] = ()
    quantiles: tuple[ScoreQuantiles, ...] = ()

    def find(self, role: str, language: str, max_num_patches: int | str | None) -> CalibratedScores | None:
        """Return what labelled pairs of this kind have shown, or `None`."""
        return next((its for its in self.scores if its.key == (role, language, max_num_patches)), None)

    def probabilities(
        self,
        cosines: np.ndarray,
        roles: Sequence[str],
        languages: Sequence[str],
        max_num_patches: int | str | None,
        prevalence: float = 0.5,
    ) -> np.ndarray:
        """Return the probability that pairs match, by the curve of each text.

        Args:
            cosines: Float (..., texts).
            roles, languages: Of each text.
            max_num_patches: Patch budget of the images.
            prevalence: Share of matches among the pairs that are compared, see [`Curve.probabilities`].

        Returns:
            Float64 of the same shape; NaN for texts that there is no curve for.

        Raises:
            ValueError: `prevalence` is not above 0 and below 1.
        """
        result = np.full(np.shape(cosines), np.nan)
        for column, (role, language) in enumerate(zip(roles, languages, strict=True)):
            found = self.find(role, language, max_num_patches)
            if found is not None:
                result[..., column] = found.curve.probabilities(np.asarray(cosines)[..., column], prevalence)
        return result

    def require_model(self, fingerprint: str, name: str) -> None:
        """Raise a `ValueError` unless this is the calibration of the checkpoint with this fingerprint."""
        if self.model["fingerprint"] != fingerprint:
            raise ValueError(
                f"the calibration is of the model {self.model['name']!r} (fingerprint {self.model['fingerprint']:.8}), "
                f"not of {name!r} ({fingerprint:.8}), whose cosines mean something else: make one with "
                "`fgclip2 calibrate`"
            )

    def updated(self, other: Calibration) -> Calibration:
        """Return a calibration with what another one of the same checkpoint has, which goes before what is here.

        Raises:
            ValueError: They are of different checkpoints.
        """
        self.require_model(other.model["fingerprint"], other.model["name"])
        scores = {its.key: its for its in (*self.scores, *other.scores)}
        quantiles = {its.key: its for its in (*self.quantiles, *other.quantiles)}
        return Calibration(other.model, tuple(scores.values()), tuple(quantiles.values()))

    def save(self, path: str | os.PathLike) -> Path:
        """Write the calibration as JSON, whole or not at all, and return the path."""
        content = {
            "format": FORMAT,
            "model": dict(self.model),
            "scores": [{**its.key._asdict(), **_without_key(its)} for its in self.scores],
            "quantiles": [{**its.key._asdict(), **_without_key(its)} for its in self.quantiles],
        }
        with replacing(path) as unfinished:
            unfinished.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Calibration:
        """Read a calibration.

        Raises:
            OSError: There is no such file.
            ValueError: It is no calibration, or damaged; the message names the file and the field.
        """
        fields = _Fields(str(path), read_json(path))
        fields.get("format", lambda value: value if value == FORMAT else None, str(FORMAT))
        model = fields.inner("model")
        return cls(
            {name: model.get(name, _text, "a text") for name in ("name", "fingerprint")},
            tuple(map(_read_scores, fields.rows("scores"))),
            tuple(map(_read_quantiles, fields.rows("quantiles"))),
        )


def _without_key(its: CalibratedScores | ScoreQuantiles) -> dict[str, Any]:
    return {name: value for name, value in asdict(its).items() if name != "key"}


class _Fields:
    """The fields of an object in a file, checked as they are read."""

    def __init__(self, source: str, item: Any):
        if not isinstance(item, dict):
            raise ValueError(f"{source} must be a JSON object, got {item!r:.80}")
        self.source, self.item = source, item

    def get(self, name: str, check: Callable[[Any], Any], allowed: str) -> Any:
        """Return what `check` makes of a field; raise a `ValueError` where it returns `None` or fails."""
        value = self.item.get(name)
        try:
            checked = check(value)
        except (TypeError, ValueError):
            checked = None
        if checked is None:
            raise ValueError(
                f"{self.source}: {name} must be {allowed}, got {value!r:.80}: make the file anew with "
                "`fgclip2 calibrate`"
            )
        return checked

    def rows(self, name: str) -> list[_Fields]:
        """Return the objects that a field lists."""
        items = self.get(name, lambda value: value if isinstance(value, list) else None, "a list")
        return [_Fields(f"{self.source}: {name}[{number}]", item) for number, item in enumerate(items)]

    def inner(self, name: str) -> _Fields:
        """Return the object that a field holds."""
        item = self.get(name, lambda value: value if isinstance(value, dict) else None, "an object")
        return _Fields(f"{self.source}: {name}", item)

    def key(self) -> ScoreKey:
        """Return what pairs a row is for."""
        budget = self.item.get("max_num_patches")
        if budget not in (None, "auto"):
            self.get("max_num_patches", _count, "a positive integer, auto or null")
        language = self.get("language", lambda value: value if value in LANGUAGES else None, one_of(LANGUAGES))
        return ScoreKey(self.get("role", _text, "a text"), language, budget)


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _count(value: Any) -> Any:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _numbers(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) and value and all(map(is_number, value)) else None


def _number(value: Any) -> Any:
    return value if is_number(value) else None


def _rates(value: Any) -> Any:
    rates = {float(rate): number for rate, number in value.items()} if isinstance(value, dict) else None
    return rates if rates is not None and all(n is None or is_number(n) for n in rates.values()) else None


def _read_scores(row: _Fields) -> CalibratedScores:
    knots = row.inner("curve")
    curve = Curve(*(knots.get(name, _numbers, "a list of numbers") for name in ("cosines", "log_odds")))
    if problem := curve.problem():
        raise ValueError(f"{knots.source} {problem}: make the file anew with `fgclip2 calibrate`")
    checked = row.inner("evaluation")
    has_before = checked.item.get("calibration_error_before") is not None
    evaluation = Evaluation(
        matches=checked.get("matches", _count, A_COUNT),
        others=checked.get("others", _count, A_COUNT),
        calibration_error=checked.get("calibration_error", _number, "a number"),
        calibration_error_before=checked.get("calibration_error_before", _number, "a number") if has_before else None,
        false_positive_rates=checked.get("false_positive_rates", _rates, RATES),
    )
    return CalibratedScores(
        key=row.key(),
        method=row.get("method", _text, "a text"),
        matches=row.get("matches", _count, A_COUNT),
        others=row.get("others", _count, A_COUNT),
        curve=curve,
        thresholds=row.get("thresholds", _rates, RATES),
        evaluation=evaluation,
    )


def _read_quantiles(row: _Fields) -> ScoreQuantiles:
    cosines = row.get("cosines", _numbers, "a list of numbers that never fall")
    if list(cosines) != sorted(cosines):
        raise ValueError(f"{row.source}: cosines must never fall: make the file anew with `fgclip2 calibrate`")
    return ScoreQuantiles(row.key(), row.get("pairs", _count, A_COUNT), cosines)
