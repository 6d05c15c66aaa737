"""Single drawings on random backgrounds, made and varied for a whole batch at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fgclip2.drawings.backgrounds import pyramid, random_crops
from fgclip2.drawings.concepts import ConceptTable

from .backgrounds import procedural_backgrounds

# The three Fluent sets are one design: together they count little more than one artist.
ARTIST_WEIGHTS = {"fluent-emoji-3d": 0.5, "fluent-emoji-flat": 0.5, "fluent-emoji": 0.5}
POOL_SIDE = 128  # of the background pool's pictures


@dataclass
class Drawings:
    """The training drawings by size, with premultiplied alpha, and where each concept's are.

    Args:
        by_side: side in pixels -> uint8 (N, 4, side, side).
        rows: For each training concept the rows of its drawings.
        weights: For each training concept the chances of these rows.
    """

    by_side: dict[int, Tensor]
    rows: list[np.ndarray]
    weights: list[np.ndarray]

    def sample_pairs(self, concepts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Two different drawings of each concept, where there are two: (C,) -> rows (2 C,), first all firsts."""
        pairs = np.empty((2, len(concepts)), np.int64)
        for index, concept in enumerate(concepts):
            rows = self.rows[concept]
            pairs[:, index] = rng.choice(rows, size=2, replace=len(rows) < 2, p=self.weights[concept])
        return pairs.reshape(-1)

    def sample(self, concepts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One drawing of each concept."""
        return np.array([rng.choice(self.rows[concept], p=self.weights[concept]) for concept in concepts])


def load_drawings(table: ConceptTable, cutouts: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Drawings:
    """Premultiply the cut-outs of `load_training_cutouts`, and shrink them once for small canvases."""
    ids = np.concatenate([concept_ids for concept_ids, _ in cutouts.values()])
    weights = np.concatenate([np.full(len(i), ARTIST_WEIGHTS.get(artist, 1.0)) for artist, (i, _) in cutouts.items()])
    rgba = torch.from_numpy(np.concatenate([rgba for _, rgba in cutouts.values()])).permute(
        0, 3, 1, 2
    )  # (N, 4, 96, 96)
    large, small = torch.empty_like(rgba, memory_format=torch.contiguous_format), []
    for start in range(0, len(rgba), 512):
        part = rgba[start : start + 512].float()
        part[:, :3] *= part[:, 3:] / 255
        large[start : start + 512] = part.round().byte()
        small.append(F.interpolate(part, size=(64, 64), mode="bilinear", antialias=True).round().clamp(0, 255).byte())
    rows = [np.flatnonzero(ids == concept_id) for concept_id in table.train_ids]
    return Drawings(
        {96: large, 64: torch.cat(small)}, rows, [weights[its_rows] / weights[its_rows].sum() for its_rows in rows]
    )


def background_pool(photographs: list[np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """Uint8 (count, 128, 128, 3): the first two thirds crops of photographs, the rest procedural."""
    photos = count * 2 // 3
    crops = random_crops([pyramid(photo) for photo in photographs], photos, POOL_SIDE, POOL_SIDE, rng)
    return np.concatenate([crops, procedural_backgrounds(count - photos, POOL_SIDE, POOL_SIDE, rng)])


def sample_backgrounds(pool: np.ndarray, count: int, side: int, plain_share: float, rng: np.random.Generator) -> Tensor:
    """Windows of the pool, varied in colour, and plain ones: float (count, 3, side, side) from 0 to 1."""
    photos = len(pool) * 2 // 3
    is_photo = rng.random(count) < 0.75
    rows = np.where(is_photo, rng.integers(photos, size=count), rng.integers(photos, len(pool), size=count))
    offsets = rng.integers(POOL_SIDE - side + 1, size=(count, 2)) if side < POOL_SIDE else np.zeros((count, 2), int)
    flips = rng.choice((-1, 1), size=(count, 2))
    windows = np.stack(
        [
            pool[row, y : y + side, x : x + side][::down, ::across]
            for row, (y, x), (down, across) in zip(rows, offsets.tolist(), flips.tolist(), strict=True)
        ]
    )
    backgrounds = torch.from_numpy(windows).permute(0, 3, 1, 2).float() / 255
    backgrounds = vary_colours(backgrounds, None, 1.0, rng)
    plain = torch.from_numpy(rng.random((count, 3, 1, 1), dtype=np.float32))
    plain = torch.where(torch.from_numpy(rng.random((count, 1, 1, 1)) < 0.5), torch.ones(()), plain)  # white, or any
    is_plain = torch.from_numpy(rng.random((count, 1, 1, 1)) < plain_share)
    return torch.where(is_plain, plain, backgrounds)


def random_affine(
    count: int, scales: tuple[float, float], strength: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Matrices (count, 2, 2) from canvas to drawing and scales (count,): mirrored, turned, stretched, resized."""
    scale = rng.uniform(*scales, size=count)
    angle = rng.normal(0, 0.15 * strength, size=count)
    stretch = np.exp(rng.normal(0, 0.08 * strength, size=count))
    mirror = np.where(rng.random(count) < 0.4 * strength, -1.0, 1.0)
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    rows_x = np.stack([cos * stretch * mirror, sin * stretch * mirror], -1)
    rows_y = np.stack([-sin / stretch, cos / stretch], -1)
    return np.stack([rows_x, rows_y], 1), scale


def warp(
    drawings: Tensor, matrices: np.ndarray, centres: np.ndarray, side: int, bends: np.ndarray | None = None
) -> Tensor:
    """Move drawings (B, 4, h, h) onto canvases (B, 4, side, side).

    Args:
        drawings: What to move.
        matrices: Shape (B, 2, 2), from canvas to drawing.
        centres: Shape (B, 2), in -1 to 1.
        side: Of the canvases.
        bends: Shape (B, 2, k, k), displacements at coarse points, as fractions of half a drawing.
    """
    shift = -np.einsum("bij,bj->bi", matrices, centres)
    theta = torch.from_numpy(np.concatenate([matrices, shift[..., None]], -1)).float()
    grid = F.affine_grid(theta, [len(drawings), 4, side, side], align_corners=False)
    if bends is not None:
        smooth = F.interpolate(torch.from_numpy(bends).float(), size=(side, side), mode="bicubic")
        grid = grid + smooth.permute(0, 2, 3, 1)
    return F.grid_sample(drawings, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def swap_styles(drawings: Tensor, partners: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Blend some drawings with another artist's of the same thing, and give some that artist's colours.

    Args:
        drawings, partners: Premultiplied, shape (B, 4, h, w).
        strength: 0 to 1.
        rng: Random state.
    """
    choice = rng.random(len(drawings))
    blended = torch.from_numpy(np.flatnonzero(choice < 0.2 * strength))
    recoloured = torch.from_numpy(np.flatnonzero(choice > 1 - 0.2 * strength))
    changed = drawings.clone()
    if len(blended):
        weight = torch.from_numpy(rng.uniform(0.2, 0.5, size=(len(blended), 1, 1, 1))).float()
        changed[blended] = drawings[blended].lerp(partners[blended], weight)
    if len(recoloured):
        changed[recoloured] = match_colours(drawings[recoloured], partners[recoloured])
    return changed


def match_colours(rgba: Tensor, reference: Tensor) -> Tensor:
    """Give (premultiplied) drawings the mean and spread of each channel of others, shape (B, 4, h, w) both."""

    def moments(picture: Tensor) -> tuple[Tensor, Tensor]:
        rgb, alpha = picture[:, :3].flatten(2), picture[:, 3:].flatten(2)
        weight = alpha.sum(-1, keepdim=True).clamp(min=1)
        mean = rgb.sum(-1, keepdim=True) / weight
        spread = (((rgb - mean * alpha) ** 2).sum(-1, keepdim=True) / weight).sqrt()
        return mean[..., None], spread[..., None]  # (B, 3, 1, 1)

    (mean, spread), (new_mean, new_spread) = moments(rgba), moments(reference)
    rgb, alpha = rgba[:, :3], rgba[:, 3:]
    ratio = ((new_spread + 0.05) / (spread + 0.05)).clamp(0.5, 2)
    rgb = (rgb - mean * alpha) * ratio + new_mean * alpha
    return torch.cat([torch.minimum(rgb.clamp(min=0), alpha), alpha], 1)


def shade(rgba: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Light each (premultiplied) drawing from a random side."""
    side = rgba.shape[-1]
    slope = torch.from_numpy(rng.normal(0, 0.25 * strength, size=(2, len(rgba), 1, 1, 1))).float()
    across = torch.linspace(-1, 1, side)
    light = (1 + slope[0] * across + slope[1] * across[:, None]).clamp(min=0.2)  # (B, 1, S, S)
    return torch.cat([torch.minimum(rgba[:, :3] * light, rgba[:, 3:]), rgba[:, 3:]], 1)


def vary_colours(rgb: Tensor, alpha: Tensor | None, strength: float, rng: np.random.Generator) -> Tensor:
    """Turn hue, change saturation, contrast and brightness of (premultiplied) colours by one matrix per picture."""
    count = len(rgb)
    angle = rng.normal(0, 0.15 * strength, size=count)
    saturation = np.exp(rng.normal(0, 0.25 * strength, size=count))
    saturation[rng.random(count) < 0.08 * strength] = 0.0  # grey
    gain = np.exp(rng.normal(0, 0.15 * strength, size=(count, 1))) * np.exp(
        rng.normal(0, 0.08 * strength, size=(count, 3))
    )
    grey = np.full((3, 3), 1 / 3)
    # A rotation about the grey axis is cos I + (1 - cos) grey + sin K / sqrt(3).
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    hue = cos * np.eye(3) + (1 - cos) * grey + sin * cross
    matrix = (saturation[:, None, None] * hue + (1 - saturation)[:, None, None] * grey) * gain[:, :, None]
    shift = rng.normal(0, 0.06 * strength, size=(count, 3, 1))
    flat = rgb.flatten(2)  # (B, 3, H W)
    covered = torch.ones(()) if alpha is None else alpha.flatten(2)
    varied = torch.bmm(torch.from_numpy(matrix).float(), flat) + torch.from_numpy(shift).float() * covered
    return torch.minimum(varied.clamp(min=0), covered).view_as(rgb)


def draw_outlines(rgba: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw a dark line around each drawing and along its inner edges, as some artists do."""
    count = len(rgba)
    width = 3 if rng.random() < 0.6 else 5
    rgb, alpha = rgba[:, :3], rgba[:, 3:]
    grey = rgb.mean(1, keepdim=True)
    contrast = F.max_pool2d(grey, 3, 1, 1) + F.max_pool2d(-grey, 3, 1, 1)
    amount = torch.from_numpy(rng.uniform(0, 1, size=(count, 1, 1, 1))).float()
    inner = ((contrast - 0.12) * 4).clamp(0, 1) * amount * alpha
    outer = F.max_pool2d(alpha, width, 1, width // 2)
    ink = torch.from_numpy(rng.uniform(0, 0.2, size=(count, 1, 1, 1))).float()
    rgb = rgb * (1 - inner) + ink * inner
    return torch.cat([rgb + (outer - alpha) * ink, outer], 1)


def whiten_fills(rgba: Tensor, rng: np.random.Generator) -> Tensor:
    """Mix fills with white, towards a line drawing."""
    amount = torch.from_numpy(rng.uniform(0.2, 0.8, size=(len(rgba), 1, 1, 1))).float()
    return torch.cat([rgba[:, :3] * (1 - amount) + rgba[:, 3:] * amount, rgba[:, 3:]], 1)


def erase_patches(rgba: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Make a rectangle of some drawings transparent, as if something stood before it."""
    chosen = np.flatnonzero(rng.random(len(rgba)) < share)
    side = rgba.shape[-1]
    for row in chosen:
        height, width = rng.integers(side // 8, side // 3, size=2)
        top, left = rng.integers(side - height), rng.integers(side - width)
        rgba[row, :, top : top + height, left : left + width] = 0
    return rgba


def alpha_boxes(alpha: Tensor) -> Tensor:
    """Boxes (x1, y1, x2, y2) in pixels, float (B, 4), around what is opaque in (B, H, W); the whole if nothing is."""
    opaque = alpha > 0.5
    boxes = []
    for axis in (1, 2):  # over rows: columns remain
        any_opaque = opaque.any(axis).float()
        size = any_opaque.shape[1]
        boxes += [any_opaque.argmax(1).float(), size - any_opaque.flip(1).argmax(1).float()]
    x1, x2, y1, y2 = boxes
    return torch.stack([x1, y1, x2, y2], 1)


def vary_drawings(
    drawings: Tensor,
    partners: Tensor,
    side: int,
    scales: tuple[float, float],
    strength: float,
    rng: np.random.Generator,
) -> Tensor:
    """Each drawing in another style and shape at a random place of a square.

    Args:
        drawings: Premultiplied, shape (B, 4, h, h), from 0 to 1.
        partners: Of the same things, that some take their colours from or are blended with.
        side: Of the squares.
        scales: Smallest and largest size of a drawing, as a fraction of its square.
        strength: Of the variation, 0 to 1.
        rng: Random state.

    Returns:
        Premultiplied, shape (B, 4, side, side).
    """
    count = len(drawings)
    chosen = swap_styles(drawings, partners, strength, rng)
    matrices, scale = random_affine(count, scales, strength, rng)
    centres = rng.uniform(-1, 1, size=(count, 2)) * (1.05 - scale)[:, None]
    rgba = warp(chosen, matrices, centres, side, bends=rng.normal(0, 0.06 * strength, size=(count, 2, 4, 4)))
    rgba = shade(rgba, strength, rng)
    rgba = torch.cat([vary_colours(rgba[:, :3], rgba[:, 3:], strength, rng), rgba[:, 3:]], 1)
    is_outlined, is_whitened = rng.random(count) < 0.25 * strength, rng.random(count) < 0.12 * strength
    for flags, change in ((is_whitened, whiten_fills), (is_outlined, draw_outlines)):
        where = torch.from_numpy(np.flatnonzero(flags))
        if len(where):
            rgba[where] = change(rgba[where], rng)
    return rgba


def compose_singles(
    drawings: Drawings, rows: np.ndarray, backgrounds: Tensor, strength: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """One varied drawing on each background.

    Args:
        drawings: The training drawings.
        rows: Shape (B,), which of them; the second half belong to the concepts of the first half.
        backgrounds: Float, shape (B, 3, S, S), from 0 to 1.
        strength: Of the variation, 0 to 1.
        rng: Random state.

    Returns:
        Pictures from -1 to 1, shape (B, 3, S, S), and the drawings' boxes in pixels, shape (B, 4).
    """
    side = backgrounds.shape[-1]
    chosen = drawings.by_side[64 if side <= 64 else 96][torch.from_numpy(rows)].float() / 255
    partners = chosen.roll(len(rows) // 2, 0)
    rgba = vary_drawings(chosen, partners, side, (1.0 - 0.55 * strength, 1.0), strength, rng)
    boxes = alpha_boxes(rgba[:, 3])
    rgba = erase_patches(rgba, 0.2 * strength, rng)
    pictures = rgba[:, :3] + backgrounds * (1 - rgba[:, 3:])
    if rng.random() < 0.15 * strength:  # what shrinking and enlarging leaves
        pictures = F.avg_pool2d(pictures, 3, 1, 1, count_include_pad=False)
    return pictures.clamp(0, 1) * 2 - 1, boxes
