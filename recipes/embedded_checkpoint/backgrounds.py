"""Procedural backgrounds, for variety in training beyond the few photographs that may be trained on."""

from __future__ import annotations

import numpy as np


def procedural_backgrounds(count: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Plain colours, gradients, stripes, grain, blurred blobs and clouds, in equal shares.

    Args:
        count: number of backgrounds B.
        height: in pixels.
        width: in pixels.
        rng: random state.

    Returns:
        (B, height, width, 3) uint8.
    """
    makers = (_plain, _gradients, _stripes, _grain, _blobs, _clouds)
    kinds = rng.integers(len(makers), size=count)
    backgrounds = np.empty((count, height, width, 3), dtype=np.uint8)
    for kind, make in enumerate(makers):
        rows = np.flatnonzero(kinds == kind)
        if len(rows):
            backgrounds[rows] = make(len(rows), height, width, rng).clip(0, 255)
    return backgrounds


def _colours(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 255, size=(count, 1, 1, 3)).astype(np.float32)


def _mix(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Between two random colours: (B, H, W) weights from 0 to 1 -> (B, H, W, 3)."""
    first, second = _colours(len(weights), rng), _colours(len(weights), rng)
    return first + (second - first) * weights[..., None]


def _ramps(count: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(B, H, W): 0 to 1 along a random direction."""
    angle = rng.uniform(0, 2 * np.pi, size=(count, 1, 1)).astype(np.float32)
    rows = np.linspace(-0.5, 0.5, height, dtype=np.float32)[None, :, None]
    columns = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, None, :]
    return (rows * np.sin(angle) + columns * np.cos(angle)) / np.sqrt(2) + 0.5


def _plain(count: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    return np.broadcast_to(_colours(count, rng), (count, height, width, 3))


def _gradients(count: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    return _mix(_ramps(count, height, width, rng), rng)


def _stripes(count: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    periods = rng.uniform(2, 14, size=(count, 1, 1)).astype(np.float32)
    wave = np.sin(2 * np.pi * periods * _ramps(count, height, width, rng))
    sharpness = rng.uniform(0.5, 6, size=(count, 1, 1)).astype(np.float32)
    return _mix((sharpness * wave).clip(-1, 1) / 2 + 0.5, rng)


def _blobs(count: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Random colours on a coarse grid, interpolated: like what is out of focus."""
    grid = rng.uniform(0, 255, size=(count, int(rng.integers(3, 9)), int(rng.integers(3, 9)), 3))
    return _upsample(grid.astype(np.float32), height, width)


def _clouds(count: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Two colours mixed by noise whose amplitude halves as its frequency doubles, roughly as in natural images."""
    weights = np.zeros((count, height, width), dtype=np.float32)
    for octave in range(5):
        grid = rng.uniform(-1, 1, size=(count, 2 * 2**octave + 1, 2 * 2**octave + 1, 1)).astype(np.float32)
        weights += _upsample(grid, height, width)[..., 0] / 2**octave
    return _mix((weights * rng.uniform(0.3, 1, size=(count, 1, 1)) + 0.5).clip(0, 1), rng)


def _grain(count: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal((count, height, width, 3), dtype=np.float32)
    strength = rng.uniform(5, 60, size=(count, 1, 1, 1)).astype(np.float32)
    return _colours(count, rng) + strength * noise


def _upsample(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, corners aligned: (B, h, w, C) -> (B, height, width, C)."""
    rows, columns = _interpolation(height, grid.shape[1]), _interpolation(width, grid.shape[2])
    return np.einsum("hi,bijc,wj->bhwc", rows, grid, columns, optimize=True)


def _interpolation(size: int, cells: int) -> np.ndarray:
    """(size, cells) float32: linear interpolation of `cells` values to `size` positions."""
    position = np.linspace(0, cells - 1, size, dtype=np.float32)[:, None]
    return np.maximum(0, 1 - np.abs(position - np.arange(cells, dtype=np.float32)[None, :]))
