"""Backgrounds for cut-outs (photographs, split by file), and pasting cut-outs on them.

Layout of the cache: `backgrounds/<file name>.npy`, (H, W, 3) uint8, the shorter side `SHORT_SIDE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ..checks import check_choice
from ..modeling.inputs import open_image
from .sources import PERMISSIVE_LICENCES, WALLPAPERS, fetch, read_members
from .splits import BACKGROUND_SPLITS, BackgroundSplit

SHORT_SIDE = 384
SCALES = (0.6, 0.95)  # side of a random square, of the shorter side of its canvas
_SHRINK_FACTORS = (1, 2, 3, 4, 6)  # a crop shows a detail at 1, much of the photograph at 6


@dataclass(frozen=True)
class Photograph:
    """One background file, with what its licence asks to be said."""

    name: str  # file name without suffix, as in `splits.BACKGROUND_SPLITS`
    source: str  # key of `sources.WALLPAPERS`
    author: str
    licence: str

    @property
    def is_permissive(self) -> bool:
        """Tell whether it may be trained on and shipped."""
        return self.licence in PERMISSIVE_LICENCES


# Only photographs: the packages' patterns and drawings are left out (but one blurred colour field, for training).
PHOTOGRAPHS: tuple[Photograph, ...] = (
    Photograph("aitzgorri_by_Aitzol_Berasategi", "lomiri-16.04", "Aitzol Berasategi", "CC-BY-4.0"),
    Photograph("friends_by_Aitzol_Berasategi", "lomiri-16.04", "Aitzol Berasategi", "CC-BY-4.0"),
    Photograph("life_by_Aitzol_Berasategi", "lomiri-16.04", "Aitzol Berasategi", "CC-BY-4.0"),
    Photograph("picosdeeuropa_by_Aitzol_Berasategi", "lomiri-16.04", "Aitzol Berasategi", "CC-BY-4.0"),
    Photograph("sunset_by_Aitzol_Berasategi", "lomiri-16.04", "Aitzol Berasategi", "CC-BY-4.0"),
    Photograph("Picture_0B_by_freespace", "lomiri-16.04", 'Trevor "Freespace"', "CC-BY-4.0"),
    Photograph("Picture_1A_by_freespace", "lomiri-16.04", 'Trevor "Freespace"', "CC-BY-4.0"),
    Photograph("umang_by_Abhishek_Mudgal", "lomiri-16.04", "Abhishek Mudgal", "CC-BY-4.0"),
    Photograph("Wine_by_Jakkub_Mede", "lomiri-16.04", "Jakub Mede", "CC-BY-4.0"),
    Photograph("seeding_by_Clements_Engelhardt", "lomiri-16.04", "Clemens Engelhardt", "CC0-1.0"),
    Photograph("Bridge_by_Sander_Klootwijk", "lomiri-16.04", "Sander Klootwijk", "CC-BY-SA-4.0"),
    Photograph("Dragonfly_by_Bolly", "lomiri-16.04", "Bolly", "CC-BY-SA-4.0"),
    Photograph("free_by_Peter_Nerlich", "lomiri-16.04", "Peter Nerlich", "CC-BY-SA-4.0"),
    Photograph("greentock_by_Peter_Nerlich", "lomiri-16.04", "Peter Nerlich", "CC-BY-SA-4.0"),
    Photograph("Kleiber_by_Lukas_Baubkus", "lomiri-20.04", "Lukas Baubkus", "CC-BY-SA-3.0"),
    Photograph("Aqua", "mate", "Charles Barbin", "GPL-2.0-or-later"),
    Photograph("Blinds", "mate", "Lennart Poettering, Andrea Cimitan", "GPL-2.0-or-later"),
    Photograph("Dune", "mate", "Marco Cogoni, Hylke Bons", "GPL-2.0-or-later"),
    Photograph("FreshFlower", "mate", "Jens Ansorg", "GPL-2.0-or-later"),
    Photograph("Garden", "mate", "Charles Barbin", "GPL-2.0-or-later"),
    Photograph("GreenMeadow", "mate", "Timothy Schellhase, Lapo Calamandrei", "GPL-2.0-or-later"),
    Photograph("LadyBird", "mate", "Charles Barbin", "GPL-2.0-or-later"),
    Photograph("RainDrops", "mate", "blackcombwhistler07", "GPL-2.0-or-later"),
    Photograph("Storm", "mate", "Sergey Nazarov", "GPL-2.0-or-later"),
    Photograph("TwoWings", "mate", "Charles Barbin, Hylke Bons", "GPL-2.0-or-later"),
    Photograph("Wood", "mate", "Jean-François Fortin Tam", "GPL-2.0-or-later"),
    Photograph("YellowFlower", "mate", "Charles Barbin", "GPL-2.0-or-later"),
)


def build_backgrounds(cache: Path) -> dict[str, int]:
    """Fetch the wallpaper packages and write what is not in the cache yet.

    Returns:
        Split -> number of photographs.
    """
    folder = cache / "backgrounds"
    folder.mkdir(parents=True, exist_ok=True)
    for source_key, source in WALLPAPERS.items():
        archive = fetch(source, cache)
        names = {photo.name for photo in PHOTOGRAPHS if photo.source == source_key}
        missing = names - {path.stem for path in folder.glob("*.npy")}

        def is_missing(path: str, missing: set[str] = missing) -> bool:
            parts = PurePosixPath(path)
            return parts.stem in missing and "backgrounds" in parts.parts and parts.suffix in (".jpg", ".png")

        for path, content in read_members(archive, is_missing) if missing else ():
            np.save(folder / f"{PurePosixPath(path).stem}.npy", shrink_photograph(content))
    splits = list(BACKGROUND_SPLITS.values())
    return {split: splits.count(split) for split in dict.fromkeys(splits)}


def load_backgrounds(cache: Path, split: BackgroundSplit, permissive_only: bool = False) -> list[np.ndarray]:
    """Load the photographs of one split, in table order.

    Args:
        cache: The folder that was built.
        split: "train", "validation" or "test". All of "train" is permissive.
        permissive_only: Leave out what may not be shipped.

    Returns:
        (H, W, 3) uint8 arrays, RGB, the shorter side `SHORT_SIDE`.

    Raises:
        ValueError: There is no such split.
        FileNotFoundError: The cache was not built; the message has the command.
    """
    check_choice("split", split, dict.fromkeys(BACKGROUND_SPLITS.values()))
    names = [
        photo.name
        for photo in PHOTOGRAPHS
        if BACKGROUND_SPLITS[photo.name] == split and (photo.is_permissive or not permissive_only)
    ]
    paths = [Path(cache) / "backgrounds" / f"{name}.npy" for name in names]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; run: python -m fgclip2.drawings --cache {cache}")
    return [np.load(path) for path in paths]


def shrink_photograph(content: bytes) -> np.ndarray:
    """Decode an image file and scale its shorter side to `SHORT_SIDE`: (H, W, 3) uint8."""
    file = open_image(content)
    file.draft("RGB", (SHORT_SIDE * 2, SHORT_SIDE * 2))  # JPEG decodes faster at an eighth to a half of its size
    image = file.convert("RGB")
    scale = SHORT_SIDE / min(image.size)
    size = (max(SHORT_SIDE, round(image.width * scale)), max(SHORT_SIDE, round(image.height * scale)))
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def pyramid(photograph: np.ndarray) -> list[np.ndarray]:
    """Average boxes of f x f pixels, for each crop scale f: (H, W, 3) uint8 -> list of (H // f, W // f, 3)."""
    levels = []
    for factor in _SHRINK_FACTORS:
        height, width = photograph.shape[0] // factor, photograph.shape[1] // factor
        cells = photograph[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
        levels.append(cells.mean(axis=(1, 3), dtype=np.float32).round().astype(np.uint8))
    return levels


def random_crops(
    pyramids: Sequence[Sequence[np.ndarray]], count: int, height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """Cut random windows of random photographs, at random scales, mirrored half of the time.

    Args:
        pyramids: What `pyramid` gives of every photograph; the first level is at least as large as one crop.
        count: Number of crops B.
        height: Height of a crop.
        width: Width of a crop.
        rng: Random state.

    Returns:
        (B, height, width, 3) uint8.
    """
    crops = np.empty((count, height, width, 3), dtype=np.uint8)
    for index in range(count):
        levels = pyramids[int(rng.integers(len(pyramids)))]
        fitting = [level for level in levels if level.shape[0] >= height and level.shape[1] >= width]
        level = fitting[int(rng.integers(len(fitting)))]
        top = rng.integers(level.shape[0] - height + 1)
        left = rng.integers(level.shape[1] - width + 1)
        crop = level[top : top + height, left : left + width]
        crops[index] = crop[:, ::-1] if rng.random() < 0.5 else crop
    return crops


def white_canvas(side: int) -> Image.Image:
    """Return a white square."""
    return Image.new("RGB", (side, side), "white")


def random_square(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draw a square (x1, y1, x2, y2) inside the canvas, its side `SCALES` of the shorter side of the canvas."""
    side = round(min(width, height) * rng.uniform(*SCALES))
    left, top = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    return left, top, left + side, top + side


def paste(background: Image.Image, cutout: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Return a copy of `background` (RGB) with `cutout` (RGBA) scaled into `box` (x1, y1, x2, y2)."""
    size = (box[2] - box[0], box[3] - box[1])
    if cutout.size != size:
        cutout = cutout.resize(size, Image.Resampling.LANCZOS)  # Pillow premultiplies, so edges don't darken
    image = background.copy()
    image.paste(cutout, box[:2], cutout)
    return image
