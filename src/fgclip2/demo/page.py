"""The demo's page: plain HTML with its pictures inside, English beside Chinese, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from PIL import Image

from ..pages import WINDOW_STYLE, Window, document, key_line, picture

HIGHEST = 26  # of a picture, in units of the letters' size
STYLE = (
    WINDOW_STYLE
    + """
body { max-width: 76rem; margin: 0 auto; padding: 1rem; color: #222; background: #fff; line-height: 1.4; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-top: 1px solid #ddd; padding-top: 1rem; }
h3 { font-size: .95rem; margin: .9rem 0 .4rem; overflow-wrap: anywhere; }
.columns { display: grid; grid-template-columns: 1fr 1fr; gap: 0 2rem; align-items: start; }
.columns p { margin: .3rem 0; }
.cards { display: grid; gap: .6rem; align-items: start; }
.cards { grid-template-columns: repeat(auto-fit, minmax(max(5rem, calc(100% / var(--cards) - .6rem)), 1fr)); }
.card { font-size: .8rem; overflow-wrap: anywhere; }
.card .picture img { box-sizing: border-box; border: 1px solid #eee; }
.card.right img { border: 3px solid #1a7f37; }
.card.wrong img { border: 3px dashed #cf222e; }
.score { color: #555; }
table { border-collapse: collapse; width: 100%; margin: .6rem 0; font-size: .85rem; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
td.right { color: #1a7f37; } td.wrong { color: #cf222e; }
.beside { display: grid; grid-template-columns: 2fr 3fr; gap: 1rem; margin: .6rem 0; align-items: start; }
footer { margin-top: 3rem; font-size: .75rem; color: #555; overflow-wrap: anywhere; }
@media (max-width: 45rem) { .columns { grid-template-columns: 1fr; } }
"""
)


@dataclass(frozen=True)
class Card:
    """A picture with windows in it, and lines of text below.

    Attributes:
        image: The picture.
        lines: The texts.
        is_right: Whether it answers its query; `None`: it is no answer.
        windows: Framed in the picture; what each stands for is below the lines.
    """

    image: Image.Image
    lines: Sequence[str]
    is_right: bool | None = None
    windows: Sequence[Window] = ()

    def html(self) -> str:
        shown = picture(self.image, self.lines[0] if self.lines else "", self.windows, quality=85)
        lines = "".join(f"<div>{escape(line)}</div>" for line in self.lines)
        lines += "".join(key_line(number, window) for number, window in enumerate(self.windows, 1) if window.label)
        width = HIGHEST * self.image.width / self.image.height
        return f'<div class="card{_verdict(self.is_right)}" style="max-width:{width:.1f}rem">{shown}{lines}</div>'


@dataclass(frozen=True)
class Cards:
    """A heading, such as a query, and the pictures that answer it, side by side."""

    heading: str
    cards: Sequence[Card]

    def html(self) -> str:
        cards = "".join(card.html() for card in self.cards)
        heading = f"<h3>{escape(self.heading)}</h3>" if self.heading else ""
        return f'<div>{heading}<div class="cards" style="--cards:{len(self.cards)}">{cards}</div></div>'


@dataclass(frozen=True)
class Cell:
    """A text in a table that is right, wrong or neither (`None`)."""

    text: str
    is_right: bool | None = None


@dataclass(frozen=True)
class Table:
    """A table: its columns' names, and its rows."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def html(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        rows = (
            "".join(f'<td class="{_verdict(cell.is_right).strip()}">{escape(cell.text)}</td>' for cell in row)
            for row in self.rows
        )
        return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


@dataclass(frozen=True)
class Explained:
    """A picture, and beside it a table of what its windows are."""

    card: Card
    table: Table

    def html(self) -> str:
        return f'<div class="beside">{self.card.html()}{self.table.html()}</div>'


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Plain text in both languages.
        english, chinese: What it shows.
        rows: Each has one block, over the whole width, or two side by side.
    """

    title: str
    english: str
    chinese: str
    rows: Sequence[Sequence[Cards | Explained | Table]]


def pairs_of(blocks: Sequence[Any]) -> list[Sequence[Any]]:
    """Return rows of two blocks each, for [`Section`]."""
    return [blocks[start : start + 2] for start in range(0, len(blocks), 2)]


def render(title: str, sections: Sequence[Section], footer: str) -> str:
    """Return the page as HTML; every text is escaped."""
    parts = [f"<h1>{escape(title)}</h1>"]
    for section in sections:
        parts.append(f"<section><h2>{escape(section.title)}</h2>")
        parts.append(f'<div class="columns"><p>{escape(section.english)}</p>')
        parts.append(f'<p lang="zh">{escape(section.chinese)}</p></div>')
        for row in section.rows:
            blocks = "".join(block.html() for block in row)
            parts.append(f'<div class="columns">{blocks}</div>' if len(row) > 1 else blocks)
        parts.append("</section>")
    parts.append(f"<footer>{escape(footer)}</footer>")
    return document(title, STYLE, "\n".join(parts))


def _verdict(is_right: bool | None) -> str:
    return "" if is_right is None else " right" if is_right else " wrong"
