"""Heat maps and the windows of phrases as pictures, without matplotlib."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Protocol

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Blue, cyan, green, yellow, red: ordered in hue, and in red against blue for those who don't tell red from green.
_COLORS = np.array([[40, 40, 140], [30, 160, 220], [90, 200, 120], [250, 210, 50], [220, 40, 30]], np.float64)

# Of phrases, in their order, again from the first after the last: Okabe and Ito's, which all eyes tell apart.
PHRASE_COLORS = ("#d55e00", "#0072b2", "#009e73", "#aa3c82", "#b37400", "#3d3d3d")
NARROWEST_PICTURE = 480  # pixels; narrower images are enlarged, so that the texts below them have room
# Fonts with Chinese characters by the names of their files on Linux, macOS and Windows, and which font of a collection.
_CHINESE_FONTS = {
    "NotoSansCJK-Regular.ttc": 2,
    "NotoSansSC-Regular.otf": 0,
    "NotoSansSC-Regular.ttf": 0,
    "SourceHanSansSC-Regular.otf": 0,
    "SourceHanSansCN-Regular.otf": 0,
    "PingFang.ttc": 0,
    "Hiragino Sans GB.ttc": 0,
    "STHeiti Light.ttc": 0,
    "msyh.ttc": 0,
    "simhei.ttf": 0,
    "wqy-microhei.ttc": 0,
    "wqy-zenhei.ttc": 0,
}
_NOT_A_CHARACTER = "\U0010fffe"  # for which every font draws what it draws in place of what it lacks


class FoundPhrase(Protocol):
    """A phrase, the box (x1, y1, x2, y2 in pixels) of the image that fits it best, and their cosine."""

    @property
    def text(self) -> str: ...
    @property
    def box(self) -> Sequence[float]: ...
    @property
    def cosine(self) -> float: ...


def colorize(values: np.ndarray, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Map values to colours, from blue (low) to red (high).

    Args:
        values: Shape (...).
        low, high: Values of the ends of the scale; `None`: the smallest and the largest of `values`.

    Returns:
        uint8 (..., 3); all low where `low` equals `high`.
    """
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    position = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    stops = np.linspace(0, 1, len(_COLORS))
    channels = [np.interp(position, stops, channel) for channel in _COLORS.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def overlay_heatmap(
    image: Image.Image, heatmap: np.ndarray, opacity: float = 0.55, low: float | None = None, high: float | None = None
) -> Image.Image:
    """Lay a heat map over its image.

    Args:
        image: Upright RGB image.
        heatmap: Shape (height, width) of any size, e.g. from `FGClip2Embedder.heatmap`.
        opacity: Of the colours, 0 to 1.
        low, high: As in [`colorize`]; pass the same for several texts to make their maps comparable.

    Returns:
        RGB image of the size of `image`.

    Raises:
        ValueError: `heatmap` is no (height, width) array, or `opacity` is out of range.
    """
    if heatmap.ndim != 2 or not heatmap.size:
        raise ValueError(f"heatmap has shape {heatmap.shape}; allowed: (height, width)")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity={opacity}; allowed: 0 to 1")
    colors = Image.fromarray(colorize(heatmap, low, high)).resize(image.size, Image.Resampling.BILINEAR)
    return Image.blend(image.convert("RGB"), colors, opacity)


def overlay_phrases(
    image: Image.Image, phrases: Sequence[FoundPhrase], legend: bool = True, font: str | os.PathLike | None = None
) -> Image.Image:
    """Draw where in an image each phrase of a query was found: a frame with its number, in a colour of its own.

    Args:
        image: Upright RGB image, as `fgclip2.modeling.inputs.load_image` gives it.
        phrases: Where they were found, `hit.phrases` of [`fgclip2.Embedder.rerank`].
        legend: Whether to add a white strip below the image with number, text and cosine of each phrase.
        font: Font file, or the name of an installed one, for the texts; `None`: Pillow's own where it has all
            characters, else an installed one with Chinese characters. Where there is none, a warning says so, and
            phrases that can't be drawn have their numbers only.

    Returns:
        RGB image, at least `NARROWEST_PICTURE` wide.

    Raises:
        ValueError: The font can't be read or lacks characters, or a box has no area.

    Example:
        >>> hits = embedder.rerank("a taxi and a dolphin", paths)
        >>> overlay_phrases(Image.open(paths[hits[0].index]), hits[0].phrases).save("taxi.png")
    """
    for index, phrase in enumerate(phrases):
        if not (phrase.box[0] < phrase.box[2] and phrase.box[1] < phrase.box[3]):
            raise ValueError(f"phrases[{index}].box must be x1 < x2 and y1 < y2 in pixels, got {tuple(phrase.box)}")
    enlargement = max(1.0, NARROWEST_PICTURE / image.width)
    width, height = round(image.width * enlargement), round(image.height * enlargement)
    size = max(16, width // 45)  # of letters
    rows = _legend_rows(phrases, width - 3 * size, size, font) if legend else []
    row_height = round(1.6 * size)
    picture = Image.new("RGB", (width, height + len(rows) * row_height + (size // 2 if rows else 0)), "white")
    picture.paste(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))

    draw, line = ImageDraw.Draw(picture), max(2, width // 240)
    tags: dict[tuple[int, int], int] = {}  # upper left corner -> number
    for number, phrase in enumerate(phrases, 1):
        x1, y1, x2, y2 = (round(edge * enlargement) for edge in phrase.box)
        corner, inset = (x1, y1), 0
        while corner in tags:  # of a phrase with the same window: beside its number, inside its frame
            corner, inset = (corner[0] + round(1.5 * size), y1), inset + 3 * line
        inset = max(0, min(inset, (x2 - x1) // 2 - 2 * line, (y2 - y1) // 2 - 2 * line))
        frame = (x1 + inset, y1 + inset, x2 - 1 - inset, y2 - 1 - inset)
        for color, thickness in (("white", 2 * line), (_color_of(number), line)):  # white: seen on any ground
            draw.rectangle(frame, outline=color, width=thickness)
        tags[corner] = number
    for row, (number, text, letters) in enumerate(rows):
        top = height + size // 2 + row * row_height
        if number not in [other for other, *_ in rows[:row]]:  # the first line of a phrase
            tags[size // 2, top] = number
        draw.text((round(2.5 * size), top + 0.65 * size), text, "#222222", letters, anchor="lm")
    digits = _open_font(None, 0, size)
    for (x, y), number in tags.items():  # after all frames, which would cross them
        draw.rectangle((x, y, x + round(1.4 * size), y + round(1.3 * size)), fill=_color_of(number))
        draw.text((x + 0.7 * size, y + 0.65 * size), str(number), "white", digits, anchor="mm")
    return picture


def _color_of(number: int) -> str:
    return PHRASE_COLORS[(number - 1) % len(PHRASE_COLORS)]


def _legend_rows(
    phrases: Sequence[FoundPhrase], width: int, size: int, font: str | os.PathLike | None
) -> list[tuple[int, str, ImageFont.FreeTypeFont]]:
    """Return the lines below a picture, each with the number of its phrase and its font; long phrases take several."""
    texts = [" ".join(phrase.text.split()) for phrase in phrases]
    letters = _font_with("".join(texts), size, font)
    rows = []
    for number, (phrase, text) in enumerate(zip(phrases, texts, strict=True), 1):
        rest = f"{'' if _missing(letters, text) else text}  {phrase.cosine:.3f}".strip()
        while rest:
            fitting = next(n for n in range(len(rest), 0, -1) if n == 1 or letters.getlength(rest[:n]) <= width)
            if fitting < len(rest) and " " in rest[:fitting]:
                fitting = rest.rindex(" ", 0, fitting)
            rows.append((number, rest[:fitting].strip(), letters))
            rest = rest[fitting:].strip()
    return rows


def _font_with(characters: str, size: int, font: str | os.PathLike | None) -> ImageFont.FreeTypeFont:
    """Return the font that is asked for, or the one that lacks the fewest of some characters."""
    if font is not None:
        try:
            chosen = _open_font(os.fspath(font), 0, size)
        except OSError as error:
            raise ValueError(f"font {os.fspath(font)!r} can't be read ({error}): give a .ttf, .otf or .ttc") from error
        if missing := _missing(chosen, characters):
            raise ValueError(f"font {os.fspath(font)!r} lacks {missing!r}: give one that has these characters")
        return chosen
    best = _open_font(None, 0, size)
    for name, index in _CHINESE_FONTS.items() if _missing(best, characters) else ():
        with suppress(OSError):  # is not installed
            best = min(best, _open_font(name, index, size), key=lambda one: len(_missing(one, characters)))
    if missing := _missing(best, characters):
        warnings.warn(
            f"no font was found that has {missing!r}, so phrases with these are numbers only: install one with Chinese "
            "characters (fonts-noto-cjk of Debian), or give its file as font=",
            stacklevel=4,
        )
    return best


@cache
def _open_font(name: str | None, index: int, size: int) -> ImageFont.FreeTypeFont:
    if name is None:
        return ImageFont.load_default(size)  # type: ignore[return-value]  # as Pillow's wheels have FreeType
    return ImageFont.truetype(name, size, index, layout_engine=ImageFont.Layout.BASIC)


def _missing(font: ImageFont.FreeTypeFont, text: str) -> str:
    """Return the characters of a text that a font lacks, each once."""
    box = bytes(font.getmask(_NOT_A_CHARACTER))
    seen = dict.fromkeys(character for character in text if not character.isspace())
    return "".join(character for character in seen if bytes(font.getmask(character)) == box)
