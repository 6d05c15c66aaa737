"""A small data set in FineHARD's schema, half English, half Chinese, with its pictures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

LONG = {"en": "A red apple lies to the left of a yellow banana.", "zh": "一个红色的苹果在一根黄色的香蕉左边。"}
SHORT = {"en": "an apple and a banana", "zh": "苹果和香蕉"}
APPLE = {"en": "red apple", "zh": "红色的苹果"}
NEGATIVES = {"en": "apple number {} in blue", "zh": "{}号蓝色的苹果"}


def region(language: str = "en", **changes: Any) -> dict[str, Any]:
    """An entry of `bbox_info` with ten hard negatives."""
    return {
        "bbox": [0.1, 0.2, 0.5, 0.75, 0.9],
        "short_expr": APPLE[language],
        "long_expr": LONG[language],
        "flag_short_neg": 1,
        "short_expr_negs": {str(number): NEGATIVES[language].format(number) for number in range(10)},
        **changes,
    }


def item(language: str = "en", path: str = "0.png", **changes: Any) -> dict[str, Any]:
    """One record; a change to None leaves the key out."""
    complete = {
        "f_path": path,
        "caption": LONG[language],
        "short_caption": SHORT[language],
        "bbox_info": [region(language)],
        "is_cn": True if language == "zh" else None,
        **changes,
    }
    return {key: value for key, value in complete.items() if value is not None}


def items(count: int) -> list[dict[str, Any]]:
    """English and Chinese in turn, each with its own picture and short caption."""
    languages = ["zh" if number % 2 else "en" for number in range(count)]
    return [
        item(language, f"{number}.png", short_caption=f"{SHORT[language]} {number}")
        for number, language in enumerate(languages)
    ]


def write_images(folder: Path, count: int) -> Path:
    """`0.png` ... in `folder`, all different."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        colors = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(colors).save(folder / f"{number}.png")
    return folder


def write_json(path: Path, value: Any, **options: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False, **options), encoding="utf-8")
    return path


def write_lines(path: Path, rows: list[Any]) -> Path:
    """Each row on a line: text as it is, bytes as they are, the rest as JSON."""
    lines = [row if isinstance(row, (str, bytes)) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines) + b"\n")
    return path
