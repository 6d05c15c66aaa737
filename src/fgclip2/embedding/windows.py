"""Windows of dense maps that fit phrases best, found by torch: where the maps are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .reranker import WINDOW_SIDES, ImageWindows, window_sizes


def best_windows(
    dense: Tensor, phrases: Sequence[Tensor], sides: Sequence[float] = WINDOW_SIDES
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Find the window of each map that fits each phrase best: the mean of its patches has the largest cosine.

    Args:
        dense: Dense maps (B, height, width, D) of one grid, as the model gives them.
        phrases: For each map the vectors of its phrases, float32 (P_i, D), L2-normalised.
        sides: As in [`window_sizes`].

    Returns:
        For each map the cosines, float32 (P_i,), and the windows (x1, y1, x2, y2) in shares of the map's sides, float32
        (P_i, 4).
    """
    _, height, width, _ = dense.shape
    padded = pad_sequence(list(phrases), batch_first=True).to(dense.device).mT  # (B, D, P)
    columns_of: dict[int, list[int]] = defaultdict(list)
    for rows, columns in window_sizes(height, width, sides):
        columns_of[rows].append(columns)
    # What a window sums up is the sum of its strips, which are one patch wide. So its product with a phrase is a sum of
    # theirs, and its squared norm a sum of the products of each two of them: no window is made of D values.
    dense = dense.float()
    sums = dense.new_zeros(len(dense), height + 1, width, dense.shape[-1])  # of the patches above each
    for row in range(height):  # much faster than `cumsum`, whose steps are whole rows of values here
        sums[:, row + 1] = sums[:, row] + dense[:, row]
    products = (dense.flatten(1, 2) @ padded).unflatten(1, (height, width))  # (B, height, width, P)
    products = F.pad(products, (0, 0, 1, 0, 1, 0)).cumsum(1).cumsum(2)  # (B, height + 1, width + 1, P)
    cosines, boxes = [], []
    for rows, widths in columns_of.items():
        strips = sums[:, rows:] - sums[:, :-rows]  # (B, Y, width, D)
        along = products[:, rows:] - products[:, :-rows]  # (B, Y, width + 1, P)
        pairs = F.pad(strips @ strips.mT, (1, 0, 1, 0)).cumsum(2).cumsum(3)  # (B, Y, width + 1, width + 1)
        ends = pairs.diagonal(dim1=2, dim2=3)  # (B, Y, width + 1)
        smallest = 1e-6 * ends.amax(dim=(1, 2)).clamp_min(1e-18)[:, None, None]  # below it is rounding
        for columns in widths:
            both = pairs.diagonal(columns, dim1=2, dim2=3)  # (B, Y, X)
            squares = ends[:, :, columns:] + ends[:, :, :-columns] - 2 * both
            dots = along[:, :, columns:] - along[:, :, :-columns]  # (B, Y, X, P)
            cosines.append((dots / squares.maximum(smallest).sqrt()[..., None]).flatten(1, 2))  # (B, Y * X, P)
            y, x = np.indices(both.shape[1:]).reshape(2, -1)  # (Y * X,) each
            boxes.append(np.stack([x / width, y / height, (x + columns) / width, (y + rows) / height], axis=1))
    best = torch.cat(cosines, dim=1).max(dim=1)  # (B, P)
    all_boxes = np.concatenate(boxes).astype(np.float32)  # (W, 4)
    values, places = best.values.cpu().numpy(), best.indices.cpu().numpy()
    counts = map(len, phrases)
    return [(row[:count], all_boxes[at[:count]]) for row, at, count in zip(values, places, counts, strict=True)]


def windows_of_maps(
    maps: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]], phrases: Sequence[np.ndarray]
) -> list[ImageWindows]:
    """Find the parts of images that fit phrases best, in all images of one grid at once.

    Args:
        maps: The dense map of each image, (height, width, D), on one device.
        image_sizes: (height, width) of each image in pixels.
        phrases: For each image the vectors of its phrases, float32 (P_i, D), L2-normalised.

    Returns:
        The windows of each image, without its vector.
    """
    found: dict[int, ImageWindows] = {}
    grids = [tuple(dense.shape[:2]) for dense in maps]
    for grid in sorted(set(grids)):
        rows = [row for row, its_grid in enumerate(grids) if its_grid == grid]
        dense = torch.stack([maps[row] for row in rows])  # (B, height, width, D)
        best = best_windows(dense, [torch.from_numpy(phrases[row]) for row in rows])
        for row, (cosines, boxes) in zip(rows, best, strict=True):
            height, width = image_sizes[row]
            found[row] = ImageWindows(cosines, boxes * np.array([width, height] * 2, np.float32))
    return [found[row] for row in range(len(maps))]
