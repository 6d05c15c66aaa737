"""Calibrate the embedded checkpoint on validation scenes, and evaluate the calibration on test scenes.

    python -m recipes.calibration.run

Writes the `calibration.json` beside the checkpoint in the package, `results.json` beside this file, and tables and
plots by `report.py`. The scenes of both are none that the checkpoint was trained on: those it is fitted on are of the
validation artist, those of the evaluation of the test artist, on other photographs. The run is logged in
`recipes/scenes/test_log.jsonl`. Some five minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from fgclip2 import Embedder, embedded_checkpoint
from fgclip2.calibration import (
    CALIBRATION_FILE,
    CalibratedScores,
    Calibration,
    ScoreKey,
    expected_calibration_error,
    fit_scores,
    reliability_bins,
)
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.scene_sets import build_scene_set
from fgclip2.drawings.sources import default_cache

from ..scenes.evaluate import log_test_run, versions
from . import report
from .pairs import HARD, AllPairs, Pairs, described_pairs, joined, scene_pairs

HERE = Path(__file__).parent
# What the scenes have. At the checkpoint's own 36, which are for single drawings, curves of scenes would mislead.
BUDGETS = (100,)
SET_SIZE, SCENES = 1000, 400  # of a set, and how many of these are used
FITTED, EVALUATED = ("validation", 2), ("test", 2)  # split and seed; seed 1 is that of the benchmarks
PREVALENCES = (0.5, 0.01)
COSINES = np.round(np.linspace(-0.4, 0.8, 61), 2)  # of the curves of false positives


def fit(pairs: AllPairs, checked: AllPairs, budget: int, embedder: Embedder) -> list[CalibratedScores]:
    """Fit the curve of each head and language on the pairs of one set, and evaluate it on those of the other."""
    scores = []
    for (role, language), kinds in sorted(pairs.items()):
        fitted, evaluated = without_hard(kinds), without_hard(checked[role, language])
        both = joined([fitted, evaluated])
        is_fitted = np.arange(len(both.cosines)) < len(fitted.cosines)
        own = embedder.probabilities(both.cosines)
        scores.append(fit_scores(ScoreKey(role, language, budget), both.cosines, both.matches, is_fitted, "platt", own))
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


def run(options: argparse.Namespace) -> tuple[Calibration, dict]:
    """Fit and evaluate; see the module."""
    embedder = Embedder.from_pretrained(device="cpu")
    log_test_run(options, embedder.fingerprint)
    table = load_concepts(options.cache)
    fitted_pairs, evaluated_pairs = (
        scene_pairs(
            embedder, build_scene_set(options.cache, table, split, SET_SIZE, seed), options.scenes, BUDGETS, number
        )
        for number, (split, seed) in enumerate((FITTED, EVALUATED))
    )
    described_by_budget = described_pairs(embedder, options.cache, BUDGETS, 0)
    scores: list[CalibratedScores] = []
    measured = []
    for budget in BUDGETS:
        evaluated, described = evaluated_pairs[budget], described_by_budget[budget]
        found = fit(fitted_pairs[budget], evaluated, budget, embedder)
        for its in found:
            kinds = evaluated[its.key.role, its.key.language]
            row = {**its.key._asdict(), "all": measure(embedder, its, without_hard(kinds))}
            if len(kinds) > 1:
                row["kinds"] = {kind: measure(embedder, its, pairs) for kind, pairs in kinds.items() if kind != HARD}
                row[HARD] = measure_hard(its, kinds[HARD])
            if its.key[:2] in described:
                row["described"] = measure(embedder, its, described[its.key[:2]]["captions"])
            measured.append(row)
            print(json.dumps({**its.key._asdict(), **row["all"]["calibration_error"]}), flush=True)
        scores += found
    calibration = Calibration({"name": embedder.name, "fingerprint": embedder.fingerprint}, tuple(scores))
    settings = {"scenes": options.scenes, "fitted": FITTED, "evaluated": EVALUATED, "budgets": BUDGETS}
    checkpoint = {"name": embedder.name, "fingerprint": embedder.fingerprint}
    results = {
        "settings": settings,
        "checkpoint": checkpoint,
        "versions": versions(),
        "cosines": COSINES.tolist(),
        "measured": measured,
    }
    return calibration, results


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
