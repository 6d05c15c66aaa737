"""The command as a whole: help, exit codes, streams, and the surface that only grows on purpose."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fgclip2.cli.main import app

TOP_LEVEL = get_command(app).commands
GROUPS = {name: command for name, command in TOP_LEVEL.items() if hasattr(command, "commands")}
COMMANDS = {name: command for name, command in TOP_LEVEL.items() if name not in GROUPS}
COMMANDS |= {f"{group} {name}": each for group in GROUPS for name, each in GROUPS[group].commands.items()}
COMMON = {"--help", "-h"}
OPTIONS = {
    "embed": {
        *("images", "--output", "-o", "--text", "--texts-file", "--walk-type", "--max-patches", "--batch-size"),
        *("--skip-errors", "--model", "-m", "--device", "--json"),
    },
    "search": {
        *("folder", "queries", "--image", "--top-k", "--index", "--rebuild", "--max-patches", "--batch-size"),
        *("--model", "-m", "--device", "--json"),
    },
    "classify": {
        *("images", "--labels", "--labels-file", "--template", "--top-k", "--max-patches", "--skip-errors"),
        *("--model", "-m", "--device", "--json"),
    },
    "regions": {
        *("image", "--boxes", "--box", "--box-format", "--labels", "--labels-file", "--template", "--top-k"),
        *("--max-patches", "--model", "-m", "--device", "--json"),
    },
    "heatmap": {
        *("image", "text", "--output", "-o", "--opacity", "--max-patches", "--model", "-m", "--device", "--json"),
    },
    "demo": {"--output", "-o", "--model", "-m", "--device", "--json"},
    "doctor": {"--checkpoint", "--coco-image", "--device", "--json"},
    "convert": {"folder", "output", "--json"},
    "export": {"folder", "--model", "-m", "--json"},
    "init": {
        *("paths", "--num-patches", "--revision", "--preset", "--config", "--tokenizer", "--texts", "--vocab-size"),
        *("--seed", "--json"),
    },
    # And the settings of a run, see test_train.py.
    "train": {"arguments", "--dry-run", "--dry_run", "--processes", "--resume", "--json", "--help-all"},
    "data validate": {
        *("path", "--format", "--images-folder", "--images", "--image-column", "--short-caption-column"),
        *("--long-caption-column", "--language-column", "--language", "--show", "--threads", "--json"),
    },
    "bench list": {"--json"},
    "bench check": {"name", "path", "--images", "--open", "--show", "--json"},
    "bench run": {
        *(
            "name",
            "path",
            "--images",
            "--model",
            "-m",
            "--revision",
            "--device",
            "--dtype",
            "--preset",
            "--set",
            "--language",
        ),
        *("--output", "--cache", "--no-cache", "--items", "--controls"),
    },
    "bench report": {"results", "--output", "--language", "--plot", "--no-plot"},
    "data hard-negatives": {"source", "target", "--count", "--seed", "--replace", "--show", "--json"},
}


def shell(*arguments: str, cwd: Path, **options) -> subprocess.CompletedProcess:
    script = Path(sys.executable).with_name("fgclip2")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run([script, *arguments], capture_output=True, cwd=cwd, env=environment, check=False, **options)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_arguments_change_only_on_purpose(name):
    found = {each for parameter in COMMANDS[name].params for each in [*parameter.opts, *parameter.secondary_opts]}
    assert found - COMMON == OPTIONS[name]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_has_examples_in_both_languages(run, name):
    text = run(*name.split(), "--help", model=False).stdout
    examples = [line for line in text.splitlines() if line.startswith(f"    fgclip2 {name}")]
    assert any(line.isascii() for line in examples)
    assert any("\u4e00" <= character <= "\u9fff" for line in examples for character in line)


def test_version_and_help(run):
    assert run("--version", model=False).stdout[0].isdigit()
    for name in TOP_LEVEL:
        assert name in run("--help", model=False).stdout


def test_unknown_commands_and_options_are_usage_errors(run):
    assert "No such command" in run("sreach", code=2, model=False).stderr
    assert "No such option" in run("embed", "--outptu", "x.npy", code=2, model=False).stderr


def test_missing_checkpoints_are_one_line(run, folder):
    result = run("classify", "photo.png", "--labels", "猫", "--model", folder / "没有", code=1, model=False)
    assert "没有" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_debug_lets_the_error_through(folder):
    result = CliRunner().invoke(app, ["--debug", "convert", str(folder / "没有")])
    assert isinstance(result.exception, (ValueError, OSError))


def test_no_subcommand_imports_anything_heavy_before_it_runs():
    """With the package's own __init__ left out, for importing that registers with transformers."""
    code = (
        "import sys, types; package = types.ModuleType('fgclip2'); "
        f"package.__path__ = [{str(Path(sys.modules['fgclip2'].__file__).parent)!r}]; "
        "sys.modules['fgclip2'] = package; import fgclip2.cli.main; "
        "heavy = {'torch', 'transformers', 'numpy', 'PIL', 'safetensors', 'tqdm'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_as_a_user_runs_it(folder, saved_folder):
    """A real process: UTF-8 on a pipe whatever the locale, results on stdout, the rest on stderr."""
    arguments = ["classify", "照片/黑猫.png", "--labels", "猫，狗", "--model", str(saved_folder), "--json"]
    done = shell(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout.decode("utf-8"))["results"][0]["image"] == "照片/黑猫.png"
    failed = shell("classify", "坏.png", "--labels", "猫", "--model", str(saved_folder), cwd=folder)
    assert failed.returncode == 1
    assert failed.stdout == b""
    assert failed.stderr.decode().startswith("fgclip2: images[0]: 坏.png: not a readable image")
    assert shell("classify", cwd=folder).returncode == 2
