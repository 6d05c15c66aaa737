"""Calibrate the embedded checkpoint on validation pictures, and evaluate the calibration on test pictures.

    python -m recipes.calibration.run

Writes the `calibration.json` beside the checkpoint in the package, `results.json` beside this file, and tables and
plots by `report.py`. The pictures of both, composed scenes and single drawings, are none that the checkpoint was
trained on: those it is fitted on are of the validation artist, those of the evaluation of the test artist, on other
photographs. What kind of curve a head gets is chosen among the former. The run is logged in
`recipes/scenes/test_log.jsonl`. Half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from fgclip2 import Embedder, embedded_checkpoint
from fgclip2.calibration import (
    CALIBRATION_FILE,
    METHODS,
    CalibratedScores,
    Calibration,
    ScoreKey,
    expected_calibration_error,
    fit_curve,
    fit_scores,
    reliability_bins,
)
from fgclip2.drawings.concepts import ConceptTable, load_concepts
from fgclip2.drawings.scene_sets import build_scene_set
from fgclip2.drawings.sources import default_cache

from ..scenes.evaluate import log_test_run, versions
from . import report
from .pairs import HARD, AllPairs, Budget, Pairs, described_pairs, drawing_pairs, joined, merged, scene_pairs

HERE = Path(__file__).parent
# The checkpoint's own, that of scenes, and those that `auto` gives pictures up to 176 pixels a side.
BUDGETS: tuple[Budget, ...] = (36, 100, 128, "auto")
DESCRIBED_BUDGETS: tuple[Budget, ...] = (36, 100)
SCENES = 500
FITTED, EVALUATED = ("validation", 2), ("test", 3)  # split and seed; seed 1 is that of the benchmarks
PREVALENCES = (0.5, 0.01)
COSINES = np.round(np.linspace(-0.4, 0.8, 61), 2)  # of the curves of false positives
LEAST_GAIN = 0.005  # in calibration error, for which a head gets a curve of many knots in place of a line


def all_pairs(embedder: Embedder, cache: Path, table: ConceptTable, of: tuple, count: int) -> dict[Budget, AllPairs]:
    """Return the pairs of the scenes and of the single drawings of a split, at each patch budget."""
    split, seed = of
    scenes = scene_pairs(embedder, build_scene_set(cache, table, split, count, seed), table, BUDGETS, seed)
    drawings = drawing_pairs(embedder, cache, split, table, BUDGETS, seed)
    return {budget: merged(scenes[budget], drawings[budget]) for budget in BUDGETS}


def try_methods(pairs: dict[Budget, AllPairs]) -> dict[str, dict[str, float]]:
    """Return the calibration error that each method has on pairs whose images it was not fitted on, for each role.

    All pairs are of the validation split: a method is fitted on those of every second image, evaluated on the others,
    and the other way round. The errors are means over both, the languages and the budgets.
    """
    errors: dict[str, dict[str, list[float]]] = {}
    for of_budget in pairs.values():
        for (role, _), kinds in of_budget.items():
            its = without_hard(kinds)
            for method in METHODS:
                for is_fitted in (its.owners % 2 == 0, its.owners % 2 == 1):
                    curve = fit_curve(its.cosines[is_fitted], its.matches[is_fitted], method)
                    values = curve.probabilities(its.cosines[~is_fitted])
                    error = expected_calibration_error(values, its.matches[~is_fitted], 0.5)
                    errors.setdefault(role, {}).setdefault(method, []).append(error)
    return {
        role: {method: round(float(np.mean(its)), 4) for method, its in sorted(of_role.items(), reverse=True)}
        for role, of_role in sorted(errors.items())
    }


def chosen_method(errors: dict[str, float]) -> str:
    """Return `"isotonic"` where it is better by [`LEAST_GAIN`] at least, else `"platt"`."""
    return "isotonic" if errors["platt"] - errors["isotonic"] >= LEAST_GAIN else "platt"


def fit(
    pairs: AllPairs, checked: AllPairs, budget: Budget, methods: dict[str, str], embedder: Embedder
) -> list[CalibratedScores]:
    """Fit the curve of each head and language on the pairs of one set, and evaluate it on those of the other."""
    scores = []
    for (role, language), kinds in sorted(pairs.items()):
        fitted, evaluated = without_hard(kinds), without_hard(checked[role, language])
        both = joined([fitted, evaluated])
        is_fitted = np.arange(len(both.cosines)) < len(fitted.cosines)
        own = embedder.probabilities(both.cosines)
        key = ScoreKey(role, language, budget)
        scores.append(fit_scores(key, both.cosines, both.matches, is_fitted, methods[role], own))
    return scores


def without_hard(kinds: dict[str, Pairs]) -> Pairs:
    """Return the pairs that are fitted on, of all kinds."""
    return joined([pairs for kind, pairs in kinds.items() if kind != HARD])


def measure(embedder: Embedder, scores: CalibratedScores, pairs: Pairs) -> dict:
    """Return how the calibration does on pairs, beside the model's own sigmoid."""
    probabilities = {
        "before": embedder.probabilities(pairs.cosines),
        "after": scores.curve.probabilities(pairs.cosines),
    }
    errors: dict = {name: {} for name in probabilities}
    for prevalence in PREVALENCES:
        probabilities["after"] = scores.curve.probabilities(pairs.cosines, prevalence)
        for name, values in probabilities.items():
            errors[name][str(prevalence)] = round(expected_calibration_error(values, pairs.matches, prevalence), 4)
    probabilities["after"] = scores.curve.probabilities(pairs.cosines)
    return {
        "matches": int(pairs.matches.sum()),
        "others": int((~pairs.matches).sum()),
        "calibration_error": errors,
        "reliability": {
            name: [[round(value, 4) for value in one] for one in reliability_bins(values, pairs.matches, 0.5)]
            for name, values in probabilities.items()
        },
        **rates(scores, pairs),
    }


