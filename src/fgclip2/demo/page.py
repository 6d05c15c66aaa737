"""The demo's page: plain HTML with its pictures inside, no script, nothing fetched."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

STYLE = """
body { font-family: system-ui, "Noto Sans", "Noto Sans SC", "PingFang SC", "Microsoft YaHei", sans-serif;
       max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; padding-bottom: .3rem; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; align-items: flex-start; margin: .4rem 0 1.2rem; }
.card { width: 7.5rem; font-size: .8rem; text-align: center; overflow-wrap: anywhere; }
.card.wide { width: 20rem; }
.card img { width: 100%; image-rendering: auto; border: 1px solid #eee; border-radius: 6px; }
.query { font-weight: 600; }
.score { color: #666; }
footer { margin-top: 3rem; font-size: .75rem; color: #666; }
"""


@dataclass(frozen=True)
class Card:
    """A picture with lines of text below it."""

    image: Image.Image
    lines: Sequence[str]
    wide: bool = False


@dataclass(frozen=True)
class Row:
    """A heading, e.g. a query, and the cards that answer it."""

    heading: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    text: str
    rows: Sequence[Row]


def data_uri(image: Image.Image) -> str:
    """Return the image as a PNG inside an address."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def render(title: str, sections: Sequence[Section], footer: str) -> str:
    """Return the page as HTML; every text is escaped."""
    parts = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8">', f"<title>{escape(title)}</title>"]
    parts += ['<meta name="viewport" content="width=device-width, initial-scale=1">']
    parts += [f"<style>{STYLE}</style></head><body>", f"<h1>{escape(title)}</h1>"]
    for section in sections:
        parts.append(f"<section><h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>")
        parts += [_row(row) for row in section.rows]
        parts.append("</section>")
    parts.append(f"<footer>{escape(footer)}</footer></body></html>")
    return "\n".join(parts)


def _row(row: Row) -> str:
    cards = "".join(_card(card) for card in row.cards)
    return f'<div class="query">{escape(row.heading)}</div><div class="row">{cards}</div>'


def _card(card: Card) -> str:
    lines = "".join(f"<div>{escape(line)}</div>" for line in card.lines)
    alternative = escape(card.lines[0] if card.lines else "", quote=True)
    kind = "card wide" if card.wide else "card"
    return f'<div class="{kind}"><img src="{data_uri(card.image)}" alt="{alternative}">{lines}</div>'
