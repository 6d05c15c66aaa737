"""Self-contained HTML pages: their frame, and pictures as part of them. Nothing is fetched, whatever a text says."""

from __future__ import annotations

import base64
import hashlib
import io
from html import escape

from PIL import Image

FONTS = 'system-ui, "Noto Sans", "Noto Sans SC", "PingFang SC", "Microsoft YaHei", sans-serif'
# Of the two forms of a text, the page shows that of the browser's language; without scripts, the English one.
LANGUAGE_STYLE = ':root[lang="zh"] .en, :root:not([lang="zh"]) .zh { display: none; }'
LANGUAGE_SCRIPT = 'if (/^zh\\b/i.test(navigator.language)) document.documentElement.lang = "zh";'


def in_both(english: str, chinese: str) -> str:
    """Return a text in both languages as HTML, of which a page with `follows_browser` shows one; both are escaped."""
    return f'<span class="en">{escape(english)}</span><span class="zh" lang="zh">{escape(chinese)}</span>'


def data_uri(image: Image.Image, quality: int = 90) -> str:
    """Return the image as a WebP inside an address."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


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
