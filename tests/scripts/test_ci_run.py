"""What `.ci/run` says of programs that it can't install, before it does anything, and how `make` starts Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.environments import ROOT

BASH = shutil.which("bash")
pytestmark = pytest.mark.skipif(BASH is None, reason="needs bash")


def run_beside(folder: Path, programs: dict[str, str]) -> subprocess.CompletedProcess:
    """Run a copy of `.ci/run` in a folder with a virtual environment, where there are no other programs than these."""
    for name, output in programs.items():
        program = folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!{BASH}\necho {output}\n", encoding="utf-8")
        program.chmod(0o755)
    (folder / ".ci").mkdir()
    shutil.copyfile(ROOT / ".ci" / "run", folder / ".ci" / "run")
    (folder / ".venv").mkdir()
    environment = os.environ | {"PATH": str(folder / "bin")}
    return subprocess.run([BASH, folder / ".ci" / "run"], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("programs", "message"),
    [
        ({}, "needs Node.js 20 or later with npm"),
        ({"node": "v18.20.4", "npm": "10.7.0"}, "needs Node.js 20 or later with npm"),
        ({"node": "v20.20.2"}, "needs Node.js 20 or later with npm"),
        ({"node": "v20.20.2", "npm": "10.7.0"}, "needs Chromium"),
    ],
)
def test_programs_that_are_missing_are_named_first(tmp_path, programs, message):
    done = run_beside(tmp_path, {"dirname": f"{tmp_path}/.ci", **programs})
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert (tmp_path / ".venv").is_dir()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_python_keeps_what_it_compiles_whatever_the_environment_says():
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "KEPT": "1"}
    command = ["make", "--eval=shown: ; @env", "shown"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "KEPT=1" in done.stdout
    assert "PYTHONDONTWRITEBYTECODE" not in done.stdout
