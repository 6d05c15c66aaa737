"""Names of classes and templates for prompts, in English and Chinese; data/*.json say where they are from."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh")

_FILES = {"imagenet": "imagenet.json", "coco": "coco.json"}
_TEMPLATES = ("imagenet",)


def class_names(name: str, language: str) -> tuple[str, ...]:
    """Names of all classes of a data set, in its order; two classes may share a name.

    Args:
        name: `"imagenet"` (1000 names, in the order of the sorted folder names; for ImageNet-1k and v2) or `"coco"` (80
            names, in the order of the category ids).
        language: `"en"` or `"zh"`.

    Raises:
        ValueError: `name` or `language` is not one of these.

    Example:
        ```python
        class_names("coco", "en")[:2]  # ("person", "bicycle")
        class_names("coco", "zh")[:2]  # ("人", "自行车")
        ```
    """
    _check("name", name, tuple(_FILES))
    _check("language", language, LANGUAGES)
    return tuple(_read(_FILES[name])["names"][language])


def imagenet_folders() -> tuple[str, ...]:
    """WordNet ids of ImageNet-1k's classes, n01440764 first: the order of `class_names("imagenet", ...)`."""
    return tuple(_read(_FILES["imagenet"])["folders"])


def templates(name: str, language: str) -> tuple[str, ...]:
    """Templates with `{}` where the name of the class goes.

    Args:
        name: `"imagenet"`: the 80 that CLIP was measured with, or the 80 Chinese ones of Noah-Wukong and Chinese-CLIP.
        language: `"en"` or `"zh"`.

    Raises:
        ValueError: `name` or `language` is not one of these.
    """
    _check("name", name, _TEMPLATES)
    _check("language", language, LANGUAGES)
    return tuple(_read(_FILES[name])["templates"][language])


def _check(argument: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{argument}={value!r}; allowed: {', '.join(allowed)}")


@cache
def _read(file: str) -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "data" / file).read_text(encoding="utf-8"))
