"""Names of classes and templates for prompts, in English and Chinese; data/*.json say where they are from."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ..checks import check_choice
from ..files import read_json
from ..languages import LANGUAGES

_FILES = {"imagenet": "imagenet.json", "coco": "coco.json"}
_TEMPLATES = ("imagenet",)


def class_names(name: str, language: str) -> tuple[str, ...]:
    """Return the names of all classes of a data set, in its order; two classes may share a name.

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
    check_choice("name", name, _FILES)
    check_choice("language", language, LANGUAGES)
    return tuple(_read(_FILES[name])["names"][language])


def imagenet_folders() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet-1k in the order of `class_names("imagenet", ...)`, n01440764 first."""
    return tuple(_read(_FILES["imagenet"])["folders"])


def templates(name: str, language: str) -> tuple[str, ...]:
    """Return templates with `{}` where the name of the class goes.

    Args:
        name: `"imagenet"`: the 80 that CLIP was measured with, or the 80 Chinese ones of Noah-Wukong and Chinese-CLIP.
        language: `"en"` or `"zh"`.

    Raises:
        ValueError: `name` or `language` is not one of these.
    """
    check_choice("name", name, _TEMPLATES)
    check_choice("language", language, LANGUAGES)
    return tuple(_read(_FILES[name])["templates"][language])


@cache
def _read(file: str) -> dict[str, Any]:
    return read_json(Path(__file__).parent / "data" / file)
