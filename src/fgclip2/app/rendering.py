"""Answers as HTML, in the words of one language; every text is escaped, and pictures are part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from ..embedding.inputs import load_input
from ..files import printable
from ..pages import LANGUAGE_STYLE, Window
from ..search import ImageIndex
from ..search.html import CARDS_STYLE, Card, render_card
from ..visualization import colorize
from .answers import MAX_PIXELS, Score

Words = Mapping[str, str]

LARGE = 640  # pixels of the longest side of pictures that are looked at alone or in pairs
PROBABLE = 0.5
STEPS_OF_SCALE = 9
STYLE = (
    LANGUAGE_STYLE
    + CARDS_STYLE
    + """
.cards.large { grid-template-columns: repeat(auto-fit, minmax(min(14rem, 100%), 1fr)); }
.cards.large .card { max-width: 30rem; font-size: .9rem; }
.score, .note { color: inherit; opacity: .8; }
.wrong { padding: .6rem .8rem; border-inline-start: 4px solid #cf222e; background: var(--background-fill-secondary); }
.missing { padding: 1rem .5rem; background: var(--background-fill-secondary); }
.cards, table.scores, .scale { margin-top: .8rem; }
table.scores { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
table.scores th { text-align: start; font-weight: 600; font-size: .8rem; }
table.scores th, table.scores td { padding: .3rem .5rem .3rem 0; border: 0 !important; }
table.scores, table.scores tr { border: 0 !important; }
table.scores tr { border-bottom: 1px solid var(--border-color-primary) !important; }
table.scores td:first-child { overflow-wrap: anywhere; }
table.scores td.bar { width: 40%; min-width: 6rem; }
.bar div { height: .35rem; border-radius: 3px; background: var(--color-accent); }
.scale { display: flex; align-items: center; gap: .5rem; font-size: .8rem; }
.scale div { flex: 1; max-width: 14rem; height: .6rem; border-radius: 3px; }
"""
)


def render_cards(cards: Sequence[Card], large: bool = False) -> str:
    """Return cards side by side, or below each other where there is no room."""
    side = {"longest_side": LARGE} if large else {}
    return f'<div class="cards{" large" * large}">{"".join(render_card(card, **side) for card in cards)}</div>'


def picture_card(picture: Image.Image, *lines: str, windows: Sequence[Window] = ()) -> Card:
    """Return a card of a picture that is in memory."""
    return Card(picture.copy, lines, windows)


def render_note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def render_error(text: str) -> str:
    return f'<p class="wrong" role="alert">{escape(printable(text))}</p>'


def render_scale(low: float, high: float, words: Words, meaning: str) -> str:
    """Return the colours of heat maps from `low` to `high`, and what they mean."""
    colors = ", ".join(f"rgb{tuple(color)}" for color in colorize(np.linspace(low, high, STEPS_OF_SCALE)).tolist())
    gradient = f'<div style="background:linear-gradient(90deg, {colors})"></div>'
    return f'<div class="scale">{low:.2f} {gradient} {high:.2f}</div>{render_note(words[meaning])}'


def render_scores(scores: Sequence[Score], words: Words, name: str = "score", of: str = "text") -> str:
    """Return a table of scores in their order, with probabilities where all have one.

    Args:
        scores: Of the texts.
        words: Of the language.
        name: The name of the model's own score among the words, `"score"` or `"share"`.
        of: The name of what the scores are of, `"text"`, `"box"` or `"picture"`.
    """
    probable = [score.probability for score in scores if score.probability is not None]
    if len(probable) == len(scores):
        rows = [(score.text, score.probability, score.cosine) for score in scores]
        note = words["probability_note"] if max(probable) >= PROBABLE else words["none_probable"]
        return _table([words[of], words["probability"], words["cosine"]], rows) + render_note(note)
    rows = [(score.text, score.score, score.cosine) for score in scores]
    return _table([words[of], words[name], words["cosine"]], rows) + render_note(words[f"{name}_note"])


def _table(headings: Sequence[str], rows: Sequence[tuple[str, float | None, float]]) -> str:
    """Return a table of texts, of shares of one with a bar, and of cosines."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(
        f'<tr><td>{escape(printable(text))}</td><td class="bar">{share or 0:.1%}'
        f'<div style="width:{share or 0:.1%}"></div></td><td>{cosine:.3f}</td></tr>'
        for text, share, cosine in rows
    )
    return f'<table class="scores"><tr>{head}</tr>{body}</table>'


def render_boxes(
    picture: Image.Image, boxes: Sequence[Sequence[float]], found: Sequence[Sequence[Score]], words: Words
) -> str:
    """Return a picture with its boxes, and the phrase that fits each of them best, or that none is probable."""
    windows, rows = [], []
    for number, (box, scores) in enumerate(zip(boxes, found, strict=True), 1):
        best = scores[0]
        is_doubtful = best.probability is not None and best.probability < PROBABLE
        windows.append(Window(box, words["none_fits"].format(text=best.text) if is_doubtful else best.text))
        rows.append(best._replace(text=f"{number} {best.text}"))
    name = "share" if len(found[0]) > 1 else "score"
    card = render_cards([picture_card(picture, windows=windows)], large=True)
    return card + render_scores(rows, words, name, "box")


def render_hits(index: ImageIndex, hits: Sequence[Any], words: Words) -> str:
    """Return the hits of a search with the windows where the phrases of the query were found."""
    if not hits:
        return render_note(words["no_hits"])

    def load(hit: Any) -> Callable[[], Image.Image]:
        return lambda: load_input(0, index.image(hit.id), MAX_PIXELS)

    cards = []
    for place, hit in enumerate(hits, 1):
        values = [f"{words['cosine']} {hit.score:.3f}"]
        if hit.probability is not None:
            values.append(f"{words['probability']} {hit.probability:.0%}")
        windows = [Window(phrase.box, f"{phrase.text} {phrase.cosine:.3f}") for phrase in getattr(hit, "phrases", ())]
        cards.append(Card(load(hit), [f"{place}. {hit.id}", " · ".join(values)], windows))
    return render_cards(cards)
