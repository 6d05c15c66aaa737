"""The check on a GPU, run dry: what is measured is kept, whatever happens, and the pages are those of the results."""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest
import torch
from filelock import FileLock

from scripts.device_check import __main__ as command
from scripts.device_check import one_part, page, report, runner, wheels
from scripts.device_check.models import encoder_operations
from scripts.device_check.parts import PARTS, load_part, training_step
from scripts.device_check.records import Case, Column, NotAvailableError, Part, Settings, Words, read_results, run_case

from ..docs.documents import ROOT, read

DRY = Settings(torch.device("cpu"), is_dry=True)


def fail(error: BaseException) -> dict:
    raise error


def part_of(*cases: Case) -> Part:
    columns = (Column("what", Words("what", "内容")), Column("value", Words("value", "数值"), ".1f"))
    return Part(Words("Part", "部分"), Words("Why.", "原因。"), columns, lambda settings: iter(cases))


def test_the_known_answers_are_held_and_kept(tmp_path):
    path = tmp_path / "parity.json"
    one_part.run_part("parity", DRY, path)
    content = read_results(path)
    assert content["ended"] == "complete"
    assert content["machine"]["dry_run"]
    assert len(content["records"]) == 16
    assert all(record["held"] for record in content["records"]), content["records"]
    assert not report.is_good({**content, "records": [{"held": False}]})


