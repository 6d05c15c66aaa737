"""What each term of the objective is worth: the package's trainer on scenes, from the first stage's checkpoint.

    python recipes/scenes/ablation.py --output recipes/scenes/ablation

Five cumulative settings (captions only; + regions; + hard negatives; + rank loss; + TIC), each with the same steps,
batches and order of records, with every seed. Runs that have no result file yet are run one after another, so the
command may be stopped and started again; then it writes `table.md`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path

import first_stage  # before the modules that are the first stage's
import numpy as np
import torch
from scene_settings import OBJECTIVE, SceneSettings
from scene_trainee import load_start
from scene_validation import SceneValidation
from transformers import TrainerCallback

from fgclip2 import FGClip2Trainer, FGClip2TrainingArguments
from fgclip2.data import concatenate, read_finehard
from fgclip2.data.demo.concepts import LANGUAGES, load_concepts
from fgclip2.data.demo.scene_sets import SceneSet, build_scene_set
from fgclip2.data.demo.sources import default_cache
from fgclip2.data.records import RecordDataset
from fgclip2.modeling.processing_fgclip2 import FGClip2Processor

# Cumulative: each adds one term of the objective to those above it.
SETTINGS: dict[str, dict[str, float]] = {
    "captions": {"region_weight": 0.0, "tic_weight": 0.0, "hard_negative_weight": 0.0},
    "+ regions": {"tic_weight": 0.0, "hard_negative_weight": 0.0},
    "+ hard negatives": {"tic_weight": 0.0, "rank_weight": 0.0},
    "+ rank loss": {"tic_weight": 0.0},
    "+ TIC": {},
}
METRICS = ("long", "short", "box", "hard", "photo")
TRAIN_SEED = 2  # of the training scenes
PATCHES = 100
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


def training_records(scene_set: SceneSet) -> RecordDataset:
    """The set's pictures twice, with the texts of each language."""
    files = [scene_set.folder / f"scenes_{language}.json" for language in LANGUAGES]
    return concatenate([read_finehard(file, scene_set.folder) for file in files])


def result_path(folder: Path, name: str, seed: int) -> Path:
    return folder / f"{name.removeprefix('+ ').replace(' ', '-')}-{seed}.json"


def run_settings(options: argparse.Namespace, name: str, seed: int) -> dict:
    """What a run's result depends on; written into it."""
    return {
        "setting": name,
        "objective": {**OBJECTIVE, **SETTINGS[name]},
        "seed": seed,
        "steps": options.steps,
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


def run(options: argparse.Namespace, settings: dict, records: RecordDataset, validation: SceneValidation) -> dict:
    """Train once and measure."""
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
    processor, log = FGClip2Processor.from_pretrained(options.checkpoint), LossLog()
    trainer = FGClip2Trainer(model, arguments, train_dataset=records, processing_class=processor, callbacks=[log])
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return {
        "settings": settings,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "metrics": validation(model),
        "losses": log.rows,
    }


def run_missing(options: argparse.Namespace) -> dict[str, list[dict]]:
    """Run what has no result file; setting -> results of all seeds."""
    table = load_concepts(options.cache)
    validation, records = None, None
    results: dict[str, list[dict]] = {name: [] for name in SETTINGS}
    for seed in options.seeds:
        for name in SETTINGS:
            path, settings = result_path(options.output, name, seed), run_settings(options, name, seed)
            if not path.exists():
                if records is None or validation is None:
                    records = training_records(
                        build_scene_set(options.cache, table, "train", options.scenes, TRAIN_SEED)
                    )
                    tokenizer = FGClip2Processor.from_pretrained(options.checkpoint).tokenizer
                    validation = SceneValidation(options.cache, tokenizer, options.validation_scenes)
                write_whole(path, json.dumps(run(options, settings, records, validation), indent=1) + "\n")
            result = json.loads(path.read_text(encoding="utf-8"))
            if result["settings"] != settings:
                raise ValueError(f"{path} has other settings than this run: remove it, or choose another --output")
            print(json.dumps({"setting": name, "seed": seed, **result["metrics"]}), flush=True)
            results[name].append(result)
    return results


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def markdown(results: dict[str, list[dict]]) -> str:
    """Means over seeds, differences from the setting above with the same seeds, and what was spent."""
    columns = [f"{metric}_{language}" for metric in METRICS for language in LANGUAGES]
    header = "| setting | " + " | ".join(column.replace("_", " ") for column in columns)
    rule = "| --- " * (len(columns) + 1)
    values = {
        name: {column: [one["metrics"][column] for one in runs] for column in columns} for name, runs in results.items()
    }
    lines = [header + " | seconds |", rule + "| --- |"]
    for name, runs in results.items():
        seconds = f"{np.mean([one['seconds']['wall'] for one in runs]):.0f}"
        lines.append("| " + " | ".join([name, *(cell(values[name][c]) for c in columns), seconds]) + " |")
    lines += ["", header + " |", rule + "|"]
    names = list(results)
    for before, name in itertools.pairwise(names):
        differences = [[b - a for a, b in zip(values[before][c], values[name][c], strict=True)] for c in columns]
        lines.append("| " + " | ".join([name, *(cell(d, signed=True) for d in differences)]) + " |")
    return "\n".join(lines) + "\n"


def introduction(settings: dict, seeds: Sequence[int]) -> str:
    """What the tables are of."""
    return (
        f"Percent on {settings['validation_scenes']} validation scenes: recall@1 of long and short captions from the "
        "picture, names of things in boxes among 837 by region features, all ten hard negatives beaten; and the photo "
        f"protocol on the validation artist. Each run: {settings['steps']} steps of {settings['batch_size']} records "
        f"of {settings['scenes']} training scenes in both languages, AdamW, peak learning rate "
        f"{settings['learning_rate']:g}, up to {settings['max_regions']} regions per scene, from the first stage's "
        f"checkpoint. Means over seeds {', '.join(map(str, seeds))} with 95% t-intervals; seconds are of training, on "
        "a machine that other work may have shared. Second table: the difference from the setting above it, seed by "
        "seed, whose runs saw the same records in the same order.\n\n"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="of the data (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, default=first_stage.CHECKPOINT, help="to start from")
    parser.add_argument("--output", type=Path, required=True, help="folder of results and table")
    parser.add_argument("--work", type=Path, default=first_stage.ROOT / ".cache" / "scenes" / "ablation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--scenes", type=int, default=4000, help="training scenes, each with both languages")
    parser.add_argument("--max-regions", type=int, default=2, help="per scene and step")
    parser.add_argument("--validation-scenes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True, help="autocast")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    first_stage.check_checkpoint(options.checkpoint)
    results = run_missing(options)
    any_run = next(iter(results.values()))[0]["settings"]
    text = introduction(any_run, options.seeds) + markdown(results)
    write_whole(options.output / "table.md", text)
    print(text)


if __name__ == "__main__":
    main()
