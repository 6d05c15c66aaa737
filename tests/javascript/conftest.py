"""Node.js and its packages, which only `make node` installs; where that runs the tests, their want is a failure."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "FGCLIP2_NODE" not in os.environ:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs Node.js and its packages: make node"))


@pytest.fixture(scope="session")
def run_node() -> Callable[..., str]:
    """A function that runs a script with arguments, in its folder, and returns what it prints."""

    def run(script: Path, *arguments: str | Path) -> str:
        command = ["node", *map(str, (script, *arguments))]
        options = {"capture_output": True, "text": True, "encoding": "utf-8", "timeout": 300, "check": False}
        done = subprocess.run(command, cwd=script.parent, **options)
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    return run


@pytest.fixture(scope="session")
def embedder():
    from fgclip2 import Embedder

    return Embedder.from_pretrained(device="cpu")
