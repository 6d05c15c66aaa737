"""docs/serving.md and docs/mcp.md run from their top and print what they say; the files to deploy name real options."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from fgclip2.cli.main import app
from fgclip2.search import ImageIndex
from fgclip2.serving.limits import Limits
from fgclip2.serving.server import ServiceSettings, make_app
from tests.serving.conftest import listening

from .documents import ROOT, assert_shown, blocks, read, run_document, tables

PAGE = ROOT / "docs" / "serving.md"
OPTION_OF_LIMIT = {
    "body_bytes": "--max-body",
    "seconds": "--timeout",
    "waiting": "--max-waiting",
    "held_bytes": "--max-held",
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FGCLIP2_API_KEYS", raising=False)
    return tmp_path


def test_the_page_runs_beside_a_service(folder):
    """A reader starts the service in another terminal; here it is a thread, on a port of its own."""
    before, after = read(PAGE).split("<!-- not run -->\n", 1)
    (folder / "before.md").write_text(before, encoding="utf-8")
    run_document(folder / "before.md")
    assert len(ImageIndex.load("drawings")) == 273
    with listening(make_app(ServiceSettings(folder=Path("drawings")))) as port:
        (folder / "after.md").write_text(
            after.partition("```\n")[2].replace("127.0.0.1:8000", f"127.0.0.1:{port}"), encoding="utf-8"
        )
        (command,) = (line for block in blocks(folder / "after.md", "bash") for line in block.splitlines())
        printed = subprocess.run(shlex.split(command), capture_output=True, text=True, check=True).stdout
        (shown,) = blocks(folder / "after.md", "text")
        assert_shown(shown.splitlines(), printed)
        (folder / "after.md").write_text(
            read(folder / "after.md").replace(f"```text\n{shown}```\n", ""), encoding="utf-8"
        )
        run_document(folder / "after.md")


def test_the_table_has_every_limit_and_its_default():
    (table,) = tables(PAGE)
    shown = {row[0].strip("`"): row[1] for row in table[1:]}
    defaults = vars(Limits())
    for name, value in defaults.items():
        if name == "cached_texts":
            continue
        text = shown.pop(OPTION_OF_LIMIT.get(name, f"--max-{name.replace('_', '-')}"))
        number = float(re.sub(r"[^\d.]", "", text)) * (2**20 if "MiB" in text else 1)
        assert number == value, name
    assert shown == {}


@pytest.mark.slow
def test_the_page_on_tools_runs(folder, monkeypatch):
    scripts = Path(sys.executable).parent  # where the page's command is, also if no environment is active
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{os.environ['PATH']}")
    run_document(ROOT / "docs" / "mcp.md")


def test_files_to_deploy_name_options_of_the_command():
    options = {option for parameter in get_command(app).commands["serve"].load().params for option in parameter.opts}
    for name in ("Containerfile", "fgclip2.service"):
        text = read(ROOT / "examples" / "serving" / name)
        (command,) = re.findall(r"^(?:ENTRYPOINT|ExecStart=).*serve(.*)$", text, re.MULTILINE)
        named = set(re.findall(r"--[a-z-]+", command))
        assert named
        assert named <= options
    assert "USER 10001" in read(ROOT / "examples" / "serving" / "Containerfile")
