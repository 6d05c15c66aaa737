"""The navigation of the site: each page that it names is there in both languages."""

import yaml

from .documents import ROOT


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
