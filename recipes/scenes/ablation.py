"""The worth of each term of the objective: the package's trainer on scenes, from the first stage's checkpoint.

    python -m recipes.scenes.ablation --output recipes/scenes/ablation

Five cumulative settings (captions only; + regions; + hard negatives; + rank loss; + TIC), every one with all seeds, at
equal compute: as many steps as the whole objective's FLOPs pay for, and, where that is more, also at equal steps.
Runs that have no result file yet are run one after another, so the command may be stopped and started again; then it
writes `table.md`.
"""

from __future__ import annotations

import argparse
from functools import cached_property
from pathlib import Path

import torch

from fgclip2 import FGClip2Trainer
from fgclip2.data.records import RecordDataset
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.scene_sets import build_scene_set
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor

from .ablation_report import introduction, markdown
from .experiments import (
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
from .settings import OBJECTIVE, SceneSettings
from .trainee import CHECKPOINT, ROOT, check_checkpoint, load_start
from .validation import SCENE_PATCHES, SceneValidation

# Cumulative: each adds one term of the objective to those above it.
SETTINGS: dict[str, dict[str, float]] = {
    "captions": {"region_weight": 0.0, "tic_weight": 0.0, "hard_negative_weight": 0.0},
    "+ regions": {"tic_weight": 0.0, "hard_negative_weight": 0.0},
    "+ hard negatives": {"tic_weight": 0.0, "rank_weight": 0.0},
    "+ rank loss": {"tic_weight": 0.0},
    "+ TIC": {},
}
WHOLE = "+ TIC"


def result_path(folder: Path, name: str, steps: int, seed: int) -> Path:
    return folder / f"{name.removeprefix('+ ').replace(' ', '-')}-{steps}-steps-seed-{seed}.json"


def run_settings(options: argparse.Namespace, name: str, steps: int, seed: int) -> dict:
    """Return what a run's result depends on; it is written into it."""
    return {
        "setting": name,
        "objective": {**OBJECTIVE, **SETTINGS[name]},
        "seed": seed,
        "steps": steps,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "scenes": options.scenes,
        "train_seed": TRAIN_SEED,
        "max_regions": options.max_regions,
        "max_num_patches": SCENE_PATCHES,
        "region_scale": SceneSettings().region_scale,
        "validation_scenes": options.validation_scenes,
    }


def trainer_of(options: argparse.Namespace, settings: dict, records: RecordDataset) -> FGClip2Trainer:
    """A trainer of the first stage's checkpoint, its random state set."""
    torch.manual_seed(settings["seed"])
    model = load_start(options.checkpoint, settings["region_scale"])
    processor = FGClip2Processor.from_pretrained(options.checkpoint)
    return make_trainer(model, processor, records, settings, options)


def flops_of_a_step(options: argparse.Namespace, name: str, records: RecordDataset) -> int:
    """Floating-point operations of a training step, forward and backward; texts and pictures are padded to one size."""
    return flops_of_training(trainer_of(options, run_settings(options, name, 1, 0), records))


def equal_compute(flops: dict[str, int], steps: int) -> dict[str, int]:
    """Setting -> steps that cost as much as `steps` of the whole objective; `flops` are of one step."""
    return {name: round(steps * flops[WHOLE] / one) for name, one in flops.items()}


class Ablation:
    """Runs what has no result file yet."""

    def __init__(self, options: argparse.Namespace):
        self.options = options

    @cached_property
    def records(self) -> RecordDataset:
        options = self.options
        table = load_concepts(options.cache)
        return training_records(build_scene_set(options.cache, table, "train", options.scenes, TRAIN_SEED))

    @cached_property
    def validation(self) -> SceneValidation:
        processor = FGClip2Processor.from_pretrained(self.options.checkpoint)
        return SceneValidation(self.options.cache, processor, self.options.validation_scenes)

    def flops(self) -> dict[str, int]:
        """Setting -> FLOPs of a step, counted once and kept beside the results."""
        return stored(
            self.options.output / "flops.json",
            lambda: {name: flops_of_a_step(self.options, name, self.records) for name in SETTINGS},
        )

    def result(self, name: str, steps: int, seed: int) -> dict:
        """Read the result file, after a run if there is none."""
        settings = run_settings(self.options, name, steps, seed)
        return stored_result(
            result_path(self.options.output, name, steps, seed),
            settings,
            lambda: train_and_measure(trainer_of(self.options, settings, self.records), settings, self.validation),
        )

    def results(self, steps: dict[str, int]) -> dict[str, list[dict]]:
        """Setting -> results of all seeds, with so many steps each."""
        by_seed = [{name: self.result(name, steps[name], seed) for name in SETTINGS} for seed in self.options.seeds]
        return {name: [one[name] for one in by_seed] for name in SETTINGS}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, ROOT / ".cache" / "scenes" / "ablation")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="Checkpoint to start from.")
    parser.add_argument("--steps", type=int, default=200, help="Steps of the whole objective.")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    check_checkpoint(options.checkpoint)
    ablation = Ablation(options)
    flops = ablation.flops()
    compute = ablation.results(equal_compute(flops, options.steps))
    steps = ablation.results(dict.fromkeys(SETTINGS, options.steps))
    text = introduction(run_settings(options, WHOLE, options.steps, 0), options.seeds)
    text += "At equal compute:\n\n" + markdown(compute, flops) + "\nAt equal steps:\n\n" + markdown(steps, flops)
    write_whole(options.output / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
