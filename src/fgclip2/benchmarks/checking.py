"""Check a data set before hours are spent on it: counts, files, boxes and names against what was published."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..embedding.inputs import load_input
from ..errors import UnreadableImageError
from .base import Problem, Settings
from .catalogue import Benchmark
from .image_files import ImageFile


@dataclass(frozen=True)
class Check:
    """The counts of a data set, and what is wrong with it.

    Attributes:
        counts: Name -> (count here, published count or `None`).
        problems: Records that can't be used, and what looks wrong though it is used.
    """

    counts: dict[str, tuple[int, int | None]]
    problems: Sequence[Problem]

    @property
    def missing(self) -> dict[str, tuple[int, int]]:
        """Counts that differ from the published ones."""
        return {
            name: (here, published) for name, (here, published) in self.counts.items() if published not in (None, here)
        }

    @property
    def faults(self) -> list[str]:
        """Faults: what is missing or wrong, e.g. "2 images in place of 24221"; nothing where all is well."""
        faults = [f"{here} {name} in place of {published}" for name, (here, published) in self.missing.items()]
        return [*faults, f"{len(self.problems)} problems"] if self.problems else faults

    def as_dict(self) -> dict[str, Any]:
        """Return counts and problems as JSON has them."""
        counts = {name: {"here": here, "published": published} for name, (here, published) in self.counts.items()}
        return {"counts": counts, "problems": [str(problem) for problem in self.problems]}


def check(
    benchmark: Benchmark,
    folder: str | Path,
    images: str | Path | None = None,
    opened: bool = False,
    follow_links: bool = False,
) -> Check:
    """Read a data set whole.

    Args:
        benchmark, folder, images, follow_links: As in [`run`].
        opened: Whether to decode every image, and compare the boxes with its real size.

    Raises:
        ValueError: It can't be read at all; the message has the remedy.
    """
    data = benchmark.read(Path(folder), None if images is None else Path(images), benchmark.paper, follow_links)
    counts = {"images": len(data.images), "items": data.items}
    names = next(iter(getattr(data, "names", {}).values()), None)
    if names is not None:
        counts["categories"] = len(names)
    problems = [*data.problems, *data.doubts]
    if "names" not in benchmark.read.options:  # names of the package's own are as published
        problems += _equal_names(getattr(data, "names", {}), benchmark.paper, str(folder))
    if not opened:
        files = [*data.images, *getattr(data, "masks", ())]
        empty = (file for file in files if isinstance(file, ImageFile) and file.stamp()[:1] == (0,))
        problems += [Problem(str(file), "the image is empty: get it again") for file in empty]
    boxes = getattr(data, "boxes", [[]] * len(data.images))
    images_and_boxes = list(zip(data.images, boxes, strict=True)) if opened else []
    for image, its_boxes in tqdm(images_and_boxes, unit="image", desc="opening", disable=not opened):
        try:
            width, height = load_input(0, image.read()).size
        except UnreadableImageError as error:
            problems.append(Problem(str(image), str(error).removeprefix("images[0]: ")))
            continue
        for box in its_boxes:
            if not (box[0] < width and box[1] < height and box[2] > 0 and box[3] > 0):
                reason = f"box {box} is outside the image of {width} x {height} pixels; mend it, or leave it out"
                problems.append(Problem(str(image), reason))
    return Check({name: (count, benchmark.published.get(name)) for name, count in counts.items()}, problems)


def _equal_names(names: Mapping[str, Sequence[str]], settings: Settings, source: str) -> list[Problem]:
    """Return categories that share a name in a language, as the model reads it: they tie, so neither is ever right."""
    problems = []
    for language, of_language in names.items():
        numbers = defaultdict(list)
        for number, name in enumerate(of_language, start=1):
            numbers[name.lower() if getattr(settings, "lower_case", True) else name].append(str(number))
        for name, its in numbers.items():
            if len(its) > 1:
                reason = f"categories {', '.join(its)} are all named {name!r} ({language}), so that none is ever right"
                problems.append(Problem(source, f"{reason}: tell them apart, or make them one"))
    return problems
