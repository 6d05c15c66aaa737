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

if TYPE_CHECKING:
    from transformers import HfArgumentParser

    from ..training import FGClip2TrainingArguments

FORMATS = ("finehard", "fineregion-cn", "pairs", "folder", "shards")


@dataclass
class ModelOptions:
    """What to train."""

    model: str | None = field(
        default=None, metadata={"aliases": ["-m"], "help": "Checkpoint or adapter to start from: folder or hub id"}
    )
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of it on the hub"})
    lora: bool = field(default=False, metadata={"help": "Train low-rank matrices, heads and scales only (PEFT)"})
    lora_rank: int = field(default=16, metadata={"help": "Rank of the matrices"})
    lora_alpha: float = field(default=32.0, metadata={"help": "What they are multiplied by, times the rank"})
    lora_dropout: float = field(default=0.0, metadata={"help": "Of their input"})
    lora_target: str = field(
        default="attention_and_mlp", metadata={"help": "attention_and_mlp, attention, all-linear or a pattern of names"}
    )
    lora_train_heads: bool = field(default=True, metadata={"help": "Train and save the heads in full"})


@dataclass
class DataOptions:
    """What to train on. With several sources, `data_format`, `images_folder` and `language` are one or one for each."""

    train_data: list[str] | None = field(default=None, metadata={"help": "Files or folders; several are joined"})
    eval_data: list[str] | None = field(default=None, metadata={"help": "The same, held out: what is evaluated on"})
    data_format: list[str] | None = field(
        default=None, metadata={"help": "finehard, fineregion-cn, pairs, folder or shards; left out: as the files look"}
    )
    images_folder: list[str] | None = field(
        default=None, metadata={"help": "Where the images are; left out: beside the records"}
    )
    eval_images_folder: list[str] | None = field(
        default=None, metadata={"help": "The same of eval_data; left out: images_folder"}
    )
    language: list[str] | None = field(
        default=None, metadata={"help": "en or zh, of all records; left out: by each record, or detected"}
    )
    image_column: str = field(default="image", metadata={"help": "Column or key of the image, in pairs"})
    short_caption_column: str | None = field(
        default=None, metadata={"help": "The same of short captions; left out: short_caption, else caption"}
    )
    long_caption_column: str | None = field(
        default=None, metadata={"help": "The same of long captions; left out: long_caption, else caption"}
    )
    language_column: str | None = field(default=None, metadata={"help": "The same of languages; left out: language"})
    shuffle_buffer: int = field(default=1000, metadata={"help": "Samples of shards that each worker shuffles among"})


@dataclass
class BenchmarkOptions:
    """What to measure besides, during the run and at its end."""

    benchmarks: list[str] | None = field(
        default=None,
        metadata={"help": "NAME=FOLDER of fgclip2 bench list, bundled-..., or bundled: measured at each evaluation"},
    )
    benchmark_images: list[str] | None = field(
        default=None, metadata={"help": "NAME=FOLDER of their images; left out: beside the rest"}
    )
    benchmark_settings: list[str] | None = field(
        default=None, metadata={"help": "NAME=VALUE of their settings, as --set of fgclip2 bench run"}
    )
    benchmark_steps: int | None = field(
        default=None, metadata={"help": "Measure after each so many steps in place of evaluations"}
    )


@dataclass
class TrainOptions:
    """All that a run needs, and where it differs from the defaults."""

    model: ModelOptions
    data: DataOptions
    benchmarks: BenchmarkOptions
    args: FGClip2TrainingArguments
    changed: dict[str, Any]


# What of transformers' arguments most runs set, for the help.
COMMON_ARGUMENTS = {
    "output_dir": "Folder of the run: checkpoints, then the trained model",
    "per_device_train_batch_size": "Images per process and batch",
    "per_device_eval_batch_size": "The same of eval_data",
    "gradient_accumulation_steps": "Batches per step; adds no negatives, as gradient_cache_chunk_size does",
    "num_train_epochs": "Times through the data",
    "max_steps": "Steps in all, if above 0",
    "learning_rate": "Highest learning rate",
    "weight_decay": "Of matrices",
    "warmup_steps": "Steps, or below 1 their share of the run",
    "lr_scheduler_type": "Schedule of the learning rate",
    "max_grad_norm": "Longest gradient; 0: any",
    "bf16": "Compute in bfloat16",
    "tf32": "true: matrix products may use TF32",
    "gradient_checkpointing": "Compute activations again instead of keeping them",
    "torch_compile": "Compile the model",
    "dataloader_num_workers": "Processes that read images",
    "logging_steps": "Steps between lines of the log",
    "save_steps": "Steps between checkpoints",
    "save_total_limit": "Checkpoints to keep",
    "eval_strategy": "no, steps or epoch",
    "eval_steps": "Steps between evaluations",
    "load_best_model_at_end": "Save the best checkpoint at the end instead of the last",
    "metric_for_best_model": "E.g. eval_long_text_to_image_recall@1",
    "report_to": "E.g. tensorboard or wandb",
    "seed": "Of everything random",
    "use_cpu": "Don't use a GPU",
}

# What transformers' arguments have and nothing here reads.
_ELSEWHERE = {
    "resume_from_checkpoint": "--resume goes on from the last checkpoint in output_dir",
    "do_train": "the command trains",
    "do_eval": "eval_data and eval_strategy",
    "do_predict": "fgclip2 embed",
}


def parse(arguments: Sequence[str], planning: bool = False) -> TrainOptions:
    """Read `[CONFIG] [--flag value ...]`; flags win over the file.

    Args:
        arguments: The command line behind `fgclip2 train`.
        planning: Nothing will run, so settings of a GPU that is not here do no harm.

    Processes of a launcher without an accelerator train on the CPU, where transformers would take each for itself.

    Raises:
        typer.BadParameter: A flag is unknown or has a wrong value.
        ValueError: The same in the file, or settings don't go together.
    """
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
        raise typer.BadParameter(_unknown(rest[0].split("=")[0], [f"--{name}" for name in _known(parser)]))
    return _options(parser, namespace, _of_this_machine(planning))


