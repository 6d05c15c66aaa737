"""The recipes of `fgclip2 train`: their settings, their plans, the commands in their comments, and short runs.

Plans and runs of R2D2's are in test_r2d2_recipes.py.
"""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from fgclip2.cli import train_options
from fgclip2.cli.main import app
from fgclip2.data import read_finehard, write_shards
from tests.cli.conftest import Command
from tests.training.conftest import make_records

from ..checkpoints import official_fgclip_folder, official_folder, saved_folder

__all__ = ["official_fgclip_folder", "official_folder", "saved_folder"]

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "training").glob("*.yaml"))
ACCELERATE = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))
OWN_DATA = ("own_pairs", "own_boxes", "lora")

pytestmark = pytest.mark.filterwarnings("error::FutureWarning")  # of names that transformers is about to drop


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working folder, with data under the names that the recipes have, English and Chinese."""
    monkeypatch.chdir(tmp_path)
    make_records(tmp_path / "squares", 40)
    (tmp_path / "squares" / "images").rename(tmp_path / "images")
    text = (tmp_path / "squares" / "records.json").read_text(encoding="utf-8")
    Path("with_negatives.jsonl").write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in json.loads(text)), encoding="utf-8"
    )
    rows = [f"{row['f_path']},{row['short_caption']},{row['caption']!r}" for row in json.loads(text)]
    Path("pairs.csv").write_text("\n".join(["image,short_caption,long_caption", *rows]).replace("'", '"'), "utf-8")
    for name in ("FineHARD", "FineRegion-CN"):
        (tmp_path / name / "jsonfiles").mkdir(parents=True)
        (tmp_path / name / "jsonfiles" / "1.json").write_text(text, encoding="utf-8")
        (tmp_path / name / "images").symlink_to(tmp_path / "images")
    write_shards(read_finehard("with_negatives.jsonl", "images"), "shards", 15)
    return tmp_path


@pytest.fixture
def run(folder, saved_folder) -> Command:
    return Command(saved_folder)


def recipe(name: str) -> Path:
    return ROOT / "recipes" / "training" / f"{name}.yaml"


def test_each_recipe_is_there():
    names = ["fgclip_stage2_published", "lora", "own_boxes", "own_pairs"]
    names += [f"r2d2_{name}" for name in ("flickr30k_cna", "icm", "icr", "iqm", "iqr")]
    names += ["stage1_many_nodes", "stage2_published"]
    assert [path.stem for path in RECIPES] == names
    index = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    for name in [*(f"training/{name}.yaml" for name in names), "accelerate", "embedded_checkpoint/", "scenes/"]:
        assert index.count(f"({name}") == 2, name  # English and Chinese


def test_links_of_the_index_lead_somewhere():
    text = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / "recipes" / target).exists(), target


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_settings_are_read_as_they_are_written(path):
    options = train_options.parse([str(path)], planning=True)  # refuses unknown ones
    for name, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        group = next(g for g in (options.model, options.data, options.args) if hasattr(g, name))
        read = getattr(group, name)
        if name not in ("lr_scheduler_type", "tf32"):  # an object by now; not there without a GPU
            assert read in (value, [value], str(value)), name


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_settings_in_comments_are_known(path):
    text = path.read_text(encoding="utf-8")
    offered = re.findall(r"^# (\w+: \S.*)$", text, flags=re.MULTILINE)
    names = {name for name in yaml.safe_load("\n".join(offered) or "{}") if name == name.lower()}
    known = set(train_options._known(train_options._parser()))
    assert {name for name in names if "_" in name} <= known
    assert path.stem != "own_pairs" or names == {"eval_data", "eval_strategy"}


def commands_in_comments(path: Path) -> list[list[str]]:
    """Indented lines of comments that call something, long ones joined."""
    text = re.sub(r" \\\n#\s+", " ", path.read_text(encoding="utf-8"))
    lines = re.findall(r"^#\s+((?:fgclip2|torchrun|accelerate) .*)$", text, flags=re.MULTILINE)
    return [shlex.split(line) for line in lines]


def check_fgclip2(arguments: list[str]) -> None:
    """Settings of `train` are parsed; of other commands, each option must be theirs."""
    command, names = typer.main.get_command(app), list(arguments)
    while hasattr(command, "commands"):
        command = command.commands[names.pop(0)]
    command = command.load()
    options = {flag for parameter in command.params for flag in parameter.opts}
    if command.name != "train":
        assert {name for name in names if name.startswith("-")} <= options
        return
    if "--processes" in names:  # of the plan
        del names[(at := names.index("--processes")) : at + 2]
    settings = [name for name in names if name not in options]
    assert (ROOT / settings[0]).is_file(), settings
    train_options.parse([str(ROOT / settings[0]), *settings[1:]], planning=True)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_commands_in_comments_exist(path):
    commands = commands_in_comments(path)
    assert any("train" in command for command in commands)
    for command in commands:
        if command[0] == "fgclip2":
            check_fgclip2(command[1:])
        else:
            module = command.index("-m")
            assert command[module + 1] == "fgclip2.cli"
            check_fgclip2(command[module + 2 :])
            check_launcher(command[:module])


def check_launcher(command: list[str]) -> None:
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    if command[0] == "torchrun":
        get_args_parser().parse_args([*command[1:], "script.py"])
        return
    arguments = launch_command_parser().parse_args([*command[2:], "script.py"])
    assert command[1] == "launch"
    assert (ROOT / arguments.config_file).is_file()


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_configurations_load_in_accelerate(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    kinds = {"ddp": "MULTI_GPU", "deepspeed_zero2": "DEEPSPEED", "fsdp2": "FSDP"}
    assert config.distributed_type == kinds[path.stem]
    commands = commands_in_comments(path)
    assert commands
    for command in commands:
        check_launcher(command[: command.index("-m")])
        assert str(path.relative_to(ROOT)) in command


def test_configurations_name_what_there_is():
    from fgclip2.modeling import modeling_fgclip2

    fsdp = yaml.safe_load((ROOT / "recipes/accelerate/fsdp2.yaml").read_text(encoding="utf-8"))["fsdp_config"]
    assert hasattr(modeling_fgclip2, fsdp["fsdp_transformer_layer_cls_to_wrap"])
    deepspeed = yaml.safe_load((ROOT / "recipes/accelerate/deepspeed_zero2.yaml").read_text(encoding="utf-8"))
    file = ROOT / deepspeed["deepspeed_config"]["deepspeed_config_file"]
    assert json.loads(file.read_text(encoding="utf-8"))["zero_optimization"]["stage"] == 2


# -- plans and runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in RECIPES if "r2d2" not in path.stem], ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore:the schema of FineRegion-CN:UserWarning")
def test_plans(run, official_fgclip_folder, path):
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    if written["objective"] == "fgclip":
        run = Command(official_fgclip_folder)
    plan = run.json("train", path, "--dry-run", "--per_device_train_batch_size", 4)
    assert plan["objective"]["preset"] == written["objective"]
    for name, value in written.get("objective_settings", {}).items():
        assert plan["objective"][name] == value
    assert plan["model"]["lora"] == (path.stem == "lora")
    assert plan["data"]["records"] == (80 if path.stem == "stage2_published" else 40)
    assert plan["data"]["sample"]["unusable"] == 0
    assert plan["data"]["sample"]["long_captions"] == 1
    assert plan["advice"] == []
    assert not Path(written["output_dir"]).exists()


@pytest.mark.parametrize("name", OWN_DATA)
def test_recipes_for_own_data_train(run, name):
    """As written, but for the batch, the length, the device and the loader's processes."""
    size = ("--per_device_train_batch_size", 4, "--gradient_cache_chunk_size", 2, "--max_steps", 2)
    here = ("--use_cpu", "--dataloader_num_workers", 0, "--dataloader_pin_memory", "false", "--disable_tqdm", "true")
    result = run.json("train", recipe(name), *size, *here, "--logging_steps", 1)
    assert result["steps"] == 2
    output = Path(yaml.safe_load(recipe(name).read_text(encoding="utf-8"))["output_dir"])
    assert (output / ("adapter_model.safetensors" if name == "lora" else "model.safetensors")).is_file()
    log = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    losses = [row for row in log if "loss" in row]
    assert len(losses) == 2
    assert all(("region_loss" in row) == (name != "own_pairs") for row in losses)
    assert all(row["long_loss"] > 0 and row["grad_norm"] > 0 and row["skipped"] == 0 for row in losses)


# -- stage 1 on paper -------------------------------------------------------------------------------------------------


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_table_of_stage_1_is_that_of_the_documents():
    table = runpy.run_path(str(ROOT / "recipes" / "training" / "stage1_on_paper.py"))["table"]()
    assert f"\n{table}\n" in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    chinese = (ROOT / "docs" / "training_zh.md").read_text(encoding="utf-8")
    start = chinese.index(table.splitlines()[0])
    ours = chinese[start:].split("\n\n")[0]
    assert [row[1:] for row in cells(ours)] == [row[1:] for row in cells(table)]
