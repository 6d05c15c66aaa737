"""Results on one HTML page with their pictures and the windows where phrases were found; it fetches nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image

from ..files import printable
from ..pages import WINDOW_STYLE, Window, document, in_both, key_line, picture
from .frames import clock

LONGEST_SIDE = 320  # of a thumbnail, in pixels
QUALITY = 75
MOST_PICTURES = 500  # about 10 MB; what comes behind is listed without
# Of cards, on any page that has them.
CARDS_STYLE = (
    WINDOW_STYLE
    + """
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(9.5rem, 45%), 1fr)); gap: .8rem; }
.card { margin: 0; font-size: .8rem; overflow-wrap: anywhere; }
"""
)
STYLE = (
    CARDS_STYLE
    + """
body { max-width: 75rem; margin: 0 auto; padding: 1rem; color: #222; background: #fff; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin: 1.8rem 0 .6rem; overflow-wrap: anywhere; }
.score { color: #666; } .missing { padding: 1rem .5rem; background: #eee; color: #666; }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181818; } .missing { background: #333; } }
"""
)


@dataclass(frozen=True)
class Card:
    """A result: how to get its picture, upright and RGB, the windows in it, and the lines below, as plain text."""

    image: Callable[[], Image.Image]
    lines: Sequence[str]
    windows: Sequence[Window] = ()


@dataclass(frozen=True)
class Section:
    """A query, or another heading, and its results."""

    heading: str
    cards: Sequence[Card]


def render_results(title: tuple[str, str], sections: Iterable[Section]) -> str:
    """Return a page of results, readable on a phone, in the language of the browser that shows it.

    Pictures are WebP of at most `LONGEST_SIDE` pixels inside the page; only the first `MOST_PICTURES` have one. What
    can't be read has the reason in its place. Every text is escaped.

    Args:
        title: In English and in Chinese.
        sections: One for each query.
    """
    pictures = 0
    parts = [f"<h1>{in_both(*title)}</h1>"]
    for section in sections:
        parts.append(f"<h2>{escape(printable(section.heading))}</h2>")
        if not section.cards:
            parts.append(f"<p>{in_both('Nothing was found.', '没有找到。')}</p>")
        parts.append('<div class="cards">')
        for card in section.cards:
            parts.append(render_card(card, LONGEST_SIDE if pictures < MOST_PICTURES else None))
            pictures += 1
        parts.append("</div>")
    if pictures > MOST_PICTURES:
        note = (f"Only the first {MOST_PICTURES} have pictures here.", f"这里只有前 {MOST_PICTURES} 个带图片。")
        parts.append(f"<p>{in_both(*note)}</p>")
    return document(" / ".join(title), STYLE, "\n".join(parts), follows_browser=True)


def render_card(card: Card, longest_side: int | None = LONGEST_SIDE) -> str:
    """Return a result as HTML, for a page with `CARDS_STYLE`; every text is escaped.

    Args:
        card: The result.
        longest_side: Of its picture, in pixels at most; `None`: it is shown without.
    """
    shown = "" if longest_side is None else _picture(card, longest_side)
    return f'<figure class="card">{shown}{_caption(card)}</figure>'


def _picture(card: Card, longest_side: int) -> str:
    try:
        image = card.image()
    except (OSError, ValueError) as error:
        reason = escape(printable(str(error)))
        return f'<div class="missing">{in_both("It can’t be read:", "无法读取：")} {reason}</div>'
    whole = image.size
    image.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    return picture(image, card.lines[0] if card.lines else "", card.windows, whole, QUALITY)


def _caption(card: Card) -> str:
    lines = [f"<div>{escape(printable(line))}</div>" for line in card.lines]
    lines += [key_line(number, window) for number, window in enumerate(card.windows, 1)]
    return f"<figcaption>{''.join(lines)}</figcaption>"


def sections_of_results(
    results: Sequence[dict[str, Any]], load: Callable[[dict[str, Any]], Image.Image]
) -> list[Section]:
    """Return the sections of results as `fgclip2 search --json` prints them.

    Args:
        results: Each with a `query` and `hits`, of which each has a `path` and a `score`, and may have `reranked`, a
            `box`, and `phrases` with `text`, `box` and `cosine`; and maybe `videos` with `start` and `end`.
        load: Returns the picture of a hit, upright and RGB; may raise a `ValueError` or an `OSError`.
    """

    def card(place: int, hit: dict[str, Any]) -> Card:
        scores = [f"{hit[name]:.4f}" for name in ("reranked", "score") if name in hit]
        windows = [
            Window(phrase["box"], f"{phrase['text']} {phrase['cosine']:.3f}") for phrase in hit.get("phrases", ())
        ]
        if hit.get("box"):
            windows.append(Window(hit["box"], "[" + ", ".join(f"{edge:.0f}" for edge in hit["box"]) + "]"))
        lines = [f"{place}. {hit['path']}", " · ".join(scores)]
        if "start" in hit:
            lines.append(f"{clock(hit['start'])} - {clock(hit['end'])}")
        return Card(lambda: load(hit), lines, windows)

    return [
        Section(
            result["query"],
            [card(place, hit) for place, hit in enumerate([*result["hits"], *result.get("videos", [])], 1)],
        )
        for result in results
    ]
