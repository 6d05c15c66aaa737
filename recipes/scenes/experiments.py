"""Runs of the package's trainer that are compared with each other: how they train, what they cost, what is kept."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback

from fgclip2 import FGClip2Trainer, FGClip2TrainingArguments
from fgclip2.data import concatenate, read_finehard
from fgclip2.data.records import RecordDataset
from fgclip2.drawings.scene_sets import SceneSet
from fgclip2.drawings.sources import default_cache
from fgclip2.files import read_json, replacing
from fgclip2.languages import LANGUAGES

TRAIN_SEED = 2  # of the training scenes


def training_records(scene_set: SceneSet) -> RecordDataset:
    """Return the set's pictures twice, with the texts of each language."""
    files = [scene_set.folder / f"scenes_{language}.json" for language in LANGUAGES]
    return concatenate([read_finehard(file, scene_set.folder) for file in files])


class LossLog(TrainerCallback):
    """Keeps the logged means of the losses."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        losses = {name: round(value, 4) for name, value in logs.items() if name.endswith("loss")}
        if losses:
            self.rows.append({"step": state.global_step, **losses})


def make_trainer(
    model: Any, processor: Any, records: RecordDataset, settings: dict, options: argparse.Namespace
) -> FGClip2Trainer:
    """Return a trainer of a model.

    Args:
        model: Of any family that is trained.
        processor: Its processor.
        records: To train on.
        settings: `steps`, `batch_size`, `learning_rate`, `objective` (what differs from the preset), `max_regions`,
            `max_num_patches` (`None` for a family without budgets), `seed`, and perhaps `preset` of the objective.
        options: `work`, a folder, and `bf16`.
    """
    budget = settings["max_num_patches"]
    arguments = FGClip2TrainingArguments(
        output_dir=str(options.work),
        max_steps=settings["steps"],
        per_device_train_batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        weight_decay=0.05,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        objective=settings.get("preset", "released"),
        objective_settings=settings["objective"],
        max_num_patches=None if budget is None else str(budget),
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
    return FGClip2Trainer(model, arguments, train_dataset=records, processing_class=processor)


def flops_of_training(trainer: FGClip2Trainer) -> int:
    """Train, and return the floating-point operations of its steps, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        trainer.train()
    return counter.get_total_flops()


def train_and_measure(trainer: FGClip2Trainer, settings: dict, validation: Callable[[Any], dict]) -> dict:
    """Train once, measure the model, and return what is kept of the run."""
    log = LossLog()
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


def stored(path: Path, make: Callable[[], Any]) -> Any:
    """Read a JSON file; where there is none yet, write what `make` returns."""
    if not path.exists():
        write_whole(path, json.dumps(make(), indent=1) + "\n")
    return read_json(path)


def stored_result(path: Path, settings: dict, run: Callable[[], dict]) -> dict:
    """Read the result file of a run, after the run if there is none.

    Raises:
        ValueError: If the file has the result of other settings.
    """
    result = stored(path, run)
    if result["settings"] != settings:
        raise ValueError(f"{path} has other settings than this run: remove it, or choose another --output")
    print(json.dumps({"file": path.name, **result["metrics"]}), flush=True)
    return result


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def add_options(parser: argparse.ArgumentParser, work: Path) -> None:
    """Add the options that all such commands have."""
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="Folder of the data (default: %(default)s)."
    )
    parser.add_argument("--output", type=Path, required=True, help="Folder of the results and the table.")
    parser.add_argument("--work", type=Path, default=work)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--scenes", type=int, default=4000, help="Number of training scenes, each with both languages.")
    parser.add_argument("--max-regions", type=int, default=2, help="Most regions per scene and step.")
    parser.add_argument("--validation-scenes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, default=True, help="Train in bfloat16 autocast."
    )
