"""Options of `fgclip2 train`: from a YAML file and flags, by transformers' HfArgumentParser."""

from __future__ import annotations

import difflib
import json
import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from ..training.settings import DataSettings, ModelSettings, RunSettings, join_names, read_yaml, split_name
from .common import with_home

if TYPE_CHECKING:
    from transformers import HfArgumentParser


@dataclass
class BenchmarkOptions:
    """Name the benchmarks to run during training and at its end."""

    benchmarks: list[str] | None = field(
        default=None,
        metadata={"help": "Benchmarks to measure at each evaluation: NAME=FOLDER (fgclip2 bench list), or bundled"},
    )
    benchmark_images: list[str] | None = field(
        default=None, metadata={"help": "NAME=FOLDER with the images of a benchmark; by default beside its data"}
    )
    benchmark_settings: list[str] | None = field(
        default=None, metadata={"help": "NAME=VALUE for a setting of all benchmarks, as --set of fgclip2 bench run"}
    )
    benchmark_steps: int | None = field(
        default=None, metadata={"help": "Measure each time after this number of steps, and not at evaluations"}
    )


@dataclass
class TrainOptions(RunSettings):
    """All that a run needs, and what to measure during it."""

    benchmarks: BenchmarkOptions = field(default_factory=BenchmarkOptions)


# What of transformers' arguments most runs set, for the help.
COMMON_ARGUMENTS = {
    "output_dir": "Folder of the run: checkpoints, then the trained model",
    "per_device_train_batch_size": "Images per process and batch",
    "per_device_eval_batch_size": "Images per process and batch of an evaluation",
    "gradient_accumulation_steps": "Batches per step; adds no negatives, as gradient_cache_chunk_size does",
    "num_train_epochs": "Number of times that the data is gone through",
    "max_steps": "Number of steps, whatever num_train_epochs says; -1: as it says",
    "learning_rate": "Highest learning rate",
    "weight_decay": "Weight decay of matrices",
    "warmup_steps": "Steps in which the learning rate rises; below 1, their share of the run",
    "lr_scheduler_type": "Schedule of the learning rate",
    "max_grad_norm": "Gradients are shortened to this norm; 0: never",
    "bf16": "Compute in bfloat16",
    "tf32": "Let matrix products use TF32 (true or false)",
    "gradient_checkpointing": "Compute activations again instead of keeping them",
    "torch_compile": "Compile the model",
    "dataloader_num_workers": "Number of processes that read images",
    "logging_steps": "Steps between lines of the log",
    "save_steps": "Steps between checkpoints",
    "save_total_limit": "Checkpoints to keep",
    "eval_strategy": "When to evaluate: no, steps or epoch",
    "eval_steps": "Steps between evaluations",
    "load_best_model_at_end": "Save the best checkpoint at the end instead of the last",
    "metric_for_best_model": "Number that says which checkpoint is best, e.g. eval_long_text_to_image_recall@1",
    "report_to": "Where the log goes besides, e.g. tensorboard or wandb",
    "seed": "Seed of everything random",
    "use_cpu": "Don't use a GPU",
}

# What other trainers call them.
_OTHER_NAMES = {
    "lr": "learning_rate",
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "steps": "max_steps",
    "workers": "dataloader_num_workers",
    "data": "train_data",
    "val_data": "eval_data",
    "output": "output_dir",
    "image_dir": "images_folder",
    "caption_column": "short_caption_column",
    "checkpoint": "model",
}

_PATHS = {"train_data", "eval_data", "images_folder", "eval_images_folder"}

# What transformers' arguments have and nothing here reads.
_ELSEWHERE = {
    "do_train": "the command always trains",
    "do_eval": "eval_data and eval_strategy say whether and when to evaluate",
    "do_predict": "`fgclip2 embed` makes vectors",
}


def parse(arguments: Sequence[str], planning: bool = False) -> TrainOptions:
    """Read `[CONFIG] [--flag value ...]`; flags win over the file.

    Processes of a launcher without an accelerator train on the CPU, where transformers would take each for itself.

    Args:
        arguments: The command line behind `fgclip2 train`.
        planning: Nothing will run, so settings of a GPU that is not here do no harm.

    Raises:
        typer.BadParameter: A flag is unknown or has a wrong value, or one that every run needs is missing.
        ValueError: The same in the file, or settings don't go together.
    """
    import torch

    parser = _parser()
    flags, config = list(arguments), None
    if flags and not flags[0].startswith("-"):
        config = flags.pop(0)
    from_file = _flags_of_file(Path(config), parser) if config else []
    try:
        namespace, rest = parser.parse_known_args([*from_file, *flags])
    except _ArgumentError as error:
        raise typer.BadParameter(str(error)) from error
    if rest:
        raise typer.BadParameter(_unknown(rest[0].split("=")[0], _known(parser)))
    # Settings without which the run, or the plan, would not work on this machine.
    machine: dict[str, Any] = {}
    by_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"  # which has a way of its own
    if planning and not torch.cuda.is_available():
        machine = {"use_cpu": True, "tf32": None}
    elif "RANK" in os.environ and not by_deepspeed and not torch.accelerator.is_available():
        machine = {"use_cpu": True}
    return _options(parser, namespace, machine)


