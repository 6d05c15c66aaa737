"""What the pages of a built site ask for: links, and files that a browser loads to show them."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

LOADED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "object": "data",
}
IN_STYLES = re.compile(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)")


@dataclass
class Page(HTMLParser):
    """The links, loaded files and anchors of one page of HTML."""

    html: str
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)
        for styles in re.findall(r"<style[^>]*>(.*?)</style>", self.html, re.DOTALL):
            self.loaded += files_of_styles(styles)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        its = {name: value or "" for name, value in attributes}
        self.anchors |= {its[name] for name in ("id", "name") if name in its}
        if tag == "a" and "href" in its:
            self.links.append(its["href"])
        if tag == "link" and its.get("rel") not in ("alternate", "canonical", "next", "prev"):
            self.loaded.append(its.get("href", ""))
        if its.get(LOADED.get(tag, "")):
            self.loaded.append(its[LOADED[tag]])


def files_of_styles(styles: str) -> list[str]:
    """Return what a style sheet asks for; pictures that are part of it excepted."""
    files = [one or other for one, other in IN_STYLES.findall(styles)]
    return [file for file in files if not file.startswith(("data:", "#"))]


def broken(site: Path) -> list[str]:
    """Return what pages and style sheets of a site load from elsewhere, and links that lead nowhere, with the page."""
    pages = {path.relative_to(site).as_posix(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    found = []

    def look(address: str, page: str, loaded: bool) -> None:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            if loaded and parts.scheme != "data":
                found.append(f"{page} loads {address}")
            return
        # The page for addresses that lead nowhere has absolute ones, as it is shown at any address.
        path = unquote(urlsplit(urljoin("http://site/" + page, address)).path).lstrip("/")
        if path.endswith("/") or not path:
            path += "index.html"
        if not (site / path).is_file():
            found.append(f"{page} leads to {address}, which is not there")
        elif parts.fragment and path in pages and unquote(parts.fragment) not in pages[path].anchors:
            found.append(f"{page} leads to {address}, which has no such place")

    for name, page in pages.items():
        for address in page.loaded:
            look(address, name, loaded=True)
        for address in page.links:
            look(address, name, loaded=False)
    for styles in site.rglob("*.css"):
        for address in files_of_styles(styles.read_text(encoding="utf-8")):
            look(address, styles.relative_to(site).as_posix(), loaded=True)
    return found
