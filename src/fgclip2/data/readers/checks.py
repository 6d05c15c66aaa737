"""Checks of the fields that all formats share; each raises `InvalidRecordError` with the field's value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from ...checks import check_choice
from ...files import leads_outside
from ...languages import LANGUAGES, Language, detect_language
from ..records import InvalidRecordError

MAX_SIDE = 2**31 - 1  # pixels
BOX_TOLERANCE = 1e-3  # how far outside 0..1 rounding may put a corner; it is clipped

_A_TEXT = "a text that is not blank"
_A_BOX = "x1, y1, x2, y2 (and a score) as fractions from 0 to 1 of width and height, with x1 < x2 and y1 < y2"
_A_PATH = "a path relative to the image folder, which it does not leave"
_SHOWN_CHARACTERS = 100


def shown(value: Any) -> str:
    """Return a value for an error message: short, and on one line."""
    if value is None:
        return "missing"
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}… ({len(text)} characters)"


def check_text(value: Any, field: str, source: str) -> str:
    """Return a string; raise unless it is one, not blank, that can be written as UTF-8."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidRecordError(source, field, shown(value), _A_TEXT)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON's \u can spell
            raise InvalidRecordError(source, field, shown(value), "valid Unicode") from error
    return value


def optional_text(value: Any, field: str, source: str) -> str | None:
    """Return None, or a string that `check_text` takes."""
    return None if value is None else check_text(value, field, source)


def optional_label(value: Any, field: str, source: str) -> bool | None:
    """Return None, or whether a label, 0 or 1 as a number or as text, says that image and caption match."""
    if value is None:
        return None
    if isinstance(value, float) or value not in (0, 1, "0", "1"):
        raise InvalidRecordError(source, field, shown(value), "1 where image and caption match, else 0")
    return bool(int(value))


def check_captions(short: str | None, long: str | None, fields: str, source: str) -> None:
    """Raise unless at least one of the two captions is there."""
    if short is None and long is None:
        raise InvalidRecordError(source, fields, "missing", "a text, in at least one of them")


def check_box(value: Any, field: str, source: str) -> tuple[float, float, float, float]:
    """Return the corners of a box; a score after them is checked and left out."""
    is_box = isinstance(value, (list, tuple)) and len(value) in (4, 5)
    if not is_box or not all(
        isinstance(number, (int, float)) and not isinstance(number, bool) and -math.inf < number < math.inf
        for number in value
    ):
        raise InvalidRecordError(source, field, shown(value), _A_BOX)
    corners = value[:4]
    inside = all(-BOX_TOLERANCE <= corner <= 1 + BOX_TOLERANCE for corner in corners)
    x1, y1, x2, y2 = (float(min(max(corner, 0), 1)) for corner in corners)
    if not (inside and x1 < x2 and y1 < y2):
        raise InvalidRecordError(source, field, shown(value), _A_BOX)
    return x1, y1, x2, y2


def check_path(value: Any, field: str, source: str) -> str:
    """Return a path; raise unless it is relative and without `..`, by the rules of any system."""
    text = check_text(value, field, source)
    if "://" in text:
        raise InvalidRecordError(
            source, field, shown(value), f"{_A_PATH} (addresses are not fetched: download the image)"
        )
    windows = PureWindowsPath(text)  # takes both kinds of slash
    if "\0" in text or windows.drive or windows.root or PurePosixPath(text).is_absolute() or ".." in windows.parts:
        raise InvalidRecordError(source, field, shown(value), _A_PATH)
    return text


def check_inside(path: Path, folder: Path, follow_links: bool, field: str, source: str) -> str:
    """Return the path of an image; raise if a link leads out of its folder, unless links are to be followed."""
    if not follow_links and leads_outside(path, folder):
        found = f"{str(path)!r}, a link that leads out of its folder"
        raise InvalidRecordError(source, field, found, f"a file within {folder} (or set follow_links, if you trust it)")
    return str(path)


def stated_image_size(item: Any) -> tuple[int, int] | None:
    """Return `height` and `width` of an item, `None` unless both are numbers of pixels, from 1 to 2^31 - 1.

    In a table they are digits. They only help to choose batches, so that a record is as good without them.
    """
    if not isinstance(item, Mapping):
        return None
    height, width = (_side(item.get(name)) for name in ("height", "width"))
    return (height, width) if height and width else None


def _side(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(MAX_SIDE)):
        value = int(value)
    return value if type(value) is int and 0 < value <= MAX_SIDE else None


def check_language(value: Any, field: str, source: str) -> Language:
    """Return a language; raise unless it is one of `LANGUAGES`."""
    if value not in LANGUAGES:
        raise InvalidRecordError(source, field, shown(value), " or ".join(LANGUAGES))
    return value


def check_language_option(language: Any) -> None:
    """Raise a `ValueError` unless `language`, an argument of a reader, is None or one of `LANGUAGES`."""
    check_choice("language", language, (*LANGUAGES, None))


def language_of_texts(*texts: Any) -> Language:
    """Return the language of what is a string among `texts`."""
    return detect_language(" ".join(text for text in texts if isinstance(text, str)))


def existing_folder(folder: str | Path) -> Path:
    """Return the folder that an argument names; raise a `ValueError` if there is none."""
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is no folder: give an existing one")
    return Path(folder)
