"""Where the log of a run goes beside the terminal: Trackio and Weights & Biases, by the callbacks of transformers."""

from __future__ import annotations

import importlib.util
import os
import zlib
from pathlib import Path

from transformers import TrainingArguments

PACKAGES = ("trackio", "wandb")
_NO_PROJECT = "huggingface"  # transformers' default
_project: str | None = None  # what this process has set WANDB_PROJECT to


def check_reporting(args: TrainingArguments) -> None:
    """Make sure that what `report_to` names is installed, and give the run a name and its log no way out unasked.

    A run without `run_name` is called as its folder is, with a number of the folder's whole path: what goes on later,
    or is evaluated after training, comes into the same run, and folders of one name are different runs. Trackio would
    send the log to a public page whenever a model is pushed: it does so only where `trackio_space_id` or
    `trackio_static_space_id` names one.

    Raises:
        ValueError: A package is missing; the message is the command that installs it.
    """
    named = [package for package in PACKAGES if package in (args.report_to or ())]
    for package in named:
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"`report_to` names {package}, which is not installed; run: pip install {package}")
    if named and args.run_name is None:
        folder = Path(str(args.output_dir)).resolve()
        args.run_name = f"{folder.name}-{zlib.crc32(os.fsencode(folder)):08x}"
    if getattr(args, "trackio_static_space_id", False) is None:
        args.trackio_static_space_id = False


def name_wandb_project(args: TrainingArguments) -> None:
    """Let `project` name the project of Weights & Biases too, unless the user's WANDB_PROJECT does.

    The variable is the only way into transformers' callback. What an earlier run of this process has put there gives
    way to the project of this one.
    """
    global _project
    if "wandb" not in (args.report_to or ()) or os.environ.get("WANDB_PROJECT") != _project:
        return
    _project = None if args.project == _NO_PROJECT else args.project
    if _project is None:
        os.environ.pop("WANDB_PROJECT", None)
    else:
        os.environ["WANDB_PROJECT"] = _project
