"""Self-contained HTML pages: their frame, and pictures as part of them. Nothing is fetched, whatever a text says."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from .files import printable
from .visualization import PHRASE_COLORS

FONTS = 'system-ui, "Noto Sans", "Noto Sans SC", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif'
# Of the two forms of a text, the page shows that of the browser's language; without scripts, the English one.
LANGUAGE_STYLE = ':root[lang|="zh"] .en, :root:not([lang|="zh"]) .zh { display: none; }'
LANGUAGE_SCRIPT = 'if (/^zh\\b/i.test(navigator.language)) document.documentElement.lang = "zh";'

WINDOW_STYLE = """
.picture { position: relative; } .picture img { display: block; width: 100%; border-radius: 4px; }
.window { position: absolute; box-sizing: border-box; border: 2px solid; box-shadow: 0 0 0 1px #fff; }
.number { position: absolute; top: 0; left: 0; padding: 0 .25rem; font-size: .7rem; line-height: 1.3; color: #fff; }
.key { display: inline-block; width: .7rem; height: .7rem; margin-right: .3rem; }
"""


@dataclass(frozen=True)
class Window:
    """A box (x1, y1, x2, y2) in pixels of an upright image, and what stands for it below the image."""

    box: Sequence[float]
    label: str


def in_both(english: str, chinese: str) -> str:
    """Return a text in both languages as HTML, of which a page with `follows_browser` shows one; both are escaped."""
    return f'<span class="en">{escape(english)}</span><span class="zh" lang="zh">{escape(chinese)}</span>'


def data_uri(image: Image.Image, quality: int = 90) -> str:
    """Return the image as a WebP inside an address."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture(
    image: Image.Image,
    alternative: str,
    windows: Sequence[Window] = (),
    whole: tuple[int, int] | None = None,
    quality: int = 90,
) -> str:
    """Return a picture with numbered frames over its windows, in whatever size the page shows it, as HTML.

    Args:
        image: What is shown.
        alternative: Read in place of the picture; escaped.
        windows: Framed in the colours of [`key_line`]; what lies outside the picture is cut off.
        whole: Width and height of the image that the windows are of, where `image` is smaller; `None`: its own.
        quality: Of the WebP, up to 100.
    """
    frames = "".join(_frame(number, window, *(whole or image.size)) for number, window in enumerate(windows, 1))
    source = f'<img src="{data_uri(image, quality)}" alt="{escape(printable(alternative), quote=True)}">'
    return f'<div class="picture">{source}{frames}</div>'


def key_line(number: int, window: Window) -> str:
    """Return the line below a picture that says what its window `number`, counted from 1, stands for; escaped."""
    key = f'<span class="key" style="background:{_color(number)}"></span>'
    return f'<div class="score">{key}{number} {escape(printable(window.label))}</div>'


def _frame(number: int, window: Window, width: int, height: int) -> str:
    x1, x2 = (min(max(edge, 0), width) / width for edge in (window.box[0], window.box[2]))
    y1, y2 = (min(max(edge, 0), height) / height for edge in (window.box[1], window.box[3]))
    place = f"left:{x1:.2%};top:{y1:.2%};width:{x2 - x1:.2%};height:{y2 - y1:.2%};border-color:{_color(number)}"
    tag = f'<span class="number" style="background:{_color(number)}">{number}</span>'
    return f'<div class="window" style="{place}">{tag}</div>'


def _color(number: int) -> str:
    return PHRASE_COLORS[(number - 1) % len(PHRASE_COLORS)]


def document(title: str, style: str, body: str, follows_browser: bool = False) -> str:
    """Return a whole page, whose policy lets the browser load nothing but what is in it.

    Args:
        title: Plain text.
        style: CSS.
        body: HTML, in which whoever makes it has escaped every text.
        follows_browser: Show texts of [`in_both`] in the browser's language, by the only script that the page may run.
    """
    digest = base64.b64encode(hashlib.sha256(LANGUAGE_SCRIPT.encode()).digest()).decode()
    scripts = f" script-src 'sha256-{digest}';" if follows_browser else ""
    sources = f"default-src 'none'; img-src data:; style-src 'unsafe-inline';{scripts}"
    policy = f"{sources} base-uri 'none'; form-action 'none'"
    lines = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>body {{ font-family: {FONTS}; }} {LANGUAGE_STYLE if follows_browser else ''}{style}</style>",
        *([f"<script>{LANGUAGE_SCRIPT}</script>"] if follows_browser else []),
        "</head><body>",
        body,
        "</body></html>",
    ]
    return "\n".join(lines)
