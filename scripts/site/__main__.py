"""Lay out the pages of the documentation site in .cache/site_pages, from where `make site` builds it."""

from pathlib import Path

from .pages import lay_out

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    lay_out(ROOT, ROOT / ".cache" / "site_pages")
