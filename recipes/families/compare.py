"""FG-CLIP beside FG-CLIP 2, both from random weights, at equal data, parameters and compute.

    python -m recipes.families.compare --output recipes/families/results

First each design is trained with every learning rate, at the smallest budget and with the first seed; the rate with the
highest mean of all measures is its own from then on. Then follow all seeds at each budget. Runs that have no result
file yet are run one after another, so the command may be stopped and started again. `table.md` has what there is.
"""

from __future__ import annotations

import argparse
import hashlib
from functools import cached_property

import torch

from fgclip2 import FGClip2Trainer
from fgclip2.data import concatenate
from fgclip2.data.records import RecordDataset
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.scene_sets import SceneSet, build_scene_set
from fgclip2.languages import LANGUAGES

from ..scenes.experiments import (
    TRAIN_SEED,
    add_options,
    flops_of_training,
    make_trainer,
    stored,
    stored_result,
    train_and_measure,
    training_records,
    write_whole,
)
from ..scenes.trainee import ROOT
from ..scenes.validation import SceneValidation
from .designs import DESIGNS, parameters_outside_embeddings
from .drawings import build_drawing_set
from .report import Run, best_rate, tables

COUNTED_STEPS = 20  # over which FLOPs are averaged: batches have different numbers of regions and lengths of texts


def trainer_of(settings: dict, records: RecordDataset, options: argparse.Namespace) -> FGClip2Trainer:
    """Return a trainer of a design, whose random weights follow from the seed."""
    design = DESIGNS[settings["design"]]
    torch.manual_seed(settings["seed"])
    return make_trainer(design.model(), design.processor(), records, settings, options)


class Comparison:
    """Runs what has no result file yet."""

    def __init__(self, options: argparse.Namespace):
        self.options = options

    @cached_property
    def sets(self) -> list[SceneSet]:
        """Build what is trained on: composed scenes, and single drawings."""
        table = load_concepts(self.options.cache)
        scenes = build_scene_set(self.options.cache, table, "train", self.options.scenes, TRAIN_SEED)
        return [scenes, build_drawing_set(self.options.cache, table, TRAIN_SEED)]

    @cached_property
    def records(self) -> RecordDataset:
        return concatenate([training_records(scene_set) for scene_set in self.sets])

    @cached_property
    def data_digest(self) -> str:
        """Texts and boxes of all records, as a hash: unlike the sets' names it stays when only code has changed."""
        files = [scene_set.folder / f"scenes_{language}.json" for scene_set in self.sets for language in LANGUAGES]
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]

    @cached_property
    def validations(self) -> dict[str, SceneValidation]:
        """Design -> what measures it, all pictures at the patches that it was trained with."""
        cache, count = self.options.cache, self.options.validation_scenes
        return {
            name: SceneValidation(
                cache,
                design.processor(),
                count,
                design.max_num_patches,
                design.max_num_patches,
                with_free_language=False,
            )
            for name, design in DESIGNS.items()
        }

    def settings(self, run: Run, steps: int) -> dict:
        """Return what the run's result depends on; it is written into it."""
        design = DESIGNS[run.design]
        return {
            "design": run.design,
            "preset": design.objective,
            "objective": {},
            "parameters": parameters_outside_embeddings(design.model()),
            "seed": run.seed,
            "steps": steps,
            "batch_size": self.options.batch_size,
            "learning_rate": run.rate,
            "records": len(self.records),
            "data_digest": self.data_digest,
            "max_regions": self.options.max_regions,
            "max_num_patches": design.max_num_patches,
            "validation_scenes": self.options.validation_scenes,
        }

    def flops(self, run: Run) -> float:
        """Return the mean FLOPs of the design's first steps, counted once and kept beside the results."""
        settings = self.settings(run, COUNTED_STEPS)
        return stored(
            self.options.output / f"flops-{run.design}.json",
            lambda: flops_of_training(trainer_of(settings, self.records, self.options)) / COUNTED_STEPS,
        )

    def result(self, run: Run) -> dict:
        """Read the result file, after the run if there is none."""
        settings = self.settings(run, round(run.teraflops * 1e12 / self.flops(run)))
        result = stored_result(
            self.options.output / run.file,
            settings,
            lambda: train_and_measure(
                trainer_of(settings, self.records, self.options), settings, self.validations[run.design]
            ),
        )
        write_whole(self.options.output / "table.md", tables(self.options.output))
        return result

    def chosen_rate(self, name: str) -> float:
        """Return the design's learning rate, after the runs of the search if need be."""
        options = self.options
        runs = [Run(name, min(options.teraflops), rate, options.seeds[0]) for rate in options.learning_rates]
        return best_rate({run.rate: self.result(run) for run in runs})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, ROOT / ".cache" / "families")
    parser.add_argument(
        "--teraflops", type=float, nargs="+", default=[40], help="Compute of a run (default: %(default)s)."
    )
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", default=[2.5e-4, 5e-4, 1e-3], help="Rates that are tried."
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    comparison = Comparison(options)
    rates = {name: comparison.chosen_rate(name) for name in DESIGNS}
    for teraflops in sorted(options.teraflops):
        for seed in options.seeds:
            for name in DESIGNS:
                comparison.result(Run(name, teraflops, rates[name], seed))
    print((options.output / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
