"""docs/app.md: its commands have the options that it names, its limits are those of the app, its pictures are small."""

import re

import pytest
from typer.main import get_command

from fgclip2.app.answers import MAX_PIXELS
from fgclip2.app.server import MAX_UPLOAD
from fgclip2.cli.main import app

from .documents import ROOT, read

PAGES = [ROOT / "docs" / name for name in ("app.md", "app_zh.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_the_page_says_is_so(page):
    text = read(page)
    options = {option for parameter in get_command(app).commands["app"].load().params for option in parameter.opts}
    assert set(re.findall(r"--[a-z]+(?:-[a-z]+)*", text)) <= options
    assert f"{MAX_PIXELS:,}" in text
    assert MAX_UPLOAD == "20mb"
    assert "20 MB" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_pictures_are_there_and_small(page):
    pictures = re.findall(r"images/app_[\w.]+", read(page))
    assert len(pictures) == 2
    for picture in pictures:
        assert (page.parent / picture).stat().st_size < 200_000
