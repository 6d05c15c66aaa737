"""Pictures of heat maps, without matplotlib."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Blue, cyan, green, yellow, red: ordered in hue, and in red against blue for those who don't tell red from green.
_COLORS = np.array([[40, 40, 140], [30, 160, 220], [90, 200, 120], [250, 210, 50], [220, 40, 30]], np.float64)


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
