"""The script that runs the tests on other releases: when it builds anew, and what it counts as passed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "compat.py"


@pytest.fixture(scope="module")
def compat():
    spec = importlib.util.spec_from_file_location("compat", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["compat"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["compat"]


def environment(compat, folder, transformers="5.18.0", torch="2.13.0"):
    return compat.Environment(folder, transformers, torch, sys.executable)


def test_an_environment_is_used_again_only_if_complete_and_of_the_same_recipe(compat, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(compat.subprocess, "run", lambda command, **kwargs: commands.append(command))
    first = environment(compat, tmp_path / "env")
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "left-over").touch()  # of a build that was interrupted

    def venv(command, **kwargs):
        commands.append(command)
        (tmp_path / "env").mkdir(exist_ok=True)

    monkeypatch.setattr(compat.subprocess, "run", venv)
    first.build()
    assert not (tmp_path / "env" / "left-over").exists()
    assert len(commands) == 2
    first.build()
    assert len(commands) == 2
    environment(compat, tmp_path / "env", torch="2.6.0").build()
    assert len(commands) == 4
    assert "torch==2.6.0" in commands[-1]


def test_a_failed_installation_is_not_taken_for_an_environment(compat, tmp_path, monkeypatch):
    def fail(command, **kwargs):
        (tmp_path / "env").mkdir(exist_ok=True)
        if "pip" in command:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(compat.subprocess, "run", fail)
    with pytest.raises(subprocess.CalledProcessError):
        environment(compat, tmp_path / "env").build()
    assert not environment(compat, tmp_path / "env").is_complete()


def test_only_releases_of_the_supported_range_get_the_package(compat, tmp_path):
    assert "--editable" in environment(compat, tmp_path).requirements()
    assert "--editable" not in environment(compat, tmp_path, transformers=compat.REMOTE_CODE_ONLY).requirements()


@pytest.mark.parametrize(
    ("exit_code", "junit", "passed"),
    [
        (0, '<testsuites><testsuite tests="3" failures="0" errors="0" skipped="1"/></testsuites>', True),
        (1, '<testsuites><testsuite tests="3" failures="1" errors="0" skipped="0"/></testsuites>', False),
        (0, '<testsuites><testsuite tests="1" failures="0" errors="0" skipped="1"/></testsuites>', False),
        (0, None, False),
    ],
    ids=["passed", "failed", "all skipped", "crashed"],
)
def test_a_run_counts_as_passed(compat, tmp_path, exit_code, junit, passed):
    if junit is not None:
        (tmp_path / "junit.xml").write_text(junit)
    counts = compat.count_results(tmp_path / "junit.xml")
    row = compat.Row(environment(compat, tmp_path), "parity", counts, exit_code, 1.0)
    assert row.passed is passed
    assert ("ok" if passed else "FAILED") in compat.format_table([row])


def test_each_environment_loads_what_the_others_export(compat, tmp_path, monkeypatch):
    runs = []
    monkeypatch.setattr(compat, "run_tests", lambda where, what, arguments, others: runs.append((where, others)))
    low, high, old = (environment(compat, tmp_path, release) for release in ("5.18.0", "5.23.0", "4.57.6"))
    compat.run_matrix([low, high, old])
    assert runs == [(low, []), (low, [high, old]), (high, []), (high, [low, old])]


def test_only_old_releases_is_a_usage_error():
    command = [sys.executable, str(SCRIPT), "--transformers", "4.57.6"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "at least one 5.x release" in process.stderr
