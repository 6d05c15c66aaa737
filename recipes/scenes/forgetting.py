"""Measure how much less the shipped checkpoint, trained further, forgets with distillation from the frozen start.

    python -m recipes.scenes.forgetting --output recipes/scenes/results/forgetting --validation-scenes 500 \
        --threads 1 --no-bf16 --lower-rates 2e-4 1e-4 2e-5

The captions of composed scenes alone are trained on, by the package's trainer, with all seeds, without and with
`distillation_weight`, and without it at lower learning rates, which forget less too. Runs that have no result file yet
are run one after another, so the command may be stopped and started again; then it writes `table.md`. All is measured
on the validation split, and nothing on the test split.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import cached_property

import torch

from fgclip2.assets import embedded_checkpoint
from fgclip2.data.records import RecordDataset
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.scene_sets import build_scene_set
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor
from fgclip2.training import FGClip2ForTraining

from .ablation_report import cell, row
from .experiments import (
    TRAIN_SEED,
    add_options,
    make_trainer,
    stored,
    stored_result,
    train_and_measure,
    training_records,
    write_whole,
)
from .trainee import ROOT
from .validation import SCENE_PATCHES, SceneValidation

CAPTIONS, DISTILLED = "captions", "distillation"  # names of settings
CAPTIONS_ALONE = {"region_weight": 0.0, "tic_weight": 0.0, "hard_negative_weight": 0.0}
# Measures: first what is trained, then what is not and may be forgotten.
COLUMNS = tuple(
    f"{metric}_{language}" for metric in ("long", "short", "photo", "box", "hard") for language in ("en", "zh")
)


@dataclass(frozen=True)
class Setting:
    """Settings in which the compared runs differ."""

    learning_rate: float
    distillation_weight: float = 0.0


def settings_of(options: argparse.Namespace) -> dict[str, Setting]:
    """Return the settings that are compared, by name."""
    lower = {f"{CAPTIONS}-{rate:g}": Setting(rate) for rate in options.lower_rates}
    rate = options.learning_rate
    return {CAPTIONS: Setting(rate), **lower, DISTILLED: Setting(rate, options.weight)}


class Comparison:
    """Runs what has no result file yet.

    Args:
        options: Of the command.
    """

    def __init__(self, options: argparse.Namespace):
        self.options, self.checkpoint = options, embedded_checkpoint()
        self.processor = FGClip2Processor.from_pretrained(self.checkpoint)

    @cached_property
    def records(self) -> RecordDataset:
        options = self.options
        scenes = build_scene_set(options.cache, load_concepts(options.cache), "train", options.scenes, TRAIN_SEED)
        return training_records(scenes)

    @cached_property
    def validation(self) -> SceneValidation:
        return SceneValidation(
            self.options.cache, self.processor, self.options.validation_scenes, with_free_language=False
        )

    def start(self) -> dict:
        """Return the measures of the checkpoint that all runs begin with."""
        return stored(self.options.output / "start.json", lambda: self.validation(self._model().eval()))

    def result(self, name: str, setting: Setting, seed: int) -> dict:
        """Return what is kept of a run, after it if it has no result file."""
        options = self.options
        settings = {
            "setting": name,
            "objective": {**CAPTIONS_ALONE, "distillation_weight": setting.distillation_weight},
            "seed": seed,
            "steps": options.steps,
            "batch_size": options.batch_size,
            "learning_rate": setting.learning_rate,
            "scenes": options.scenes,
            "train_seed": TRAIN_SEED,
            "max_regions": 1,
            "max_num_patches": SCENE_PATCHES,
            "validation_scenes": options.validation_scenes,
        }

        def trained() -> dict:
            torch.manual_seed(seed)
            trainer = make_trainer(self._model(), self.processor, self.records, settings, options)
            return train_and_measure(trainer, settings, self.validation)

        return stored_result(options.output / f"{name}-seed-{seed}.json", settings, trained)

    def _model(self) -> FGClip2ForTraining:
        # Eager attention, for with so few patches the fused kernels' backward pass is slower on a CPU.
        return FGClip2ForTraining.from_pretrained(self.checkpoint, dtype=torch.float32, attn_implementation="eager")


def markdown(start: dict, results: dict[str, list[dict]]) -> str:
    """Return the measures of the start, how far each setting is from it, and distillation from the others.

    Args:
        start: Measures of the start.
        results: Name of a setting -> results of all seeds.
    """
    titles = [column.replace("_", " ") for column in COLUMNS]
    lines = [row(["", *titles, "seconds"]), row(["---"] * (len(COLUMNS) + 2))]
    lines.append(row(["start", *(f"{start[column]:.1f}" for column in COLUMNS), ""]))
    for name, runs in results.items():
        moved = [cell([run["metrics"][column] - start[column] for run in runs], signed=True) for column in COLUMNS]
        lines.append(row([name, *moved, f"{sum(run['seconds']['cpu'] for run in runs) / len(runs):.0f}"]))
    for name in list(results)[:-1]:  # distillation is the last
        pairs = [(a["metrics"], b["metrics"]) for a, b in zip(results[name], results[DISTILLED], strict=True)]
        cells = [cell([b[column] - a[column] for a, b in pairs], signed=True) for column in COLUMNS]
        lines.append(row([f"{DISTILLED} - {name}", *cells, ""]))
    return "\n".join(lines) + "\n"


def introduction(options: argparse.Namespace) -> str:
    """Say what the table is of."""
    lower = "".join(f", at {rate:g}" for rate in options.lower_rates)
    return (
        f"Percent on {options.validation_scenes} validation scenes. First line: the checkpoint that ships. Next: "
        f"the change by {options.steps} steps on the captions of {options.scenes} training scenes in two languages, in "
        f"batches of {options.batch_size}, AdamW, at a peak learning rate of {options.learning_rate:g}{lower}, and at "
        f"{options.learning_rate:g} with `distillation_weight` {options.weight:g}. Last: the difference of "
        f"distillation from each of the others, seed by seed. Means over seeds {', '.join(map(str, options.seeds))}, "
        "with 95% t-intervals where there are several. Captions (long, short) are what is trained; single drawings "
        "(photo), names of boxes and hard negatives are not, and may be forgotten. Seconds are of CPU, of training.\n\n"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, ROOT / ".cache" / "scenes" / "forgetting")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument(
        "--lower-rates", type=float, nargs="*", default=[], help="Learning rates to compare with, without distillation."
    )
    parser.add_argument("--weight", type=float, default=30.0, help="Weight of distillation.")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    comparison = Comparison(options)
    start = comparison.start()
    settings = settings_of(options)
    results: dict[str, list[dict]] = {name: [] for name in settings}
    for seed in options.seeds:  # seed by seed, so that whole comparisons are there early
        for name, setting in settings.items():
            results[name].append(comparison.result(name, setting, seed))
    text = introduction(options) + markdown(start, results)
    write_whole(options.output / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
