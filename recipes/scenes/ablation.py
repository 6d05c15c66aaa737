"""The worth of each term of the objective: the package's trainer on scenes, from the first stage's checkpoint.

    python -m recipes.scenes.ablation --output recipes/scenes/ablation

Five cumulative settings (captions only; + regions; + hard negatives; + rank loss; + TIC), every one with all seeds, at
equal compute: as many steps as the whole objective's FLOPs pay for, and, where that is more, also at equal steps.
Runs that have no result file yet are run one after another, so the command may be stopped and started again; then it
writes `table.md`.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import cached_property
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback

from fgclip2 import FGClip2Trainer, FGClip2TrainingArguments
from fgclip2.data import concatenate, read_finehard
from fgclip2.data.records import RecordDataset
from fgclip2.drawings.concepts import load_concepts
from fgclip2.drawings.scene_sets import SceneSet, build_scene_set
from fgclip2.drawings.sources import default_cache
from fgclip2.files import read_json, replacing
from fgclip2.languages import LANGUAGES
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor

from .ablation_report import introduction, markdown
from .settings import OBJECTIVE, SceneSettings
from .trainee import CHECKPOINT, ROOT, check_checkpoint, load_start
from .validation import SceneValidation

# Cumulative: each adds one term of the objective to those above it.
SETTINGS: dict[str, dict[str, float]] = {
    "captions": {"region_weight": 0.0, "tic_weight": 0.0, "hard_negative_weight": 0.0},
    "+ regions": {"tic_weight": 0.0, "hard_negative_weight": 0.0},
    "+ hard negatives": {"tic_weight": 0.0, "rank_weight": 0.0},
    "+ rank loss": {"tic_weight": 0.0},
    "+ TIC": {},
}
WHOLE = "+ TIC"
TRAIN_SEED = 2  # of the training scenes
PATCHES = 100


def training_records(scene_set: SceneSet) -> RecordDataset:
    """The set's pictures twice, with the texts of each language."""
    files = [scene_set.folder / f"scenes_{language}.json" for language in LANGUAGES]
    return concatenate([read_finehard(file, scene_set.folder) for file in files])


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
        "max_num_patches": PATCHES,
        "region_scale": SceneSettings().region_scale,
        "validation_scenes": options.validation_scenes,
    }


class LossLog(TrainerCallback):
    """Keeps the logged means of the losses."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        losses = {name: round(value, 4) for name, value in logs.items() if name.endswith("loss")}
        if losses:
            self.rows.append({"step": state.global_step, **losses})


def make_trainer(options: argparse.Namespace, settings: dict, records: RecordDataset) -> FGClip2Trainer:
    """A trainer of the first stage's checkpoint, its random state set."""
    torch.manual_seed(settings["seed"])
    model = load_start(options.checkpoint, settings["region_scale"])
    arguments = FGClip2TrainingArguments(
        output_dir=str(options.work),
        max_steps=settings["steps"],
        per_device_train_batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        weight_decay=0.05,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        objective_settings=settings["objective"],
        max_num_patches=str(settings["max_num_patches"]),
        max_regions=settings["max_regions"],
        seed=settings["seed"],
        bf16=options.bf16,
        use_cpu=True,
        logging_steps=25,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    processor = FGClip2Processor.from_pretrained(options.checkpoint)
    return FGClip2Trainer(model, arguments, train_dataset=records, processing_class=processor)


def flops_of_a_step(options: argparse.Namespace, name: str, records: RecordDataset) -> int:
    """Floating-point operations of a training step, forward and backward; texts and pictures are padded to one size."""
    trainer = make_trainer(options, run_settings(options, name, 1, 0), records)
    with FlopCounterMode(display=False) as counter:
        trainer.train()
    return counter.get_total_flops()


def equal_compute(flops: dict[str, int], steps: int) -> dict[str, int]:
    """Setting -> steps that cost as much as `steps` of the whole objective; `flops` are of one step."""
    return {name: round(steps * flops[WHOLE] / one) for name, one in flops.items()}


def run(options: argparse.Namespace, settings: dict, records: RecordDataset, validation: SceneValidation) -> dict:
    """Train once and measure."""
    trainer, log = make_trainer(options, settings, records), LossLog()
    trainer.add_callback(log)
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return {
        "settings": settings,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "metrics": validation(trainer.model),
        "losses": log.rows,
    }


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
        tokenizer = FGClip2Processor.from_pretrained(self.options.checkpoint).tokenizer
        return SceneValidation(self.options.cache, tokenizer, self.options.validation_scenes)

    def flops(self) -> dict[str, int]:
        """Setting -> FLOPs of a step, counted once and kept beside the results."""
        path = self.options.output / "flops.json"
        if not path.exists():
            counted = {name: flops_of_a_step(self.options, name, self.records) for name in SETTINGS}
            write_whole(path, json.dumps(counted, indent=1) + "\n")
        return read_json(path)

    def result(self, name: str, steps: int, seed: int) -> dict:
        """Read the result file, after a run if there is none.

        Raises:
            ValueError: If the file has the result of other settings.
        """
        path = result_path(self.options.output, name, steps, seed)
        settings = run_settings(self.options, name, steps, seed)
        if not path.exists():
            write_whole(path, json.dumps(run(self.options, settings, self.records, self.validation), indent=1) + "\n")
        result = read_json(path)
        if result["settings"] != settings:
            raise ValueError(f"{path} has other settings than this run: remove it, or choose another --output")
        print(json.dumps({"setting": name, "steps": steps, "seed": seed, **result["metrics"]}), flush=True)
        return result

    def results(self, steps: dict[str, int]) -> dict[str, list[dict]]:
        """Setting -> results of all seeds, with so many steps each."""
        by_seed = [{name: self.result(name, steps[name], seed) for name in SETTINGS} for seed in self.options.seeds]
        return {name: [one[name] for one in by_seed] for name in SETTINGS}


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="Folder of the data (default: %(default)s)."
    )
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="Checkpoint to start from.")
    parser.add_argument("--output", type=Path, required=True, help="Folder of the results and the table.")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "scenes" / "ablation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200, help="Steps of the whole objective.")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--scenes", type=int, default=4000, help="Number of training scenes, each with both languages.")
    parser.add_argument("--max-regions", type=int, default=2, help="Most regions per scene and step.")
    parser.add_argument("--validation-scenes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, default=True, help="Train in bfloat16 autocast."
    )
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
