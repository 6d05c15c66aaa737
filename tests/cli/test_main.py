"""The command as a whole: help, exit codes, streams, and the surface that only grows on purpose."""

import json
import os
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from statistics import median

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fgclip2.cli import train_options
from fgclip2.cli.common import kept_when_interrupted
from fgclip2.cli.main import app
from tests.interpreters import run_python

TOP_LEVEL = get_command(app).commands
GROUPS = {name: group for name, group in TOP_LEVEL.items() if hasattr(group, "commands")}
LISTED = {name: command for name, command in TOP_LEVEL.items() if name not in GROUPS}
LISTED |= {f"{group} {name}": command for group in GROUPS for name, command in GROUPS[group].commands.items()}
COMMANDS = {name: command.load() for name, command in LISTED.items()}
COMMON = {"--help", "-h"}
OPTIONS = {
    "embed": {
        *(
            "images",
            "--output",
            "-o",
            "--text",
            "--texts-file",
            "--walk-type",
            "--max-patches",
            "--max-pixels",
            "--batch-size",
        ),
        *("--skip-errors", "--model", "-m", "--device", "--json"),
        *("--engine", "--kind", "--id-column", "--image-column", "--text-column", "--boxes-column", "--images-folder"),
        *("--backend", "--precision", "--dtype", "--workers", "--cpus-per-worker", "--rows-per-file"),
        *("--address", "--object-store"),
    },
    "index": {
        *("folder", "--index", "--show-problems", "--rebuild", "--follow-links", "--compare-contents"),
        *("--video", "--dense", "--max-patches", "--max-pixels", "--batch-size", "--model", "-m", "--device", "--json"),
        *("--cache", "--verify", "--regions", "--metadata", "--id-column", "--image-column"),
    },
    "calibrate": {
        *("pairs", "--output", "-o", "--images", "--method", "--follow-links", "--max-patches", "--max-pixels"),
        *("--batch-size", "--model", "-m", "--device", "--json"),
    },
    "search": {
        *("--calibration", "--min-probability", "--prevalence"),
        *("folder", "queries", "--image", "--top-k", "--rerank", "--candidates", "--explain", "--index"),
        *("--box", "--combine", "--weight", "--not", "--not-weight", "--approximate", "--html"),
        *("--where", "--regions"),
        *(
            "--no-update",
            "--rebuild",
            "--follow-links",
            "--compare-contents",
            "--max-patches",
            "--max-pixels",
            "--batch-size",
            "--model",
            "-m",
        ),
        *("--device", "--json"),
    },
    "duplicates": {
        *("folder", "--threshold", "--html", "--index", "--no-update", "--follow-links", "--compare-contents"),
        *("--max-patches", "--max-pixels", "--batch-size", "--model", "-m", "--device", "--json"),
    },
    "classify": {
        *("--calibration", "--min-probability", "--prevalence"),
        *(
            "images",
            "--labels",
            "--labels-file",
            "--template",
            "--top-k",
            "--max-patches",
            "--max-pixels",
            "--skip-errors",
        ),
        *("--model", "-m", "--device", "--json"),
    },
    "regions": {
        *("--calibration", "--min-probability", "--prevalence"),
        *("images", "--boxes", "--box", "--box-format", "--image-ids", "--labels", "--labels-file", "--template"),
        *(
            "--top-k",
            "--min-cosine",
            "--max-patches",
            "--max-pixels",
            "--batch-size",
            "--skip-errors",
            "--model",
            "-m",
            "--device",
        ),
        "--json",
    },
    "heatmap": {
        *(
            "image",
            "text",
            "--output",
            "-o",
            "--opacity",
            "--max-patches",
            "--max-pixels",
            "--model",
            "-m",
            "--device",
            "--json",
        ),
    },
    "serve": {
        *("--host", "--port", "--workers", "--threads", "--folder", "--index", "--model", "-m", "--device"),
        *("--backend", "--precision", "--name", "--max-patches", "--batch-size", "--keys-file", "--without-keys"),
        *("--allow-url", "--calibration"),
        *("--max-body", "--max-pixels", "--max-images", "--max-texts", "--max-text-characters", "--max-boxes"),
        *("--max-hits", "--timeout", "--max-waiting", "--max-held", "--max-connections", "--cached-texts"),
    },
    "mcp": {"--root", "--model", "-m", "--device", "--calibration", "--max-pixels"},
    "app": {
        *("--folder", "--index", "--model", "-m", "--device", "--calibration", "--max-patches", "--host", "--port"),
    },
    "demo": {"--output", "-o", "--model", "-m", "--device", "--json"},
    "doctor": {"--checkpoint", "--coco-image", "--device", "--json"},
    "convert": {"folder", "output", "--vocabulary", "--config", "--json"},
    "export": {
        *("folder", "--model", "-m", "--format", "--license", "--base-model", "--dataset", "--results", "--onnx"),
        *("--push", "--private", "--public", "--precision", "--square-side", "--compared-items", "--json"),
    },
    "init": {
        *("paths", "--num-patches", "--revision", "--preset", "--config", "--tokenizer", "--texts", "--vocab-size"),
        *("--seed", "--json"),
    },
    # And the settings of a run, see test_train.py.
    "train": {"arguments", "--dry-run", "--dry_run", "--processes", "--resume", "--json", "--help-all"},
    "data validate": {
        *("path", "--format", "--images-folder", "--images", "--image-column", "--short-caption-column"),
        *(
            "--long-caption-column",
            "--language-column",
            "--label-column",
            "--language",
            "--follow-links",
            "--show",
            "--threads",
        ),
        "--json",
    },
    "data shards": {
        *("sources", "output", "--format", "--images-folder", "--samples-per-shard", "--processes", "--on-error"),
        *("--image-column", "--short-caption-column", "--long-caption-column", "--language-column", "--label-column"),
        *("--language", "--follow-links", "--json"),
    },
    "bench list": {"--json"},
    "bench check": {"name", "path", "--images", "--open", "--follow-links", "--show", "--json"},
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
        *("--rerank", "--candidates", "--output", "--cache", "--no-cache", "--follow-links", "--items", "--controls"),
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
    found = {option for parameter in COMMANDS[name].params for option in [*parameter.opts, *parameter.secondary_opts]}
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


def test_hyphens_and_underscores_are_alike(run):
    Path("标签.txt").write_text("猫\ndog\n", encoding="utf-8")
    assert run.json("classify", "photo.png", "--labels_file", "标签.txt", "--top_k", "1")["results"]
    assert "hard-negatives" in run("data", "hard_negatives", "--help", model=False).stdout
    unknown = run("data", "validate", "x.csv", "--caption_column", "描述", code=2, model=False)
    assert "--short-caption-column" in unknown.stderr


@pytest.mark.parametrize("command", [["classify", "--labels", "猫"], ["embed", "--output", "v.npy"]])
def test_a_quoted_home_folder_is_found_and_an_address_is_not_fetched(run, folder, monkeypatch, command):
    monkeypatch.setenv("HOME", str(folder))
    (folder / "照片").rename(folder / "相册")
    run(*command, "~/相册/黑猫.png")
    refused = run(*command, "https://example.org/cat.png", code=1)
    assert "https://example.org/cat.png: addresses are not fetched; download the file" in refused.stderr
    assert "there is no home folder ~nobody-here" in run(*command, "~nobody-here/猫.png", code=1).stderr


def test_a_home_folder_is_found_in_a_file_of_settings_and_before_ids(run, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    Path("对.csv").write_text("image,caption\nphoto.png,一只猫\n", encoding="utf-8")
    Path("设置.yaml").write_text("model: 起点\ntrain_data: ~/对.csv\noutput_dir: 训练\n", encoding="utf-8")
    assert train_options.parse(["设置.yaml"]).data.train_data == [str(folder / "对.csv")]
    assert run.json("data", "validate", "~/对.csv", model=False)["records"] == 1
    assert str(folder / "没有") in run("init", "~/没有", "新", code=1, model=False).stderr


@pytest.mark.parametrize("kept", ["", "2 images are kept in 部分"])
def test_an_interrupted_command_says_what_is_kept(run, monkeypatch, kept):
    def interrupt(*arguments, **options):
        with kept_when_interrupted(kept):
            raise KeyboardInterrupt

    monkeypatch.setattr("fgclip2.cli.common.load_embedder", interrupt)
    result = run("classify", "photo.png", "--labels", "猫", code=130)
    assert result.stderr == f"fgclip2: interrupted: {kept or 'nothing was written'}\n"


@pytest.mark.parametrize(
    ("command", "interrupted", "kept"),
    [
        (["demo", "-o", "演示"], "fgclip2.demo.run.run_demo", "what is done is in 演示; the same command goes on"),
        (["bench", "run", "image-folder", "照片", "--no-cache"], "fgclip2.benchmarks.runner.run", "in bench_results"),
        (
            ["bench", "run", "image-folder", "照片", "--cache", "缓存"],
            "fgclip2.benchmarks.runner.run",
            "embeddings in 缓存",
        ),
        (
            ["train", "-m", "x", "--train_data", "a", "--output_dir", "训练"],
            "fgclip2.cli.train._run",
            "are in 训练",
        ),
    ],
)
def test_long_commands_say_where_their_work_is_kept(run, monkeypatch, command, interrupted, kept):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupted, interrupt)
    assert kept in run(*command, code=130, model=command[0] != "train").stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["classify", "照片", "--labels", "猫"], "照片 is a folder: give image files, e.g. 照片/*.jpg"),
        (["classify", "photo.png", "--labels-file", "照片"], "照片: it is a folder; give the name of a file"),
        (["classify", "photo.png", "--labels-file", "没有.txt"], "没有.txt: there is no such file or folder"),
        (["heatmap", "照片", "猫", "-o", "x.png"], "照片 is a folder: give image files"),
        (["heatmap", "photo.png", "猫", "-o", "照片"], "照片 is a folder: give the name of a file in it"),
        (["heatmap", "photo.png", "猫", "-o", "没有/x.png"], "没有/x.png: there is no folder 没有"),
        (["embed", "--texts-file", "照片", "-o", "v.npz"], "照片: it is a folder; give the name of a file"),
        (["demo", "-o", "photo.png"], "photo.png: it exists already; choose another name"),
        (["data", "hard-negatives", "照片", "新.json"], "照片: it is a folder; give the name of a file"),
        (["data", "hard-negatives", "a.json", "没有/新.json"], "没有/新.json: there is no folder 没有"),
    ],
)
def test_a_file_for_a_folder_and_a_folder_for_a_file_are_told_apart(run, command, message):
    assert message in run(*command, code=1, model=command[0] != "data").stderr


