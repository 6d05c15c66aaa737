"""The demo's page: plain HTML with its pictures inside, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from ..pages import data_uri, document

STYLE = """
body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; background: #fff; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; padding-bottom: .3rem; }
.row { display: flex; flex-wrap: wrap; gap: .8rem; align-items: flex-start; margin: .4rem 0 1.2rem; }
.card { width: 7.5rem; font-size: .8rem; text-align: center; overflow-wrap: anywhere; }
.card.wide { width: 20rem; }
.columns { display: grid; grid-template-columns: 1fr 1fr; column-gap: 2rem; }
.columns .card { width: 10rem; }
.key { display: inline-block; width: .7rem; height: .7rem; margin-right: .3rem; }
.card img { width: 100%; image-rendering: auto; border: 1px solid #eee; border-radius: 6px; }
.card.right img { border: 3px solid #1a7f37; }
.card.wrong img { border: 3px dashed #cf222e; }
.query { font-weight: 600; }
.score { color: #666; }
footer { margin-top: 3rem; font-size: .75rem; color: #666; }
"""


@dataclass(frozen=True)
class Card:
    """A picture with lines of text below it.

    Attributes:
        image: The picture.
        lines: The texts.
        wide: Whether it takes more room than others.
        is_right: Whether it answers its query; `None`: not known.
        key: Colours in the picture, and what they stand for.
    """

    image: Image.Image
    lines: Sequence[str]
    wide: bool = False
    is_right: bool | None = None
    key: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Row:
    """A heading, e.g. a query, and the cards that answer it."""

    heading: str
    cards: Sequence[Card]


@dataclass(frozen=True)
class Section:
    """A part of the page; `in_columns` puts its rows into two columns, one beside the other in turn."""

    title: str
    text: str
    rows: Sequence[Row]
    in_columns: bool = False


def render(title: str, sections: Sequence[Section], footer: str) -> str:
    """Return the page as HTML; every text is escaped."""
    parts = [f"<h1>{escape(title)}</h1>"]
    for section in sections:
        parts.append(f"<section><h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>")
        parts.append('<div class="columns">' if section.in_columns else "<div>")
        parts += [_row(row) for row in section.rows]
        parts.append("</div></section>")
    parts.append(f"<footer>{escape(footer)}</footer>")
    return document(title, STYLE, "\n".join(parts))


def _row(row: Row) -> str:
    cards = "".join(_card(card) for card in row.cards)
    return f'<div><div class="query">{escape(row.heading)}</div><div class="row">{cards}</div></div>'


def _card(card: Card) -> str:
    lines = "".join(f"<div>{escape(line)}</div>" for line in card.lines)
    lines += "".join(
        f'<div><span class="key" style="background:{escape(color, quote=True)}"></span>{escape(text)}</div>'
        for color, text in card.key
    )
    alternative = escape(card.lines[0] if card.lines else "", quote=True)
    kind = "card" + (" wide" if card.wide else "")
    kind += "" if card.is_right is None else " right" if card.is_right else " wrong"
    return f'<div class="{kind}"><img src="{data_uri(card.image)}" alt="{alternative}">{lines}</div>'