def _of_this_machine(planning: bool) -> dict[str, Any]:
    """Settings without which the run, or the plan, would not work here."""
    import torch

    if planning and not torch.cuda.is_available():
        return {"use_cpu": True, "tf32": None}
    by_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"  # which has a way of its own
    if "RANK" in os.environ and not by_deepspeed and not torch.accelerator.is_available():
        return {"use_cpu": True}
    return {}


def _options(parser: HfArgumentParser, namespace: Namespace, machine: dict[str, Any]) -> TrainOptions:
    """Sort options by group. Those of the machine are not among the changed: another may go on with the run."""
    changed = {}
    groups: list[Any] = []
    for group in parser.dataclass_types:
        values = {each.name: getattr(namespace, each.name) for each in fields(group) if each.init}
        changed.update({each.name: values[each.name] for each in fields(group) if values[each.name] != _default(each)})
        groups.append(group(**{name: machine.get(name, value) for name, value in values.items()}))
    for name, remedy in _ELSEWHERE.items():
        if name in changed:
            raise ValueError(f"{name} has no effect here; allowed: {remedy}")
    for name in ("model", "train_data", "output_dir"):
        if name not in changed:
            raise ValueError(f"{name} is missing: pass --{name}, or put it into the YAML file (fgclip2 train --help)")
    model, data, benchmarks, args = groups
    return TrainOptions(model, data, benchmarks, args, changed)


class _ArgumentError(Exception):
    pass


def _parser() -> HfArgumentParser:
    from transformers import HfArgumentParser

    from ..training import FGClip2TrainingArguments

    class Parser(HfArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise _ArgumentError(message)  # argparse would print a page of usage and exit

    groups = [ModelOptions, DataOptions, BenchmarkOptions, FGClip2TrainingArguments]
    return Parser(groups, prog="fgclip2 train", allow_abbrev=False)  # type: ignore[arg-type]


def _known(parser: HfArgumentParser) -> list[str]:
    return [each.name for group in parser.dataclass_types for each in fields(group) if each.init]


def _default(each: Field) -> Any:
    return each.default_factory() if each.default_factory is not MISSING else each.default


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name.replace("-", "_"), [each.replace("-", "_") for each in known], 1, 0.5)
    if not near:
        return f"unknown option {name}; allowed: see fgclip2 train --help"
    return f"unknown option {name}; did you mean {known[[each.replace('-', '_') for each in known].index(near[0])]}?"


# ---------------------------------------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------------------------------------


def _flags_of_file(path: Path, parser: HfArgumentParser) -> list[str]:
    """Settings of a YAML file as flags, so that they are read and checked as flags are."""
    known = _known(parser)
    flags: list[str] = []
    for name, value in read_yaml(path).items():
        if name not in known:
            raise ValueError(f"{path}: {_unknown(str(name), known)}")
        flags += _flag(name, value)
    try:
        parser.parse_known_args(flags)
    except _ArgumentError as error:
        raise ValueError(f"{path}: {error}") from error
    return flags


def _flag(name: str, value: Any) -> list[str]:
    if value is None or value == []:
        return []  # as if it were not there
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}={json.dumps(value) if isinstance(value, (dict, bool)) else value}"]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping.

    Raises:
        ValueError: There is no such file, it is not YAML, no mapping, or has a key twice.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            keys = [key.value for key, _ in node.value]
            if twice := sorted({key for key in keys if keys.count(key) > 1}):
                raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} given twice", node.start_mark)
            return super().construct_mapping(node, deep)

    if not path.is_file():
        raise ValueError(f"{path}: no such file; allowed: a YAML file, then flags (fgclip2 train --help)")
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no settings; allowed: lines such as `learning_rate: 1e-6`")
    return content


def write_yaml(path: Path, settings: dict[str, Any]) -> None:
    """Write settings that `fgclip2 train` reads."""
    import yaml

    # Left out: objects, which transformers made of texts; and secrets, for the folder may be published.
    plain = {
        name: value
        for name, value in settings.items()
        if isinstance(value, (str, int, float, list, dict)) and not name.endswith("_token")
    }
    path.write_text(yaml.safe_dump(plain, allow_unicode=True, sort_keys=False), encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# The help
# ---------------------------------------------------------------------------------------------------------------------


def help_sections() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Titles with flags and what they mean: ours, then the common ones of transformers."""
    from transformers import TrainingArguments

    from ..training import FGClip2TrainingArguments

    inherited = {each.name for each in fields(TrainingArguments)}
    everything = {each.name: each for each in fields(FGClip2TrainingArguments)}
    yield "Model", [_help(each) for each in fields(ModelOptions)]
    yield "Data", [_help(each) for each in fields(DataOptions)]
    yield "Benchmarks", [_help(each) for each in fields(BenchmarkOptions)]
    own = [_help(each) for name, each in everything.items() if name not in inherited]
    yield "Objective, batches and parameters", own
    common = [_help(everything[name], text) for name, text in COMMON_ARGUMENTS.items()]
    yield "Run (of transformers' TrainingArguments, which all work: --help-all)", common


def _help(each: Field, text: str | None = None) -> tuple[str, str]:
    default = _default(each)
    shown = "" if default in (None, [], "", False) else f"  [default: {default}]"
    return f"--{each.name}", (text or each.metadata["help"]) + shown


def full_help() -> str:
    """HfArgumentParser's own."""
    return _parser().format_help()
