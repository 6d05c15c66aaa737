"""A step of each recipe fits the device that its planning command names, at the published size and at most patches."""

from pathlib import Path

import pytest
import torch

from fgclip2.cli import train_options
from fgclip2.training.arguments import FGClip2TrainingArguments
from fgclip2.training.estimates import DataSummary
from fgclip2.training.lora import add_lora, lora_config
from fgclip2.training.memory import describe_memory
from fgclip2.training.parameters import freeze
from fgclip2.training.tasks import training_model

from .test_training_recipes import RECIPES, ROOT, commands_in_comments

GIB = 2**30
PATCHES = 1024  # FG-CLIP 2's largest budget; other families have squares of one size


def planning_command(path: Path) -> tuple[list[str], int]:
    """Return the settings of a recipe's planning command, and its number of processes."""
    command = next(command for command in commands_in_comments(path) if "--device_memory" in command)
    settings = [word for word in command[command.index("train") + 1 :] if word != "--dry-run"]
    processes = 1
    if "--processes" in settings:
        at = settings.index("--processes")
        processes = int(settings[at + 1])
        del settings[at : at + 2]
    return [str(ROOT / settings[0]), *settings[1:]], processes


def memory_of(path: Path, data: DataSummary) -> dict:
    """Plan the memory of a recipe's step."""
    settings, processes = planning_command(path)
    options = train_options.parse(settings, planning=True)
    args = options.args
    assert isinstance(args, FGClip2TrainingArguments)
    family = next((name for name in ("r2d2", "fgclip") if path.stem.startswith(f"{name}_")), "fgclip2")
    model_class = training_model(family, args.objective)
    config = model_class.config_class.from_preset("base")
    with torch.device("meta"):
        model = model_class(config)
    if options.model.lora:
        model = add_lora(model, lora_config(options.model.lora_rank))
    task = model.task
    objective = task.make_objective(args.objective, args.settings).settings
    freeze(model, model.unused_parameters(objective))
    contents = task.step_contents(args, data, objective)
    return describe_memory(args, model, config, objective, contents, processes)


def data_of(path: Path, hard_regions: float) -> DataSummary:
    """Return data with boxes, where a recipe is about any, so many of an image's with hard negatives."""
    has_boxes = any(word in path.stem for word in ("boxes", "stage2", "lora"))
    patches = 196 if "r2d2" in path.stem or path.stem.startswith("fgclip_") else PATCHES
    regions = {"regions": 4.0, "hard_regions": hard_regions} if has_boxes else {}
    return DataSummary(1, max_patches=patches, **regions)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_step_fits(path):
    worst = memory_of(path, data_of(path, 4.0))  # each of four regions has ten hard negatives
    assert worst["fits"], f"{worst['total'] / GIB:.1f} GiB of {worst['device'] / GIB:.1f}"
    assert bool(worst["text_chunk_size"]) == ("stage2" in path.stem)
    usual = memory_of(path, data_of(path, 0.83))  # of FineHARD: 10 M groups of hard negatives on 12 M images
    assert usual["text_chunk_size"] == 0
