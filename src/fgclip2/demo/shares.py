"""How often the model is right on the bundled pictures, beside chance and the nearest picture by pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..drawings.controls import pixel_features
from ..languages import LANGUAGES, Language
from .page import Cell, Section, Table

_SIDE = 96  # pixels, to which pictures are brought before they are compared by pixels
_TITLE = "How often it is right / 有多少是对的"
_ENGLISH = (
    "The embedded checkpoint is small, and was trained on drawings, not on photographs. Counted on the {things} "
    "pictures and {scenes} scenes by the one artist whose drawings it was not trained on; so few say little of how "
    "often it is right elsewhere. By pixels: the answer of the most similar picture by another artist, compared pixel "
    "by pixel."
)
_CHINESE = (
    "内置检查点很小，用图画而不是照片训练。以下统计只用一位画师的 {things} 幅图片和 {scenes} 幅场景图，"
    "这位画师的作品没有参与训练；数量这么少，不足以说明它在别处有多准。"
    "“像素”一列：逐像素比较时，其他画师最相似的图片给出的答案。"
)


@dataclass(frozen=True)
class Share:
    """How many answers to one kind of question are right.

    Attributes:
        task: Its name in both languages.
        right: Language -> how many of `count`.
        count: Of the questions in each language.
        chance: The share that guessing gets.
        by_pixels: How many the nearest picture by pixels gets; `None`: pixels can't answer.
    """

    task: str
    right: dict[Language, int]
    count: int
    chance: float
    by_pixels: int | None = None

    def row(self) -> list[Cell]:
        pixels = "-" if self.by_pixels is None else _percent(self.by_pixels, self.count)
        cells = [_percent(self.right[language], self.count) for language in LANGUAGES]
        return [Cell(text) for text in (self.task, *cells, f"{self.chance:.1%}", pixels)]

    def json(self) -> dict[str, Any]:
        pixels = {} if self.by_pixels is None else {"by_pixels": self.by_pixels}
        return {"task": self.task, "right": self.right, "of": self.count, "chance": round(self.chance, 4), **pixels}


def section_of_shares(shares: Sequence[Share], things: int, scenes: int) -> Section:
    """Return the part of the page that has the shares."""
    table = Table(["", "English", "中文", "chance / 随机", "pixels / 像素"], [share.row() for share in shares])
    counts = {"things": things, "scenes": scenes}
    return Section(_TITLE, _ENGLISH.format(**counts), _CHINESE.format(**counts), [[table]])


def nearest_by_pixels(queries: Sequence[Image.Image], references: Sequence[Image.Image]) -> np.ndarray:
    """Return the row of the most similar reference for each query, int64 (Q,), by the distance of their pixels."""
    wanted, known = (
        pixel_features(np.stack([np.asarray(image.convert("RGB").resize((_SIDE, _SIDE))) for image in images]))
        for images in (queries, references)
    )
    distances = (known**2).sum(1) - 2 * wanted @ known.T  # (Q, R), but for the squares of the queries
    return distances.argmin(1)


def _percent(right: int, count: int) -> str:
    return f"{right / count:.1%} ({right}/{count})"
