"""A step of each recipe fits the device that its planning command names, at the published size and at most patches."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from fgclip2.cli import train_options
from fgclip2.training import estimates
from fgclip2.training.arguments import FGClip2TrainingArguments
from fgclip2.training.estimates import DataSummary
from fgclip2.training.lora import add_lora, lora_config
from fgclip2.training.memory import describe_memory
from fgclip2.training.parameters import freeze
from fgclip2.training.tasks import training_model
from scripts.perf import scale

from .test_training_recipes import RECIPES, ROOT, commands_in_comments

DEEPSPEED = ROOT / "recipes/accelerate/deepspeed_zero2.json"
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


def launched_by_deepspeed(path: Path) -> bool:
    """Return whether the command that a recipe gives to run it, the first that is no plan, divides by ZeRO-2."""
    command = next(
        command for command in commands_in_comments(path) if "train" in command and "--dry-run" not in command
    )
    if command[0] != "accelerate":
        return False
    configuration = yaml.safe_load((ROOT / command[command.index("--config_file") + 1]).read_text(encoding="utf-8"))
    return configuration["distributed_type"] == "DEEPSPEED"


def memory_of(path: Path, data: DataSummary, by_deepspeed: bool = False) -> dict:
    """Plan the memory of a recipe's step, as its planning command does or as it is launched."""
    settings, processes = planning_command(path)
    options = train_options.parse(settings, planning=True)
    args = options.args
    assert isinstance(args, FGClip2TrainingArguments)
    if by_deepspeed:  # not passed above, where transformers would ask for the package of DeepSpeed
        args.deepspeed = str(DEEPSPEED)
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


LAUNCHED_BY_DEEPSPEED = [path for path in RECIPES if launched_by_deepspeed(path)]


@pytest.mark.parametrize("path", LAUNCHED_BY_DEEPSPEED, ids=lambda path: path.stem)
def test_a_step_fits_as_it_is_launched(path):
    for hard_regions in (0.83, 4.0):
        data = data_of(path, hard_regions)
        divided, whole = memory_of(path, data, by_deepspeed=True), memory_of(path, data)
        assert divided["strategy"] == "zero2"
        assert divided["fits"]
        assert divided["weights"] + divided["gradients"] + divided["optimizer"] < (
            whole["weights"] + whole["gradients"] + whole["optimizer"]
        )


def test_the_stages_as_published_are_launched_by_deepspeed():
    assert [path.stem for path in LAUNCHED_BY_DEEPSPEED] == ["fgclip_stage2_published", "stage2_published"]


def test_calculations_have_the_buckets_of_the_recipe():
    settings = json.loads(DEEPSPEED.read_text(encoding="utf-8"))["zero_optimization"]
    buckets = 2 * 500_000_000
    assert estimates.zero2_buckets(settings, 768) == buckets
    assert estimates.zero2_buckets(scale.DEEPSPEED["zero_optimization"], 768) == buckets
