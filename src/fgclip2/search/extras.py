"""What an entry of an index has beside the vector of its image: metadata and regions, as tensors of its block."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .metadata import Metadata, check_metadata
from .scan import ImageFile

LARGEST_SIDE = 1 << 24  # of an image in pixels: float32 tells all numbers up to it apart


class Regions(NamedTuple):
    """The regions of an image.

    Attributes:
        image_size: (width, height) of the upright image in pixels.
        boxes: Float32 (R, 4), (x1, y1, x2, y2) in pixels.
        vectors: Float32 (R, D), L2-normalised; they compare with region phrases.
    """

    image_size: tuple[int, int]
    boxes: np.ndarray
    vectors: np.ndarray


class Extra(NamedTuple):
    """What an entry has beside its vector; `None`: it has none."""

    metadata: Metadata | None = None
    regions: Regions | None = None


NOTHING = Extra()


def count_regions(extra: Extra | None) -> int:
    """Return the number of regions of an entry."""
    return 0 if extra is None or extra.regions is None else len(extra.regions.boxes)


def pack_extras(files: Sequence[ImageFile], extras: Mapping[ImageFile, Extra]) -> dict[str, np.ndarray]:
    """Return the tensors of a block that its entries need beside their vectors, none where they have nothing else.

    Returns:
        `metadata`, the bytes of a JSON list with an object or null for each file, uint8; `region_counts`, int32
        (files,), -1 where there are no regions; `image_sizes`, int32 (files, 2), width and height; `boxes`, float32
        (R, 4), and `regions`, float32 (R, D), of all files one after the other.
    """
    tensors: dict[str, np.ndarray] = {}
    rows = [extras.get(file, Extra()) for file in files]
    if any(row.metadata is not None for row in rows):
        table = json.dumps([row.metadata for row in rows], ensure_ascii=False).encode("utf-8", "backslashreplace")
        tensors["metadata"] = np.frombuffer(table, np.uint8)
    found = [row.regions for row in rows if row.regions is not None]
    if found:
        tensors["region_counts"] = np.array(
            [-1 if row.regions is None else len(row.regions.boxes) for row in rows], np.int32
        )
        tensors["image_sizes"] = np.array([row.regions.image_size if row.regions else (0, 0) for row in rows], np.int32)
        tensors["boxes"] = np.concatenate([regions.boxes for regions in found]).astype(np.float32)  # (R, 4)
        tensors["regions"] = np.concatenate([regions.vectors for regions in found]).astype(np.float32)  # (R, D)
    return tensors


def unpack_extras(
    files: Sequence[ImageFile], tensors: Mapping[str, np.ndarray], embedding_size: int
) -> dict[ImageFile, Extra]:
    """Return what the entries of a block have beside their vectors, after a check of all of it.

    Raises:
        ValueError, LookupError, TypeError: It is not as [`pack_extras`] makes it.
    """
    if "metadata" not in tensors and "region_counts" not in tensors:
        return {}
    metadata: list[Any] = json.loads(tensors["metadata"].tobytes()) if "metadata" in tensors else [None] * len(files)
    if len(metadata) != len(files):
        raise ValueError("its metadata are of another number of files")
    for file, its in zip(files, metadata, strict=True):
        if its is not None:
            check_metadata(its, f"the entry {file.path!r}")
    regions: list[Regions | None] = [None] * len(files)
    if "region_counts" in tensors:
        counts, sizes = tensors["region_counts"], tensors["image_sizes"]
        boxes, vectors = tensors["boxes"], tensors["regions"]
        ends = np.cumsum(counts.clip(min=0), dtype=np.int64)  # (files,)
        if not (
            counts.shape == (len(files),)
            and sizes.shape == (len(files), 2)
            and boxes.shape == (ends[-1], 4)
            and vectors.shape == (ends[-1], embedding_size)
            and boxes.dtype == vectors.dtype == np.float32
            and np.isfinite(boxes).all()
            and (sizes >= 0).all()
            and (sizes <= LARGEST_SIDE).all()
        ):
            raise ValueError("its regions are not as this release writes them")
        for row, (count, end, size) in enumerate(zip(counts.tolist(), ends.tolist(), sizes.tolist(), strict=True)):
            if count >= 0:
                regions[row] = Regions((size[0], size[1]), boxes[end - count : end], vectors[end - count : end])
    both = zip(files, metadata, regions, strict=True)
    return {file: Extra(*its) for file, *its in both if any(value is not None for value in its)}