def test_problems_are_rows():
    errors = {
        "out of memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 16.00 GiB."),
        "not installed": ModuleNotFoundError("No module named 'siglip_kernel'", name="siglip_kernel"),
        "not available": NotAvailableError("no such kernel"),
        "failed": ValueError("too few\nlines"),
    }
    for kind, error in errors.items():
        record = run_case(Case({"what": "a"}, lambda error=error: fail(error)))
        assert record["problem"]["kind"] == kind
    assert record["problem"]["detail"] == "ValueError: too few"
    assert run_case(Case({"what": "a"}, lambda: fail(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when"))))["problem"] == {
        "kind": "out of memory",
        "detail": "",
    }


def test_a_part_that_cannot_be_loaded_has_failed(tmp_path, monkeypatch):
    path = tmp_path / "parity.json"
    monkeypatch.setattr(one_part, "load_part", lambda name: fail(ModuleNotFoundError("No module 'a'", name="a")))
    one_part.run_part("parity", DRY, path)
    content = read_results(path)
    assert content["ended"] == "failed"
    assert content["records"] == [
        {"problem": {"kind": "failed", "detail": "ModuleNotFoundError: No module 'a'"}},
    ]


def test_the_plan_of_a_step_stays_where_it_does_not_fit(monkeypatch):
    monkeypatch.setattr(training_step, "Step", lambda *_: fail(torch.OutOfMemoryError("CUDA out of memory.")))
    record = training_step.measure("base", 8, 256, False, DRY)
    assert record.pop("plan") > 0
    assert record == {"problem": {"kind": "out of memory", "detail": ""}}


def test_a_run_that_was_interrupted_goes_on(tmp_path, monkeypatch):
    asked = []

    def measure(name: str) -> dict:
        asked.append(name)
        return {"value": 1.0} if len(asked) != 2 else fail(KeyboardInterrupt())

    cases = [Case({"what": name}, lambda name=name: measure(name)) for name in "abc"]
    monkeypatch.setattr(one_part, "load_part", lambda name: part_of(*cases))
    path = tmp_path / "parity.json"
    with pytest.raises(KeyboardInterrupt):
        one_part.run_part("parity", DRY, path)
    left = read_results(path)
    interrupted = {"what": "b", "problem": {"kind": "interrupted", "detail": ""}}
    assert left["records"] == [{"what": "a", "value": 1.0}, interrupted]
    assert left["running"] == 1
    assert "ended" not in left
    one_part.run_part("parity", DRY, path)
    assert asked == ["a", "b", "c", "b"]  # what may have ended the process comes last
    content = read_results(path)
    assert content["records"] == [{"what": name, "value": 1.0} for name in "abc"]
    assert content["ended"] == "complete"


@pytest.mark.parametrize(
    ("code", "limit", "kind"), [("time.sleep(60)", 0.5, "timed out"), ("sys.exit(3)", 60, "failed")]
)
def test_a_part_that_hangs_or_dies_leaves_a_row(tmp_path, monkeypatch, code, limit, kind):
    work = tmp_path / "work"
    work.mkdir()
    rows = [{"what": "a", "value": 1.0}, {"what": "b", "problem": {"kind": "interrupted"}}, {"what": "c", "value": 1.0}]
    left = json.dumps({"machine": {}, "running": 1, "records": rows})
    program = tmp_path / "python"
    keep = f"pathlib.Path({str(work / 'loss.json')!r}).write_text({left!r})"
    program.write_text(f"#!{sys.executable}\nimport pathlib, sys, time\n{keep}\n{code}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(runner.sys, "executable", str(program))
    start = time.monotonic()
    assert runner.run_part("loss", "cpu", work, True, limit) == kind
    assert time.monotonic() - start < 30
    content = read_results(work / "loss.json")
    assert [record.get("problem", {}).get("kind") for record in content["records"]] == [None, kind, None]
    assert content["ended"] == kind


def test_a_part_ends_with_the_run_that_has_started_it(monkeypatch):
    parents, ended = iter([7, 7, 1]), []
    monkeypatch.setattr(one_part.os, "getppid", lambda: next(parents))
    monkeypatch.setattr(one_part.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(one_part.os, "_exit", ended.append)
    one_part.end_with(7)
    assert ended == [1]


def test_a_page_has_problems_and_both_languages(monkeypatch):
    records = [
        {"what": "images", "value": 1.25},
        {"what": "sdpa, math", "problem": {"kind": "out of memory", "detail": ""}},
        {"problem": {"kind": "failed", "detail": "ValueError: a|b"}},
    ]
    columns = part_of().columns
    english, chinese = (page.table(columns, records, language) for language in ("en", "zh"))
    assert english.splitlines()[2:] == [
        "| images | 1.2 |",
        "| sdpa, math | out of memory |",
        "| failed: ValueError: a\\|b | - |",
    ]
    assert chinese.splitlines()[2:] == [
        "| 图像 | 1.2 |",
        "| sdpa, math | 显存不足 |",
        "| 失败：ValueError: a\\|b | - |",
    ]


def test_the_pages_are_those_of_the_results():
    numbers = ROOT / "docs" / "gpu.json"
    results = json.loads(read(numbers)) if numbers.exists() else {}
    assert not any(content["machine"]["dry_run"] for content in results.values())
    for language, name in (("en", "gpu.md"), ("zh", "gpu_zh.md")):
        assert read(ROOT / "docs" / name) == page.page(results, language)


def test_a_dry_run_does_not_touch_the_page(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.parse(["--dry-run", "--output", "docs/gpu.md"])
    assert "--dry-run writes no page" in capsys.readouterr().err
    assert str(command.parse(["--dry-run"]).work) == "device_check_dry_run"
    one_part.write_results(tmp_path / "loss.json", {"machine": {"dry_run": True}, "ended": "complete", "records": []})
    options = command.parse(["--work", str(tmp_path), "--parts", "loss", "--output", str(tmp_path / "gpu.md")])
    with pytest.raises(SystemExit, match="choose another folder by --work"):  # before anything is kept, or run
        report.run(options)
    with FileLock(tmp_path / ".lock"), pytest.raises(SystemExit, match="another run uses"):
        report.run(options)


def test_the_environment_gets_all_arguments_but_the_wheels():
    for wheels_given in (["--wheels", "a"], ["--wheels=a"]):
        assert command.without_wheels(["--parts", "loss", *wheels_given, "--again"]) == ["--parts", "loss", "--again"]


def test_every_part_has_its_words():
    for name in PARTS:
        part = load_part(name)
        keys = [column.key for column in part.columns]
        assert len(set(keys)) == len(keys)
        for words in (part.title, part.explanation, *(column.title for column in part.columns)):
            assert words.english
            assert words.chinese


def test_torch_is_not_among_the_wheels():
    names = {requirement.name for requirement in wheels.requirements()}
    assert {"transformers", "tokenizers", "accelerate", "onnxscript", "prometheus-client"} <= names
    assert not {"torch", "onnxruntime", "peft"} & names


def test_wheels_that_cannot_be_installed_are_a_message(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONSTRAINT", "/etc/pip/constraint.txt")  # as in NVIDIA's images

    def install(*_: object, **__: object) -> None:
        assert "PIP_CONSTRAINT" not in os.environ
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(wheels, "make_environment", install)
    with pytest.raises(SystemExit, match="see above; "):
        wheels.environment(tmp_path, tmp_path / "environment")
    monkeypatch.setattr(wheels, "find_spec", lambda name: None if name == "pip" else find_spec(name))
    with pytest.raises(SystemExit, match="has no pip: run this"):
        wheels.environment(tmp_path, tmp_path / "environment")


def test_an_environment_is_made_without_packaging():
    code = "import sys; sys.modules['packaging'] = None; import scripts.device_check.__main__"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_operations_are_those_of_the_layers():
    """One layer of width 4 and inner width 8 on 3 tokens, counted by hand."""
    config = type("Config", (), {"hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 1})
    projections = 3 * 4 * (4 * 4) * 2 + 3 * 2 * (4 * 8) * 2
    attention = 2 * (3 * 3 * 4) * 2
    assert encoder_operations(config, 3) == projections + attention


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_a_part_runs_dry(tmp_path, monkeypatch, name):
    """In a process of its own, as on a GPU."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as the command does, but for this test only
    arguments = ["--dry-run", "--device", "cpu", "--limit", "800", "--work", str(tmp_path), "--parts", name]
    status = command.main(arguments)
    (content,) = report.collect(tmp_path).values()
    assert content["ended"] == "complete"
    kinds = {record["problem"]["kind"] for record in content["records"] if "problem" in record}
    assert kinds <= {"not installed", "not available"}, content["records"]
    assert status in (0, 1)  # on a CPU the plan of a step, and the share of a loader, need not be held
    assert "dry run" in read(tmp_path / "gpu.md")
    assert "试运行" in read(tmp_path / "gpu_zh.md")