def test_a_folder_that_cannot_be_written_is_told_before_the_work(run, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    for command in (["embed", "photo.png", "-o", "v.npz"], ["heatmap", "photo.png", "猫", "-o", "x.png"]):
        assert "can't be written to; choose another one" in run(*command, code=1).stderr


def test_names_are_printed_on_one_line(run, folder):
    name = "黑\n\u202e猫.png"
    (folder / "photo.png").rename(folder / name)
    for command in (["classify", name], ["regions", name, "照片/dog.png", "--boxes", "框.json"]):
        entries = [{"id": 1, "file_name": name}, {"id": 2, "file_name": "dog.png"}]
        Path("框.json").write_text(json.dumps({"images": entries, "annotations": []}), encoding="utf-8")
        assert run(*command, "--labels", "猫").stdout.splitlines()[0] == "黑\\n\\u202e猫.png"


def test_missing_checkpoints_are_one_line(run, folder):
    result = run("classify", "photo.png", "--labels", "猫", "--model", folder / "没有", code=1, model=False)
    assert "没有" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_names_in_messages_can_not_turn_the_line_around(run):
    result = run("classify", "狗\u202egnp.exe", "--labels", "猫", code=1)
    assert "\u202e" not in result.stderr
    assert r"狗\u202egnp.exe" in result.stderr


def test_debug_lets_the_error_through(folder):
    result = CliRunner().invoke(app, ["--debug", "convert", str(folder / "没有")])
    assert isinstance(result.exception, (ValueError, OSError))


CONSOLE = [sys.executable, "-c", "from fgclip2_command import main; main()"]
HEAVY = ("torch", "transformers", "numpy", "PIL", "safetensors", "tqdm")
QUICK = {
    "help": (["--help"], {}),
    "version": (["--version"], {}),
    "completion of a command in bash": (
        [],
        {"_FGCLIP2_COMPLETE": "complete_bash", "COMP_WORDS": "fgclip2 se", "COMP_CWORD": "1"},
    ),
    "completion of a command in zsh": (
        [],
        {"_FGCLIP2_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "fgclip2 se"},
    ),
}
WITHOUT_TRANSFORMERS = {
    **QUICK,
    "help of a command": (["search", "--help"], {}),
    "help of a command in a group": (["data", "validate", "--help"], {}),
    "completion of an option": (
        [],
        {"_FGCLIP2_COMPLETE": "complete_bash", "COMP_WORDS": "fgclip2 search --t", "COMP_CWORD": "2"},
    ),
}
ANSWERS = {
    "help": "Commands:",
    "version": version("fgclip2"),
    "completion of an option": "--top-k",
    "help of a command in a group": "validate",
}


@pytest.mark.parametrize("name", WITHOUT_TRANSFORMERS)
def test_help_and_completion_import_nothing_heavy(name):
    arguments, environment = WITHOUT_TRANSFORMERS[name]
    code = (
        "import atexit, sys; from fgclip2_command import main; "
        f"atexit.register(lambda: print('heavy:', sorted({set(HEAVY)} & set(sys.modules)), file=sys.stderr)); main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == "heavy: []"
    assert ANSWERS.get(name, "search") in done.stdout


def cpu_seconds(command: list[str], environment: dict[str, str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_version_and_completion_are_quick():
    """At most three times the CPU time of `import typer`, in the median of five warm runs; measured: 1.0 to 1.5."""
    runs = {"typer": ([sys.executable, "-c", "import typer"], {})}
    runs |= {name: ([*CONSOLE, *arguments], environment) for name, (arguments, environment) in QUICK.items()}
    for command, environment in runs.values():
        cpu_seconds(command, environment)
    # Interleaved, so that what else the machine does slows all of them down alike.
    rounds = [[cpu_seconds(*run) for run in runs.values()] for _ in range(5)]
    medians = dict(zip(runs, map(median, zip(*rounds, strict=True)), strict=True))
    assert {name: seconds for name, seconds in medians.items() if seconds > 3 * medians["typer"]} == {}


def test_the_list_of_commands_says_what_their_help_says():
    for name, listed in LISTED.items():
        assert listed.get_short_help_str() == COMMANDS[name].help.splitlines()[0], name


@pytest.mark.parametrize(
    ("code", "registered"),
    [
        ("import fgclip2_command, fgclip2", True),  # a process that the console script has spawned
        ("import fgclip2.cli.__main__", True),
        ("import fgclip2_command; fgclip2_command.registers_before_a_command = True; import fgclip2", False),
    ],
)
def test_only_the_console_script_does_not_register_at_import(code, registered):
    known = "'transformers' in sys.modules and 'fgclip2' in __import__('transformers').CONFIG_MAPPING"
    done = run_python("-c", f"{code}; import sys; print({known})")
    assert done.stdout.strip() == str(registered), done.stderr


def test_the_console_script_registers_before_a_command_runs():
    code = """
import sys, types
import fgclip2_command
def command():
    import transformers
    print("fgclip2" in transformers.CONFIG_MAPPING)
sys.modules["fgclip2.cli.convert"] = types.ModuleType("fgclip2.cli.convert")
sys.modules["fgclip2.cli.convert"].__dict__.update(convert=command, EXAMPLES="")
fgclip2_command.main()
"""
    done = run_python("-c", code, "convert")
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("module", ["fgclip2", "fgclip2.cli"])
def test_runs_as_a_module(module):
    done = run_python("-m", module, "--version")
    assert done.stdout.strip() == version("fgclip2"), done.stderr


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