def rates(scores: CalibratedScores, pairs: Pairs) -> dict:
    """Return how often pairs are above the thresholds, and above any cosine."""
    others, matches = np.sort(pairs.cosines[~pairs.matches]), np.sort(pairs.cosines[pairs.matches])
    thresholds = {rate: threshold for rate, threshold in scores.thresholds.items() if threshold is not None}
    return {
        "thresholds": {str(rate): round(threshold, 4) for rate, threshold in thresholds.items()},
        "false_positives": {str(rate): share_above(others, threshold) for rate, threshold in thresholds.items()},
        "true_positives": {str(rate): share_above(matches, threshold) for rate, threshold in thresholds.items()},
        "false_positives_by_cosine": [share_above(others, cosine) for cosine in COSINES],
        "true_positives_by_cosine": [share_above(matches, cosine) for cosine in COSINES],
    }


def share_above(rising: np.ndarray, cosine: float) -> float | None:
    """Return the share of sorted cosines above one, `None` if there are no cosines."""
    if not len(rising):
        return None
    return round(float(1 - np.searchsorted(rising, cosine, side="right") / len(rising)), 6)


def measure_hard(scores: CalibratedScores, pairs: Pairs) -> dict:
    """Return what the calibration makes of phrases of another thing, which are no part of what it was fitted on."""
    probabilities = scores.curve.probabilities(pairs.cosines)
    return {
        "others": len(pairs.cosines),
        "taken_for_matches": round(float((probabilities >= 0.5).mean()), 4),
        **{
            f"above_{rate}": round(float((pairs.cosines > threshold).mean()), 4)
            for rate, threshold in scores.thresholds.items()
            if threshold is not None
        },
    }


def measure_all(scores: CalibratedScores, embedder: Embedder, kinds: dict[str, Pairs], described: AllPairs) -> dict:
    """Return a row of `results.json`: all pairs of a head, its kinds, and pictures from elsewhere where there are."""
    key = scores.key
    row = {**key._asdict(), "method": scores.method, "all": measure(embedder, scores, without_hard(kinds))}
    if len(kinds) > 1:
        row["kinds"] = {kind: measure(embedder, scores, pairs) for kind, pairs in kinds.items() if kind != HARD}
    if HARD in kinds:
        row[HARD] = measure_hard(scores, kinds[HARD])
    if key[:2] in described:
        row["described"] = measure(embedder, scores, joined([*described[key[:2]].values()]))
    return row


def run(options: argparse.Namespace) -> tuple[Calibration, dict]:
    """Fit and evaluate; see the module."""
    embedder = Embedder.from_pretrained(device="cpu")
    table = load_concepts(options.cache)
    fitted = all_pairs(embedder, options.cache, table, FITTED, options.scenes)
    tried = try_methods(fitted)
    print(json.dumps({"tried": tried}), flush=True)
    methods = {role: chosen_method(errors) for role, errors in tried.items()}
    log_test_run(options, embedder.fingerprint)
    evaluated = all_pairs(embedder, options.cache, table, EVALUATED, options.scenes)
    described = described_pairs(embedder, options.cache, DESCRIBED_BUDGETS, 0)
    scores = [its for budget in BUDGETS for its in fit(fitted[budget], evaluated[budget], budget, methods, embedder)]
    measured = [
        measure_all(
            its,
            embedder,
            evaluated[its.key.max_num_patches][its.key[:2]],  # type: ignore[index]
            described.get(its.key.max_num_patches, {}),  # type: ignore[arg-type]
        )
        for its in scores
    ]
    checkpoint = {"name": embedder.name, "fingerprint": embedder.fingerprint}
    results = {
        "settings": {"scenes": options.scenes, "fitted": FITTED, "evaluated": EVALUATED, "budgets": BUDGETS},
        "checkpoint": checkpoint,
        "versions": versions(),
        "tried": tried,
        "cosines": COSINES.tolist(),
        "measured": measured,
    }
    return Calibration(checkpoint, tuple(scores)), results


def main(arguments: list[str] | None = None) -> None:
    """Write calibration, results, tables and plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="Folder of the data (default: %(default)s)."
    )
    parser.add_argument("--scenes", type=int, default=SCENES, help="Scenes of each set (default: %(default)s).")
    parser.add_argument(
        "--output", type=Path, default=embedded_checkpoint() / CALIBRATION_FILE, help="Where the calibration goes."
    )
    options = parser.parse_args(arguments)
    options.split, options.max_num_patches = EVALUATED[0], list(BUDGETS)  # for the log
    calibration, results = run(options)
    calibration.save(options.output)
    (HERE / "results.json").write_text(json.dumps(results, ensure_ascii=False) + "\n", encoding="utf-8")
    report.main()


if __name__ == "__main__":
    main()