def _options(parser: HfArgumentParser, namespace: Namespace, machine: dict[str, Any]) -> TrainOptions:
    """Sort options by group. Those of the machine are not among the changed: another may go on with the run."""
    changed: dict[str, Any] = {}
    groups: list[Any] = []
    for group in parser.dataclass_types:
        options = [option for option in fields(group) if option.init]
        values = {option.name: getattr(namespace, option.name) for option in options}
        changed |= {option.name: values[option.name] for option in options if values[option.name] != default_of(option)}
        for name in _PATHS & values.keys():  # in a file no shell sees the ~
            values[name] = values[name] and [_with_home(path) for path in values[name]]
        groups.append(group(**{name: machine.get(name, value) for name, value in values.items()}))
    for name, remedy in _ELSEWHERE.items():
        if name in changed:
            raise ValueError(f"{name} (got {changed[name]!r}) has no effect here: leave it out; {remedy}")
    for name in ("model", "train_data", "output_dir"):
        if name not in changed:
            raise typer.BadParameter(
                f"{name} is missing: pass --{name}, or put it into the YAML file (fgclip2 train --help)"
            )
    model, data, benchmarks, args = groups
    return TrainOptions(model, data, args, changed, benchmarks)


def _with_home(source: str) -> str:
    name, path = split_name(source)
    return with_home(path) if name is None else f"{name}={with_home(path)}"


class _ArgumentError(Exception):
    pass


def _parser() -> HfArgumentParser:
    from transformers import HfArgumentParser

    from ..training import FGClip2TrainingArguments

    class Parser(HfArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise _ArgumentError(message)  # argparse would print a page of usage and exit

    groups = [ModelSettings, DataSettings, BenchmarkOptions, FGClip2TrainingArguments]
    return Parser(groups, prog="fgclip2 train", allow_abbrev=False)  # type: ignore[arg-type]


def _known(parser: HfArgumentParser) -> list[str]:
    return [option.name for group in parser.dataclass_types for option in fields(group) if option.init]


def default_of(option: Field) -> Any:
    """Return the default of a field of a dataclass."""
    return option.default_factory() if option.default_factory is not MISSING else option.default


def _unknown(name: str, known: Sequence[str]) -> str:
    """Say what an unknown option may mean; `--` before it, or none in the file, stays before the name meant."""
    plain = name.lstrip("-").replace("-", "_")
    meant = _OTHER_NAMES.get(plain) or next(iter(difflib.get_close_matches(plain, known, 1, 0.5)), None)
    if meant is None:
        return f"unknown option {name}; fgclip2 train --help lists all"
    return f"unknown option {name}; did you mean {'--' if name.startswith('-') else ''}{meant}?"


# ---------------------------------------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------------------------------------


def _flags_of_file(path: Path, parser: HfArgumentParser) -> list[str]:
    """Return the settings of a YAML file as flags, so that they are read and checked as flags are."""
    known = _known(parser)
    flags: list[str] = []
    for given, value in read_yaml(path).items():
        name = str(given).replace("-", "_")
        if name not in known:
            raise ValueError(f"{path}: {_unknown(str(given), known)}")
        if name == "eval_data" and isinstance(value, dict):  # name -> path or paths
            try:
                value = join_names(value)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        if isinstance(value, list) and value:
            flags += [f"--{name}", *map(str, value)]
        elif value is not None and value != []:  # these are as if they were not there
            flags.append(f"--{name}={json.dumps(value) if isinstance(value, (dict, bool)) else value}")
    try:
        parser.parse_known_args(flags)
    except _ArgumentError as error:
        raise ValueError(f"{path}: {error}") from error
    return flags


# ---------------------------------------------------------------------------------------------------------------------
# The help
# ---------------------------------------------------------------------------------------------------------------------


def help_sections() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield titles with flags and what they mean: ours, then the common ones of transformers."""
    from transformers import TrainingArguments

    from ..training import FGClip2TrainingArguments

    inherited = {option.name for option in fields(TrainingArguments)}
    arguments = {option.name: option for option in fields(FGClip2TrainingArguments)}
    yield "Model", [_help(option) for option in fields(ModelSettings)]
    yield "Data", [_help(option) for option in fields(DataSettings)]
    yield "Benchmarks", [_help(option) for option in fields(BenchmarkOptions)]
    own = [_help(option) for name, option in arguments.items() if name not in inherited]
    yield "Objective, batches and parameters", own
    common = [_help(arguments[name], text) for name, text in COMMON_ARGUMENTS.items()]
    yield "Run (of transformers' TrainingArguments, which all work: --help-all)", common


def _help(option: Field, text: str | None = None) -> tuple[str, str]:
    default = default_of(option)
    shown = "" if default in (None, [], "", False) else f"  [default: {default}]"
    return f"--{option.name}", (text or option.metadata["help"]) + shown


def full_help() -> str:
    """Return the help of every option, as HfArgumentParser writes it."""
    return _parser().format_help()
