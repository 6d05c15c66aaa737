"""CONTRIBUTING.md and its Chinese equal: the map is whole, and what the pages name exists."""

import re
from pathlib import Path

import pytest

import fgclip2

from ..test_package import FLOORS
from .documents import ROOT, read

SOURCE = Path(fgclip2.__file__).parent
PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "CONTRIBUTING_zh.md")]


@pytest.fixture(params=PAGES, ids=lambda page: page.stem)
def page(request):
    return request.param


def test_the_map_has_every_room_on_its_floor(page):
    (building,) = re.findall(r"^```\n((?:floor \d|\d 层) .*?)^```", read(page), re.MULTILINE | re.DOTALL)
    floors = re.split(r"^(?:floor \d|\d 层) ", building, flags=re.MULTILINE)[:0:-1]  # from the ground up
    assert len(floors) == len(FLOORS)
    rooms = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    for shown, expected in zip(floors, FLOORS, strict=True):
        names = set(re.findall(r"^ *(\w+)(?:/|\.py) ", shown, re.MULTILINE))
        assert names & rooms == expected & rooms


def test_every_folder_is_in_the_map(page):
    folders = {path.parent.name for path in SOURCE.rglob("__init__.py")} - {SOURCE.name}
    assert [name for name in folders if f"{name}/" not in read(page)] == []


def test_what_the_page_names_exists(page):
    """Files and functions of the package, tests, documents; `<name>` stands for any."""
    named = re.findall(r"`([\w./]+(?:/|\.py|\.md))`|^ +(\w+(?:/|\.py)) ", read(page), re.MULTILINE)
    for name in filter(None, (one or other for one, other in named)):
        assert any((root / name).exists() for root in (ROOT, SOURCE, ROOT / "tests")) or list(SOURCE.rglob(name)), name
