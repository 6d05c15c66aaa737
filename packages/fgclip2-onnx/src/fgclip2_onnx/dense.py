"""Regions, heat maps and windows from dense maps, in NumPy: what fgclip2 does in torch, for one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ._fgclip2.embedding.reranker import window_sizes


def roi_align_weights(start: np.ndarray, end: np.ndarray, size: int) -> np.ndarray:
    """Return the weights of RoIAlign along one axis (output size 1, aligned, adaptive sampling).

    Args:
        start, end: Float32 (R,), the intervals in cells.
        size: Number of cells of the axis.

    Returns:
        Float32 (R, size): the mean over the interval's `ceil(end - start)` sample points of their linear interpolation
        weights. Points more than one cell outside count as zero; an empty or inverted interval is zero.
    """
    start, end = start - np.float32(0.5), end - np.float32(0.5)
    length = end - start
    count = np.maximum(np.ceil(length), 0)
    spacing = length / np.maximum(count, 1)
    # Spacing is above half a cell when there are two samples or more: only so many can fall between -1 and `size`.
    max_samples = int(min(count.max(initial=0), 2 * size + 4))
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.nan_to_num(np.maximum(np.floor((-1 - start) / spacing - 0.5), 0), nan=0.0, posinf=0.0, neginf=0.0)
    sample = first[:, None] + np.arange(max_samples, dtype=np.float32)  # (R, S)
    position = start[:, None] + (sample + np.float32(0.5)) * spacing[:, None]
    counted = (sample < count[:, None]) & (position >= -1) & (position <= size)
    position = np.minimum(np.maximum(position, 0), size - 1)
    cells = np.arange(size, dtype=np.float32)
    weights = np.maximum(1 - np.abs(position[..., None] - cells), 0) * counted[..., None]  # (R, S, size)
    return weights.sum(1) / np.maximum(count, 1)[:, None]


def pool_regions(dense: np.ndarray, boxes: Sequence[Sequence[float]], image_size: tuple[int, int]) -> np.ndarray:
    """Pool one vector per box from a dense map: RoIAlign with a 1 x 1 output, as one matrix product.

    Args:
        dense: Float32 (height, width, D).
        boxes: (x1, y1, x2, y2) in pixels of the image.
        image_size: (height, width) of the image in pixels.

    Returns:
        Float32 (R, D), not normalised; zero for boxes of no area.
    """
    height, width, size = dense.shape
    scale = np.array([width, height] * 2, np.float64) / np.array(image_size[::-1] * 2, np.float64)
    in_patches = (np.array(boxes, np.float64).reshape(-1, 4) * scale).astype(np.float32)  # (R, 4)
    rows = roi_align_weights(in_patches[:, 1], in_patches[:, 3], height)  # (R, height)
    columns = roi_align_weights(in_patches[:, 0], in_patches[:, 2], width)  # (R, width)
    weights = rows[:, :, None] * columns[:, None]  # (R, height, width)
    return weights.reshape(-1, height * width) @ dense.reshape(-1, size)


def resize_map(cosines: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Interpolate a map, float32 (height, width), to the size of its image: bilinear, with antialiasing."""
    small = Image.fromarray(np.ascontiguousarray(cosines))  # of mode F
    return np.asarray(small.resize(image_size[::-1], Image.Resampling.BILINEAR))


def best_windows(dense: np.ndarray, phrases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the window of a map that fits each phrase best: the mean of its patches has the largest cosine.

    Args:
        dense: Float32 (height, width, D).
        phrases: Float32 (P, D), L2-normalised.

    Returns:
        The cosines, float32 (P,), and the windows (x1, y1, x2, y2) in shares of the map's sides, float32 (P, 4).
    """
    height, width, _ = dense.shape
    # Sums over all patches above and to the left: the sum of a window of any size is made of four of them.
    sums = np.pad(dense, ((1, 0), (1, 0), (0, 0))).cumsum(0, dtype=np.float64).cumsum(1)  # (height + 1, width + 1, D)
    cosines, boxes = [], []
    for rows, columns in window_sizes(height, width):
        strips = sums[rows:] - sums[:-rows]  # (height - rows + 1, width + 1, D)
        windows = (strips[:, columns:] - strips[:, :-columns]).reshape(-1, dense.shape[2])  # (W, D)
        norms = np.maximum(np.linalg.norm(windows, axis=1, keepdims=True), 1e-12)
        cosines.append((windows / norms) @ phrases.T)  # (W, P)
        y, x = np.indices((height - rows + 1, width - columns + 1)).reshape(2, -1)  # (W,) each
        boxes.append(np.stack([x / width, y / height, (x + columns) / width, (y + rows) / height], axis=1))
    every = np.concatenate(cosines)  # (W, P)
    best = every.argmax(0)
    return every[best, np.arange(len(phrases))].astype(np.float32), np.concatenate(boxes)[best].astype(np.float32)
