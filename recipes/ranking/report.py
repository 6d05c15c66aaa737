"""The results of `compare.py` as a Markdown table, as far as there are any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fgclip2.files import read_json

RESAMPLES = 2000
# Column of the table -> arm of the runs, and way to rank; without an arm there was nothing to train.
WAYS: dict[str, tuple[str | None, str]] = {
    "dual encoder": (None, "dual encoder"),
    "dual encoder, trained further": ("dual", "dual encoder"),
    "phrases": (None, "phrases"),
    "ranking stage": ("stage", "stage"),
    "ranking stage, trained with shuffled images": ("shuffled", "stage"),
    "phrases and ranking stage": ("stage", "phrases"),
    "phrases and stage trained with shuffled images": ("shuffled", "phrases"),
}


def bits(digits: str) -> np.ndarray:
    """Return a string of 0 and 1 as numbers."""
    return np.array([int(digit) for digit in digits], dtype=float)


def interval(hits: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Return the 95% interval of a mean over runs and queries, both of which are resampled.

    Args:
        hits: Shape (runs, queries), 0 or 1.
        seed: Of the resampling.
    """
    rng = np.random.default_rng(seed)
    runs, queries = hits.shape
    means = [
        hits[rng.integers(runs, size=runs)][:, rng.integers(queries, size=queries)].mean() for _ in range(RESAMPLES)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def chosen_weight(runs: Sequence[dict]) -> str:
    """Return the way to rank that adds the stage to phrases with the weight that is best on validation scenes."""
    ways = [way for way in runs[0]["hits"] if way.startswith("phrases + ")]
    return max(ways, key=lambda way: np.mean([bits(its).mean() for run in runs for its in run["hits"][way].values()]))


def table(folder: Path, split: str) -> str:
    """Return the table of a split, whose weights are those that validation scenes chose.

    Args:
        folder: Of the results.
        split: "validation" or "test".
    """
    arms = sorted({arm for arm, _ in WAYS.values() if arm is not None})
    validation = {arm: _read(folder, f"validation-{arm}-seed-*.json") for arm in arms}
    runs = {
        None: [read_json(folder / f"{split}.json")],
        **{arm: _read(folder, f"{split}-{arm}-seed-*.json") for arm in arms},
    }
    names = list(runs[None][0]["hits"]["dual encoder"])
    titles, cells, notes = [], [], []
    for title, (arm, way) in WAYS.items():
        if not runs[arm]:
            continue
        if arm is not None and way == "phrases":
            way = chosen_weight(validation[arm])
            notes.append(f"- {title}: {way}, as validation scenes chose")
        titles.append(title)
        hits = [run["hits"][way] for run in runs[arm]]
        cells.append([_cell([bits(its[name]) for its in hits if name in its]) for name in names])
    lines = [
        ["queries", *titles],
        ["---"] * (1 + len(titles)),
        *([name, *row] for name, *row in zip(names, *cells, strict=True)),
    ]
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", *notes]) + "\n"


def _cell(hits: list[np.ndarray]) -> str:
    if not hits:
        return ""
    low, high = interval(np.stack(hits))
    return f"{100 * np.mean(hits):.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _read(folder: Path, pattern: str) -> list[dict]:
    return [read_json(path) for path in sorted(folder.glob(pattern))]
