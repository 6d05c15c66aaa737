"""docs/app.md and the files to run the app elsewhere: options are those of the command, limits those of the app."""

import re
import runpy

import pytest
import yaml
from typer.main import get_command

from fgclip2.app.answers import MAX_PIXELS
from fgclip2.app.server import MAX_UPLOAD
from fgclip2.cli.main import app

from .documents import ROOT, read

EXAMPLES = ROOT / "examples"
PAGES = [ROOT / "docs" / name for name in ("app.md", "app_zh.md")]


@pytest.fixture(scope="module")
def options() -> set[str]:
    """The options of `fgclip2 app`."""
    return {option for parameter in get_command(app).commands["app"].load().params for option in parameter.opts}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_the_page_says_is_so(page, options):
    text = read(page)
    assert set(re.findall(r"--[a-z]+(?:-[a-z]+)*", text)) <= options
    assert f"{MAX_PIXELS:,}" in text
    assert MAX_UPLOAD == "20mb"
    assert "20 MB" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_pictures_are_there_and_small(page):
    pictures = re.findall(r"images/app_[\w.]+", read(page))
    assert len(pictures) == 4
    for picture in pictures:
        assert (page.parent / picture).stat().st_size < 200_000


def test_the_container_runs_the_app_without_rights(options):
    text = read(EXAMPLES / "app" / "Containerfile")
    (command,) = re.findall(r"^ENTRYPOINT (.*)", text, re.MULTILINE)
    assert command.startswith('["fgclip2", "app", "--host", "0.0.0.0"')
    assert set(re.findall(r"--[a-z-]+", command)) <= options
    assert "USER 10001" in text
    assert '"fgclip2[app]"' in text


def test_the_files_of_the_space_fit_together(options):
    space = EXAMPLES / "space"
    settings = yaml.safe_load(read(space / "README.md").split("---\n")[1])
    program = runpy.run_path(str(space / settings["app_file"]))
    assert set(re.findall(r"--[a-z-]+", " ".join(program["arguments"]("a/model")))) <= options
    assert program["arguments"]("") == ["app", "--host", "0.0.0.0", "--port", "7860"]  # where Spaces look
    assert settings["sdk"] == "gradio"
    assert len(settings["short_description"]) <= 60  # more is refused
    assert read(space / "requirements.txt").split()[-2:] == ["torch", "fgclip2[app]"]
