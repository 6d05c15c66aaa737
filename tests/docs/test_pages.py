"""All pages: a page and its Chinese twin have the same parts, and links lead somewhere."""

import pytest

from .documents import LINK, ROOT, assert_same_parts, read

PAGES = [
    *ROOT.glob("*.md"),
    *(page for room in ("docs", "recipes", "packages") for page in (ROOT / room).rglob("*.md")),
]
TWINS = [page for page in PAGES if page.stem.endswith("_zh")]


@pytest.mark.parametrize("chinese", TWINS, ids=lambda page: page.stem)
def test_both_languages_have_the_same_parts(chinese):
    assert_same_parts(chinese.with_name(chinese.name.replace("_zh.md", ".md")), chinese)


def test_pages_that_a_registry_shows_have_no_links_to_files():
    for page in (ROOT / "packages").rglob("*.md"):
        assert not [target for target in LINK.findall(read(page)) if not target.startswith("http")], page


def test_links_lead_somewhere():
    for page in PAGES:
        for target in LINK.findall(read(page)):
            path = target.partition("#")[0]
            assert target.startswith("http") or (page.parent / path).exists(), f"{page.name}: {target}"
