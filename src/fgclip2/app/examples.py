"""What the interface shows before a visitor has given anything: bundled pictures, with texts in both languages.

The embedded checkpoint answers these rightly, which `tests/app/test_answers.py` holds; most photographs it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..assets import demo_images
from ..files import read_json
from ..languages import Language


@dataclass(frozen=True)
class Examples:
    """Examples in one language; the first of each kind fills the fields when the page opens.

    Attributes:
        queries: Of a search of the bundled pictures.
        labels: Pictures, below the folder of bundled ones, and their labels.
        boxes: A picture, boxes (x1, y1, x2, y2) as shares of its sides, and phrases.
        maps: Pictures and phrases.
        contrasts: Pictures, a caption that is right and one that is wrong.
        pairs: Two pictures and a text, which is about the first.
    """

    queries: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    boxes: tuple[str, tuple[tuple[float, float, float, float], ...], str]
    maps: tuple[tuple[str, str], ...]
    contrasts: tuple[tuple[str, str, str], ...]
    pairs: tuple[tuple[str, str, str], ...]


SEA, GARDEN, GREEN = (f"scenes/images/0000{number}.webp" for number in (5, 0, 4))
PENGUIN, APPLE = "pictures/penguin-twemoji.webp", "pictures/red-apple-noto-v1.webp"
BOXES = ((0.6, 0.57, 0.89, 0.8), (0.05, 0.29, 0.47, 0.79), (0.31, 0.01, 0.52, 0.29))

EXAMPLES: Mapping[Language, Examples] = {
    "en": Examples(
        queries=("an eggplant and a carrot", "a red apple", "a tiger", "fruit"),
        labels=((APPLE, "red apple, strawberry, tiger, airplane"), (PENGUIN, "penguin, owl, rocket, guitar")),
        boxes=(SEA, BOXES, "taxi, dolphin, octopus, guitar"),
        maps=((GARDEN, "eggplant, carrot, rocket"), (SEA, "taxi, dolphin")),
        contrasts=(
            (GARDEN, "an eggplant and a carrot", "a tiger and a carrot"),
            (GREEN, "a tiger and fire", "a penguin and fire"),
        ),
        pairs=((SEA, GARDEN, "a taxi"), (APPLE, PENGUIN, "a red apple")),
    ),
    "zh": Examples(
        queries=("茄子和胡萝卜", "红苹果", "老虎", "水果"),
        labels=((APPLE, "红苹果，草莓，老虎，飞机"), (PENGUIN, "企鹅，猫头鹰，火箭，吉他")),
        boxes=(SEA, BOXES, "出租车，海豚，章鱼，吉他"),
        maps=((GARDEN, "茄子，胡萝卜，火箭"), (SEA, "出租车，海豚")),
        contrasts=(
            (GARDEN, "茄子和胡萝卜", "老虎和胡萝卜"),
            (GREEN, "老虎和火焰", "企鹅和火焰"),
        ),
        pairs=((SEA, GARDEN, "一辆出租车"), (APPLE, PENGUIN, "一个红苹果")),
    ),
}


def example_path(name: str) -> str:
    """Return the path of a bundled picture."""
    return str(demo_images() / name)


def artists() -> list[str]:
    """Return who made the bundled pictures, without the addresses and licences that the manifest has with them."""
    pictures = read_json(demo_images() / "manifest.json")["pictures"]
    parts = {part for picture in pictures for part in picture["attribution"].split("; ")}
    return sorted({part.partition(" by ")[2].partition(" (")[0] for part in parts if " by " in part})
