"""Trackio and Weights & Biases by name, with stand-ins for the packages; `report_for_real.py` takes the real ones."""

import importlib
import json
import sys

import pytest

from fgclip2.training import reporting

from .test_trainer import arguments, logs, trainer

# What transformers' callbacks use of either, which writes down how it is called.
STAND_IN = """
import json, os
from pathlib import Path

def note(**what):
    with Path(os.environ["STAND_IN_LOG"]).open("a") as file:
        file.write(json.dumps({"package": __name__, **what}, default=str) + "\\n")

class Config(dict):
    def update(self, values, **options):
        note(config={name: values[name] for name in ("learning_rate", "objective_settings", "model_type")})

class Context:
    def get(self): return None

class context_vars:
    current_space_id = current_project = Context()

class Run:
    summary, name, id, url = {}, "run", "1", ""
    def _label(self, **labels): pass

run, config = None, Config()
def init(**settings):
    global run
    run = Run()
    note(init=settings)
def log(values): note(log=values)
def finish(): note(finish=True)
def define_metric(*names, **options): pass
def termwarn(text, **options): note(warning=text)
__version__ = "99"
"""


@pytest.fixture
def stand_ins(tmp_path, monkeypatch):
    for package in reporting.PACKAGES:
        (tmp_path / "packages" / package).mkdir(parents=True)
        (tmp_path / "packages" / package / "__init__.py").write_text(STAND_IN)
        monkeypatch.delitem(sys.modules, package, raising=False)
    (tmp_path / "packages/wandb/sdk/lib").mkdir(parents=True)
    for folder in ("wandb/sdk", "wandb/sdk/lib"):
        (tmp_path / "packages" / folder / "__init__.py").touch()
    (tmp_path / "packages/wandb/sdk/lib/config_util.py").write_text("class ConfigError(Exception): pass")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setenv("STAND_IN_LOG", str(tmp_path / "calls.jsonl"))
    monkeypatch.setenv("WANDB_PROJECT", "")
    monkeypatch.delenv("WANDB_PROJECT")
    monkeypatch.setattr(reporting, "_project", None)
    importlib.invalidate_caches()
    yield lambda: [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]
    for name in [name for name in sys.modules if name.partition(".")[0] in reporting.PACKAGES]:
        del sys.modules[name]


@pytest.mark.parametrize("package", reporting.PACKAGES)
def test_every_number_of_the_log_arrives_under_the_names_of_the_run(
    saved_folder, tmp_path, records, stand_ins, package
):
    settings = {"report_to": package, "project": "squares", "objective_settings": {"distillation_weight": 1.0}}
    run = trainer(saved_folder, tmp_path / "first run", records, **settings)
    run.train()
    calls = [call for call in stand_ins() if call["package"] == package]
    (init,) = (call["init"] for call in calls if "init" in call)
    assert init["project"] == "squares"
    assert init["name"].startswith("first run-")
    (config,) = (call["config"] for call in calls if "config" in call)
    assert config["objective_settings"] == {"distillation_weight": 1.0}
    assert config["model_type"] == "fgclip2"
    sent = [call["log"] for call in calls if "log" in call]
    for row, arrived in zip(logs(run), sent, strict=False):
        for name, value in row.items():
            if name not in ("step", "epoch"):
                assert arrived[f"train/{name}"] == value, name
        assert {"train/short_loss", "train/distillation_loss", "train/margin"} <= set(arrived)
    assert not any("warning" in call for call in calls)


def test_names_that_are_given_stay(tmp_path, stand_ins, monkeypatch):
    args = arguments(tmp_path, report_to="wandb", run_name="mine", project="squares")
    assert args.run_name == "mine"
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    reporting.name_wandb_project(args)
    assert reporting.os.environ["WANDB_PROJECT"] == "theirs"
    assert arguments(tmp_path).run_name is None


def test_a_folder_has_one_name_and_no_other_folder_has_it(tmp_path, stand_ins, monkeypatch):
    folder = tmp_path / "a" / "run"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    names = [arguments(path, report_to="trackio").run_name for path in (folder, ".", "../run", tmp_path / "b" / "run")]
    assert names[0] == names[1] == names[2] != names[3]
    assert all(name.startswith("run-") for name in names)


def test_each_run_of_a_process_has_its_own_project(tmp_path, stand_ins):
    for project, expected in (("first", "first"), ("second", "second"), ("huggingface", None), ("third", "third")):
        reporting.name_wandb_project(arguments(tmp_path, report_to="wandb", project=project))
        assert reporting.os.environ.get("WANDB_PROJECT") == expected


def test_a_log_is_not_sent_to_a_public_page_unasked(tmp_path, stand_ins):
    args = arguments(tmp_path, report_to="trackio")
    if hasattr(args, "trackio_static_space_id"):  # newer than the oldest transformers
        assert args.trackio_static_space_id is False
        args = arguments(tmp_path, report_to="trackio", trackio_static_space_id="someone/page")
        assert args.trackio_static_space_id == "someone/page"


@pytest.mark.parametrize("package", reporting.PACKAGES)
def test_a_missing_package_is_named_with_the_command(tmp_path, monkeypatch, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"names {package}, which is not installed; run: pip install {package}"):
        reporting.check_reporting(arguments(tmp_path).__class__(str(tmp_path), use_cpu=True, report_to=package))
