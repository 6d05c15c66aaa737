"""A tiny data set for other harnesses: coloured pictures of many sizes with names and captions in both languages."""

import numpy as np
from PIL import Image

COLORS = {
    "红色": (200, 30, 30),
    "green": (30, 170, 40),
    "蓝色": (30, 50, 200),
    "yellow": (230, 220, 40),
    "黑色": (15, 15, 15),
    "white": (245, 245, 245),
    "紫色": (130, 30, 150),
    "orange": (240, 140, 20),
}
NAMES = list(COLORS)
TEMPLATES = ["一张{c}的图。", "a picture of {c} color."]
PER_COLOR = 3
CLASSES = [index for index in range(len(COLORS)) for _ in range(PER_COLOR)]


def pictures() -> list[Image.Image]:
    """24 noisy pictures, three of each colour, no two of a size."""
    random = np.random.default_rng(0)
    images = []
    for index, color in enumerate(np.array(list(COLORS.values())).repeat(PER_COLOR, axis=0)):
        size = (32 + 7 * index, 230 - 8 * index, 3)
        images.append(Image.fromarray(np.clip(color + random.normal(0, 40, size), 0, 255).astype(np.uint8)))
    return images


def captions() -> list[list[str]]:
    """Two captions of each picture, every third one too long for the head `short`."""
    both = []
    for index, color in enumerate(CLASSES):
        more = " and nothing else at all, 此外什么都没有" * 8 if index % 3 == 0 else ""
        both.append([f"第{index}张是{NAMES[color]}的", f"picture {index} is {NAMES[color]}{more}"])
    return both
