"""A model that sees colours and reads their names, so that numbers are known by hand."""

import numpy as np
from PIL import Image

COLORS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "红": (255, 0, 0),
    "绿": (0, 255, 0),
    "蓝": (0, 0, 255),
    "黄": (255, 255, 0),
}


def mean_colors(images: list[Image.Image], max_num_patches) -> np.ndarray:
    return np.stack([np.asarray(image).reshape(-1, 3).mean(0) for image in images])


def named_colors(texts: list[str]) -> np.ndarray:
    """The colour that a text names last."""
    return np.array([COLORS[max(COLORS, key=text.rfind)] for text in texts], dtype=np.float64)


def values(scores) -> dict[str, float]:
    return {name: estimate.value for name, estimate in scores.metrics.items()}
