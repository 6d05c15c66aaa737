"""The script that runs the tests on other releases: which environments it makes anew, and what it counts as passed."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from scripts import compat, environments


@pytest.fixture
def commands(monkeypatch) -> list[list[str]]:
    """The commands that would make environments; no pip runs."""
    ran = []

    def run(command, **kwargs):
        ran.append([str(part) for part in command])
        if "venv" in command:
            (Path(command[-1]) / "lib" / "python3" / "site-packages").mkdir(parents=True)
        return subprocess.CompletedProcess(command, 0, stdout="3.10.1\n")

    monkeypatch.setattr(subprocess, "run", run)
    return ran


def environment(transformers="5.18.0", python="python"):
    return compat.Environment(transformers, "2.13.0", Path(python))


def test_an_environment_is_used_again_only_if_complete_and_of_the_same_recipe(tmp_path, commands):
    folder = tmp_path / "env"
    folder.mkdir()
    (folder / "left-over").touch()  # of a build that was interrupted
    environments.make_environment(folder, ["six"])
    assert not (folder / "left-over").exists()
    assert len(commands) == 2
    environments.make_environment(folder, ["six"])
    assert len(commands) == 2
    environments.make_environment(folder, ["six>1"])
    assert len(commands) == 4
    assert commands[-1][-1] == "six>1"


def test_a_failed_installation_is_not_taken_for_an_environment(tmp_path, monkeypatch):
    def fail(command, **kwargs):
        (tmp_path / "env" / "lib" / "python3" / "site-packages").mkdir(parents=True, exist_ok=True)
        if "pip" in command:
            raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", fail)
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError):
            environments.make_environment(tmp_path / "env", ["six"])


def test_torch_alone_is_shared_by_links(tmp_path):
    shared = environments.link_torch(environments.link_torch(tmp_path / "shared"))
    assert (shared / "torch" / "__init__.py").is_file()
    assert (shared / "sympy").is_dir()
    assert not (shared / "transformers").exists()


def test_only_what_differs_from_this_environment_is_installed(tmp_path, commands):
    own = compat.shared_environment(tmp_path, version("transformers"))
    assert own.is_this_one
    assert commands == []
    other = compat.shared_environment(tmp_path, "5.0.0")
    assert not other.is_this_one
    assert commands[-1][-3:] == ["transformers==5.0.0", "--editable", "."]


def test_only_releases_of_the_supported_range_get_the_package(tmp_path, commands):
    compat.lowest_environment(tmp_path, "2.6.0", "python3.10")
    assert {"torch==2.6.0", "transformers==5.18.0", "--editable"} <= set(commands[-1])
    compat.shared_environment(tmp_path, compat.REMOTE_CODE_ONLY)
    assert "--editable" not in commands[-1]


@pytest.mark.parametrize("arguments", [[], ["--torch", "2.6.0", "--python", sys.executable]], ids=["as here", "lowest"])
def test_torch_and_python_are_those_of_the_lowest_release_alone(tmp_path, monkeypatch, arguments):
    made = []
    monkeypatch.setattr(compat, "newest_transformers", lambda python: "5.90.0")
    monkeypatch.setattr(compat, "lowest_environment", lambda cache, *pins: made.append((*pins,)) or environment())
    monkeypatch.setattr(
        compat, "shared_environment", lambda cache, release: made.append(release) or environment(release, release)
    )
    monkeypatch.setattr(compat, "run_matrix", lambda environments, tests: [])
    monkeypatch.setattr(sys, "argv", ["compat", "--cache", str(tmp_path), *arguments])
    compat.main()
    assert made == [("2.6.0", sys.executable) if arguments else "5.18.0", "5.90.0", "4.57.6"]


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
def test_a_run_counts_as_passed(tmp_path, exit_code, junit, passed):
    if junit is not None:
        (tmp_path / "junit.xml").write_text(junit)
    counts = compat.count_results(tmp_path / "junit.xml")
    row = compat.Row(environment(), "parity", counts, exit_code, 1.0)
    assert row.passed is passed
    assert ("ok" if passed else "FAILED") in compat.format_table([row])


def test_each_environment_loads_what_the_others_export(monkeypatch):
    runs = []
    monkeypatch.setattr(compat, "run_tests", lambda where, what, arguments, others: runs.append((where, others)))
    low, high, old = (environment(release, release) for release in ("5.18.0", "5.23.0", "4.57.6"))
    compat.run_matrix([low, high, old], ["parity"])
    assert runs == [(low, []), (low, [high, old]), (high, []), (high, [low, old])]


def test_the_release_of_this_environment_is_not_tested_twice(monkeypatch):
    runs = []
    monkeypatch.setattr(compat, "run_tests", lambda where, what, arguments, others: runs.append((where, others)))
    own, old = environment("5.23.0", sys.executable), environment("4.57.6")
    compat.run_matrix([own, old], ["parity"])
    assert runs == [(own, [old])]


def test_only_old_releases_is_a_usage_error():
    command = [sys.executable, "-m", "scripts.compat", "--transformers", "4.57.6"]
    process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=environments.ROOT)
    assert process.returncode == 2
    assert "at least one 5.x release" in process.stderr
