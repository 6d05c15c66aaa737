"""The results of `ablation.py` as Markdown tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from fgclip2.languages import LANGUAGES

METRICS = ("long", "short", "box", "hard", "photo")
COLUMNS = tuple(f"{metric}_{language}" for metric in METRICS for language in LANGUAGES)
# Two-sided 95% quantiles of Student's t by degrees of freedom.
T_QUANTILES = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean of a few runs and the half width of its 95% interval, which is infinite for one run."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, float("inf")
    freedom = len(values) - 1
    quantile = T_QUANTILES.get(freedom, T_QUANTILES[max(T_QUANTILES)])
    return mean, quantile * float(np.std(values, ddof=1)) / len(values) ** 0.5


def cell(values: Sequence[float], signed: bool = False) -> str:
    """`12.3 ± 1.4`; without the interval where there is only one value."""
    mean, half = t_interval(values)
    text = f"{mean:+.1f}" if signed else f"{mean:.1f}"
    return text if half == float("inf") else f"{text} ± {half:.1f}"


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def markdown(results: dict[str, list[dict]], flops: dict[str, float], columns: Sequence[str] = COLUMNS) -> str:
    """Means over seeds with what was spent, and differences from the setting above with the same seeds.

    Args:
        results: Setting -> results of all seeds, in the order of the settings.
        flops: Setting -> FLOPs of a step.
        columns: Names of the metrics.
    """
    return means(results, flops, columns) + "\n" + differences(results, columns)


def means(results: dict[str, list[dict]], flops: dict[str, float], columns: Sequence[str] = COLUMNS) -> str:
    """Return the first table of `markdown`."""
    titles = [column.replace("_", " ") for column in columns]
    lines = [row(["setting", *titles, "steps", "TFLOPs", "seconds"]), row(["---"] * (len(columns) + 4))]
    for name, runs in results.items():
        steps = runs[0]["settings"]["steps"]
        spent = [
            f"{steps}",
            f"{steps * flops[name] / 1e12:.0f}",
            f"{np.mean([r['seconds']['wall'] for r in runs]):.0f}",
        ]
        lines.append(row([name, *(cell([run["metrics"][column] for run in runs]) for column in columns), *spent]))
    return "\n".join(lines) + "\n"


def differences(results: dict[str, list[dict]], columns: Sequence[str] = COLUMNS) -> str:
    """Return the second table of `markdown`."""
    lines = [row(["difference", *(column.replace("_", " ") for column in columns)])]
    lines.append(row(["---"] * (len(columns) + 1)))
    for (_, before), (name, after) in itertools.pairwise(results.items()):
        pairs = [(a["metrics"], b["metrics"]) for a, b in zip(before, after, strict=True)]
        lines.append(row([name, *(cell([b[c] - a[c] for a, b in pairs], signed=True) for c in columns)]))
    return "\n".join(lines) + "\n"


def introduction(settings: dict, seeds: Sequence[int]) -> str:
    """Say what the tables are of."""
    return (
        f"Percent on {settings['validation_scenes']} validation scenes: recall@1 of long and short captions from the "
        "picture, names of things in boxes among 837 by region features, all ten hard negatives beaten; and the photo "
        f"protocol on the validation artist. Batches of {settings['batch_size']} records of {settings['scenes']} "
        f"training scenes in both languages, AdamW, peak learning rate {settings['learning_rate']:g}, up to "
        f"{settings['max_regions']} regions per scene, from the first stage's checkpoint. Means over seeds "
        f"{', '.join(map(str, seeds))} with 95% t-intervals. FLOPs are counted, of forward and backward; seconds are "
        "of training, on a machine that other work may have shared. Below each table: the difference from the setting "
        "above it, seed by seed. Runs of a seed see the same records in the same order, as far as their steps go.\n\n"
    )
