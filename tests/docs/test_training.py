"""docs/training.md and its Chinese equal: code, settings, commands and tables of settings are true."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from transformers import TrainingArguments

from fgclip2.cli import train_options
from fgclip2.data import read_finehard
from fgclip2.training import FGClip2TrainingArguments
from fgclip2.training.objective import PRESETS, ObjectiveSettings

DOCUMENTS = [Path(__file__).parents[2] / "docs" / name for name in ("training.md", "training_zh.md")]

ENGLISH = DOCUMENTS[0]  # whose code is run; the other's is the same

BLOCK = re.compile(r"(?<!<!-- not run -->\n)^```(\w+)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(params=DOCUMENTS, ids=lambda path: path.stem)
def document(request) -> Path:
    return request.param


def blocks(document: Path, language: str) -> list[str]:
    """Code of a language, without what is marked as not run."""
    return [block for its, block in BLOCK.findall(document.read_text(encoding="utf-8")) if its == language]


def tables(document: Path) -> list[list[list[str]]]:
    """Rows of cells of each table, its first row included."""
    found = re.findall(r"(?:^\|.*\n)+", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    rows = [[row for row in table.splitlines() if not row.startswith("|--")] for table in found]
    return [[[cell.strip() for cell in row.strip("|").split("|")] for row in table] for table in rows]


def written(value: object) -> str:
    """A default as the tables have it."""
    return "-" if value in (None, "", [], {}) else str(getattr(value, "value", value))


def default(cls: type, name: str) -> str:
    each = next(each for each in fields(cls) if each.name == name)
    return written(train_options.default_of(each))


def rows_of_first_cells(document: Path, names: set[str]) -> dict[str, list[str]]:
    """The table whose first cells are these names, in backticks."""
    for table in tables(document):
        rows = {row[0].strip("`"): row[1:] for row in table[1:]}
        if set(rows) == names:
            return rows
    raise AssertionError(f"no table has exactly the rows {sorted(names)}")


def test_every_field_of_the_objective_is_in_the_table(document):
    rows = rows_of_first_cells(document, {each.name for each in fields(ObjectiveSettings)})
    for name, row in rows.items():
        assert row[:2] == [written(getattr(PRESETS[preset], name)) for preset in ("released", "paper")], name


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


def test_settings_are_known(document, tmp_path):
    (settings,) = blocks(document, "yaml")
    file = tmp_path / "settings.yaml"
    file.write_text(settings, encoding="utf-8")
    assert set(train_options.parse([str(file)]).changed) >= set(yaml.safe_load(settings))


def test_python_blocks_run_one_after_another(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace: dict = {}
    for block in blocks(ENGLISH, "python"):
        exec(compile(block, ENGLISH.name, "exec"), namespace)  # what a reader types
    assert Path("fine-tuned/model.safetensors").is_file()
    assert namespace["trainer"].state.best_model_checkpoint


NUMBER = re.compile(r"(?<![\w@])\d+(?:\.\d+)?")
SECONDS = re.compile(r"\d+ s,")  # the clock's


def is_output(line: str, printed: str) -> bool:
    """The same but for the clock, and for 1% of what is no count; on one CPU neither threads nor kernels change it."""
    line, printed = SECONDS.sub("… s,", line), SECONDS.sub("… s,", printed)
    pairs = list(zip(NUMBER.findall(line), NUMBER.findall(printed), strict=False))
    same_text = NUMBER.sub("#", line) == NUMBER.sub("#", printed)
    return same_text and all(a == b or ("." in a and float(a) == pytest.approx(float(b), rel=0.01)) for a, b in pairs)


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
def test_commands_run(tmp_path, monkeypatch):
    """Each block of output is what the block of commands before it prints."""
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks(ENGLISH, "python")[0], ENGLISH.name, "exec"), {})
    Path("settings.yaml").write_text(blocks(ENGLISH, "yaml")[0], encoding="utf-8")
    printed: list[str] = []
    for language, block in BLOCK.findall(ENGLISH.read_text(encoding="utf-8")):
        if language == "bash":
            printed = [line for command in block.splitlines() for line in output_of(command).splitlines()]
        elif language == "text":
            for line in block.splitlines():
                assert any(is_output(line, each) for each in printed), line


def output_of(command: str) -> str:
    program, *arguments = shlex.split(command)
    assert program == "fgclip2"
    call = [sys.executable, "-m", "fgclip2.cli", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_both_languages_have_the_same_parts(document):
    for language in ("bash", "yaml", "json", "text"):
        assert blocks(document, language) == blocks(ENGLISH, language)
    code = [[re.sub(r"\s*#.*", "", block) for block in blocks(each, "python")] for each in (document, ENGLISH)]
    assert code[0] == code[1]
    headings = [re.findall(r"^#+ ", each.read_text(encoding="utf-8"), re.MULTILINE) for each in (document, ENGLISH)]
    assert headings[0] == headings[1]
    shapes = [[[len(row) for row in table] for table in tables(each)] for each in (document, ENGLISH)]
    assert shapes[0] == shapes[1]


def test_links_to_parts_of_the_page_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^## (.*)$", text, re.MULTILINE)
    }
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert links == anchors
