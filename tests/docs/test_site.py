"""The site: its navigation has all in both languages, its reference all public names, and each use its page."""

import re

import yaml

import fgclip2

from .documents import ROOT, read, tables


class Settings(yaml.SafeLoader):
    """Reads settings that name Python objects, without them."""


Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def navigation() -> list[str]:
    """Return the pages of the navigation, as `mkdocs.yml` has them."""
    waiting = [yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Settings)["nav"]]
    pages = []
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            pages.append(part)
        else:
            waiting += part.values() if isinstance(part, dict) else part
    return pages


def test_pages_of_the_navigation_are_there_in_both_languages():
    pages = [page for page in navigation() if page != "index.md"]  # the README
    assert len(pages) > 25
    for page in pages:
        folder = ROOT / "docs" if (ROOT / "docs" / page).exists() else ROOT
        for name in (page, page.replace(".md", "_zh.md")):
            assert (folder / name).is_file(), name


def test_the_reference_has_all_public_names():
    text = "".join(map(read, (ROOT / "docs" / "api").glob("*.md")))
    shown = set(re.findall(r"^::: (\S+)", text, re.MULTILINE))
    assert {f"fgclip2.{name}" for name in fgclip2.__all__} - {"fgclip2.__version__"} <= shown


def test_both_languages_have_the_same_reference():
    for page in (ROOT / "docs" / "api").glob("*_zh.md"):
        english = page.with_name(page.name.replace("_zh", ""))
        assert re.findall(r"^::: .*", read(page), re.MULTILINE) == re.findall(r"^::: .*", read(english), re.MULTILINE)


def test_each_use_of_the_readme_has_a_page():
    pages = navigation()
    for readme in ("README.md", "README_zh.md"):
        for task, line in tables(ROOT / readme)[0][1:]:
            page = re.search(r"\]\(docs/([^)#]+)", task)
            assert page, f"{readme}: {line}"
            assert page[1].replace("_zh.md", ".md") in pages
