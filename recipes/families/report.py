"""The results of `compare.py` as Markdown tables, as far as there are any."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fgclip2.files import read_json
from fgclip2.languages import LANGUAGES

from ..scenes.ablation_report import markdown, means
from .designs import DESIGNS

METRICS = ("long", "long@10", "short", "short@10", "box", "hard", "photo")
COLUMNS = tuple(f"{metric}_{language}" for metric in METRICS for language in LANGUAGES)
_FILE = re.compile(r"(?P<design>\w+)-(?P<teraflops>[\d.]+)-teraflops-rate-(?P<rate>\S+)-seed-(?P<seed>\d+)\.json")


class Run(NamedTuple):
    """A run by what the file of its result is called by."""

    design: str
    teraflops: float
    rate: float
    seed: int

    @property
    def file(self) -> str:
        return f"{self.design}-{self.teraflops:g}-teraflops-rate-{self.rate:g}-seed-{self.seed}.json"

    @property
    def title(self) -> str:
        return f"{DESIGNS[self.design].title}, {self.rate:g}"


def read_results(folder: Path) -> dict[Run, dict]:
    """Return the results in a folder by their runs, in order."""
    found = [(match, path) for path in folder.iterdir() if (match := _FILE.fullmatch(path.name))]
    results = {
        Run(match["design"], float(match["teraflops"]), float(match["rate"]), int(match["seed"])): read_json(path)
        for match, path in found
    }
    return {run: results[run] for run in sorted(results)}


def best_rate(results: dict[float, dict]) -> float:
    """Return the learning rate with the highest mean of all measures; `results` are of one design."""
    return max(results, key=lambda rate: np.mean([results[rate]["metrics"][column] for column in COLUMNS]))


def tables(folder: Path) -> str:
    """Return the search of learning rates, then for each budget the designs and their difference.

    A budget is compared by the seeds that both designs have been run with, each with its own best learning rate.
    """
    results = read_results(folder)
    flops = {name: read_json(folder / f"flops-{name}.json") for name in {run.design for run in results}}
    of_titles = {run.title: flops[run.design] for run in results}
    smallest, first = min(run.teraflops for run in results), min(run.seed for run in results)
    search = {run: result for run, result in results.items() if (run.teraflops, run.seed) == (smallest, first)}
    text = f"Learning rates, at {smallest:g} TFLOPs and with seed {first}:\n\n"
    text += means({run.title: [result] for run, result in search.items()}, of_titles, COLUMNS)
    rates = {name: best_rate({r.rate: result for r, result in search.items() if r.design == name}) for name in flops}
    if set(rates) != set(DESIGNS):
        return text
    for teraflops in sorted({run.teraflops for run in results}):
        runs = [
            [Run(name, teraflops, rates[name], seed) for name in DESIGNS]
            for seed in sorted({run.seed for run in results})
        ]
        if complete := [pair for pair in runs if all(run in results for run in pair)]:
            by_title = {of[0].title: [results[run] for run in of] for of in zip(*complete, strict=True)}
            seeds = ", ".join(str(pair[0].seed) for pair in complete)
            text += f"\nAt {teraflops:g} TFLOPs, seeds {seeds}:\n\n" + markdown(by_title, of_titles, COLUMNS)
    return text
