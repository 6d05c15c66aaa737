"""docs/evaluate.md: the code runs offline and prints what the page says."""

import os
from importlib.util import find_spec

import pytest

from fgclip2.benchmarks.evaluate_modules import FOLDER

from ..interpreters import run_python
from .documents import ROOT, read

DOCUMENT = ROOT / "docs" / "evaluate.md"


def test_every_module_has_its_example():
    for path in FOLDER.glob("[!_]*.py"):
        assert f"/{path.name}" in read(DOCUMENT)


def test_the_code_runs_and_prints_what_it_says(tmp_path):
    """In a process of its own: `evaluate` reads at its import whether there is a network, and where to keep things."""
    if find_spec("evaluate") is None or find_spec("pycocotools") is None:
        pytest.skip("evaluate and pycocotools are not installed")
    offline = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    code = "import sys, pathlib, tests.docs.documents as d; d.run_document(pathlib.Path(sys.argv[1]))"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **offline, "PYTHONPATH": paths}
    done = run_python("-c", code, DOCUMENT, env=environment, cwd=tmp_path)
    assert not done.returncode, done.stderr
