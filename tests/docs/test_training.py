"""docs/training.md and its Chinese equal: code, settings, commands and tables of settings are true."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from transformers import TrainingArguments

from fgclip2 import FGClipModel
from fgclip2.cli import train_options
from fgclip2.data import read_finehard
from fgclip2.training import FGClip2TrainingArguments
from fgclip2.training.objective import PRESETS, ObjectiveSettings
from fgclip2.training.tasks import TRAINING_MODELS

from ..checkpoints import write_clip_folder
from .documents import ROOT, blocks, is_output, rows_of_first_cells, run_document

DOCUMENTS = [ROOT / "docs" / name for name in ("training.md", "training_zh.md")]
ENGLISH = DOCUMENTS[0]  # whose code is run; the other's is the same
TUTORIAL = ROOT / "docs" / "tutorials" / "fine_tune.md"  # in whose folder it goes on


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.stem)
def document(request) -> Path:
    return request.param


def written(value: object) -> str:
    """A default as the tables have it."""
    return "-" if value in (None, "", [], {}) else str(getattr(value, "value", value))


def default(cls: type, name: str) -> str:
    each = next(each for each in fields(cls) if each.name == name)
    return written(train_options.default_of(each))


def test_every_objective_is_named_where_it_is_set(document):
    row = next(line for line in document.read_text(encoding="utf-8").splitlines() if line.startswith("| `objective` |"))
    argument = next(each for each in fields(FGClip2TrainingArguments) if each.name == "objective")
    for objective in (name for kinds in TRAINING_MODELS.values() for kind in kinds for name in kind.task.objectives):
        assert f"`{objective}`" in row
        assert objective in argument.metadata["help"]
        assert f'"{objective}"' in FGClip2TrainingArguments.__doc__


def test_every_field_of_the_objective_is_in_the_table(document):
    rows = rows_of_first_cells(document, {each.name for each in fields(ObjectiveSettings)})
    for name, row in rows.items():
        assert row[:3] == [written(getattr(PRESETS[preset], name)) for preset in ("released", "paper", "fgclip")], name


def test_every_setting_of_ours_is_in_the_table(document):
    inherited = {each.name for each in fields(TrainingArguments)}
    own = {each.name for each in fields(FGClip2TrainingArguments)} - inherited
    for name, row in rows_of_first_cells(document, own).items():
        assert row[0] == default(FGClip2TrainingArguments, name), name


def test_other_defaults_are_in_the_table(document):
    numbers = {each.name for each in fields(TrainingArguments)} - {"dataloader_drop_last", "remove_unused_columns"}
    changed = {n for n in numbers if default(FGClip2TrainingArguments, n) != default(TrainingArguments, n)}
    rows = rows_of_first_cells(document, changed - {"ddp_find_unused_parameters"})
    for name, row in rows.items():
        assert row == [default(FGClip2TrainingArguments, name), default(TrainingArguments, name)], name


def test_records_are_read(document, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = [json.loads(block) for block in blocks(document, "json")]
    Path("a.jsonl").write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), "utf-8")
    english, chinese = read_finehard("a.jsonl", ".")
    assert (english.language, chinese.language) == ("en", "zh")
    for record in (english, chinese):
        assert record.short_caption
        assert record.long_caption
        assert len(record.regions[0].hard_negatives) == 2


def test_settings_are_known(tmp_path):
    (settings,) = blocks(TUTORIAL, "yaml")
    file = tmp_path / "settings.yaml"
    file.write_text(settings, encoding="utf-8")
    assert set(train_options.parse([str(file)]).changed) >= set(yaml.safe_load(settings))


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("200 steps in 81 s, mean loss 1.835", True),
        ("200 steps in 19 s, mean loss 6.496", False),
        ("201 steps in 19 s, mean loss 1.832", False),
        ("200 steps in 19 s, mean loss nan", False),
        ("200 steps in 19 s, mean loss 1.832 or so", False),
    ],
)
def test_outputs_are_compared_by_their_numbers(printed, expected):
    assert is_output("200 steps in 19 s, mean loss 1.832", printed) == expected


@pytest.mark.slow
def test_the_code_runs_and_prints_what_the_page_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_clip_folder(tmp_path / "clip")
    variables = run_document(TUTORIAL)
    run_document(ENGLISH)
    assert Path("fine-tuned/model.safetensors").is_file()
    FGClipModel.from_pretrained("run_of_first_version")
    assert variables["trainer"].state.best_model_checkpoint


def test_links_to_parts_of_the_page_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    parts, all_parts = (
        {
            re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
            for heading in re.findall(rf"^{marks} (.*)$", text, re.MULTILINE)
        }
        for marks in ("##", "##+")
    )
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert parts <= links <= all_parts
