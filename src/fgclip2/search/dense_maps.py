"""Stored dense maps: blocks beside those of the vectors, of which a search reads the maps of its candidates only.

A block is a safetensors file with a tensor for each map, named by the hash of its header. The header has the hash of
each map, so that all of it can be checked without reading more than is needed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save

from ..embedding import DenseMap, Embedder
from ..files import patiently, replacing
from .scan import ImageFile

KINDS = ("fp16", "int8")
BYTES_PER_BLOCK = 1 << 26  # 64 MiB: what waits in memory at most, and what a save rewrites of what is already there
_LARGEST = 127  # of int8
_MAX_HEADER = 100_000_000  # bytes, as safetensors has it


@dataclass(frozen=True, eq=False)
class PackedMap:
    """A dense map as it is stored.

    Args:
        values: Float16 or int8, (height, width, D).
        scales: Float16 (height, width): what the largest value of each int8 row stands for; `None` of float16.
        image_size: (height, width) of the upright image in pixels.
    """

    values: np.ndarray
    scales: np.ndarray | None
    image_size: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of values and scales."""
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def digest(self) -> str:
        """Return the SHA-256 of values and scales, their shapes and types."""
        digest = hashlib.sha256()
        for array in (self.values, *(() if self.scales is None else (self.scales,))):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def unpack(self) -> DenseMap:
        """Return the map in float32."""
        values = self.values.astype(np.float32)
        if self.scales is not None:
            values *= self.scales.astype(np.float32)[..., None] / _LARGEST
        return DenseMap(values, self.image_size)


def pack(dense_map: DenseMap, kind: str) -> PackedMap:
    """Pack a dense map, its largest value being 1: only directions count, and float16 has too small a range for some.

    Args:
        dense_map: What [`Embedder.stream_dense_maps`] yields.
        kind: One of `KINDS`.

    Raises:
        RuntimeError: Values are not finite.
    """
    values, image_size = dense_map
    largest = np.abs(values).max()
    if not np.isfinite(largest):
        raise RuntimeError("the model gave values that are not finite: its dtype may be too narrow, try 'float32'")
    values = values / (largest or 1)
    if kind == "fp16":
        return PackedMap(values.astype(np.float16), None, image_size)
    scales = np.abs(values).max(axis=-1).astype(np.float16)  # (height, width)
    divisors = np.where(scales > 0, scales, 1).astype(np.float32)[..., None]
    quantized = np.rint(values / divisors * _LARGEST).clip(-_LARGEST, _LARGEST)
    return PackedMap(quantized.astype(np.int8), scales, image_size)


def bytes_per_map(kind: str, patches: int, embedding_size: int) -> int:
    """Return the size of the stored map of an image with so many patches."""
    return 2 * patches * embedding_size if kind == "fp16" else patches * (embedding_size + 2)


def describe_size(kind: str, embedder: Embedder, max_num_patches: int | str | None) -> str:
    """Say how large the stored maps of images are, for the embedder and the patch budget of [`ImageIndex.build`]."""
    if embedder.processor.patch_budgets is None:  # all images become one square
        prepared = embedder.processor.prepare_image(Image.new("RGB", (64, 64)))
        inputs = embedder.processor.collate_images([prepared]).to(embedder.device)
        counts = [math.prod(embedder.model.get_patch_grids(**inputs)[0].tolist())]
    else:
        budget = max_num_patches or embedder.processor.image_processor.max_num_patches
        counts = [budget] if isinstance(budget, int) else sorted({*embedder.processor.patch_budgets})
    sizes = [bytes_per_map(kind, count, embedder.embedding_size) / 1000 for count in counts]
    if len(counts) == 1:
        return f"about {sizes[0]:,.0f} kB an image ({counts[0]:,} patches)"
    return f"from {sizes[0]:,.0f} to {sizes[-1]:,.0f} kB an image ({counts[0]:,} to {counts[-1]:,} patches)"


@dataclass(frozen=True, eq=False)
class MapBlock:
    """A block that is open: its maps stay readable whatever later generations of the index do.

    Args:
        name: The name of its file in the folder of the index.
        files: The image files that the maps are of; row r of the block is the map of `files[r]`.
        details: For each row the height and the width of the upright image in pixels, and [`PackedMap.digest`].
        content: The open safetensors file, mapped into memory. Tensor `"r"` has the values of row r, float16 or int8
            (height, width, D) on the grid of patches; tensor `"r.scales"`, float16 (height, width), is there for int8.
        nbytes: The size of the file in bytes.
    """

    name: str
    files: list[ImageFile]
    details: list[tuple[int, int, str]]
    content: Any
    nbytes: int

    @classmethod
    def open(cls, path: Path) -> MapBlock:
        """Open a block; its maps are checked when they are read.

        Raises:
            OSError: It can't be read.
            ValueError, LookupError, TypeError, SafetensorError: It is damaged.
        """
        with patiently(lambda: path.open("rb")) as file:
            size = file.read(8)
            header = file.read(min(int.from_bytes(size, "little"), _MAX_HEADER))
        if _name_of(size + header) != path.name:
            raise ValueError("its content is not that of its name")
        table = json.loads(json.loads(header)["__metadata__"]["maps"])
        files = [ImageFile(*row[:4]) for row in table]
        details = [(int(height), int(width), str(digest)) for *_, height, width, digest in table]
        return cls(path.name, files, details, safe_open(path, "np"), path.stat().st_size)

    @classmethod
    def write(cls, folder: Path, files: Sequence[ImageFile], maps: Sequence[PackedMap]) -> MapBlock:
        """Write a block whole or not at all, and open it."""
        tensors, table = {}, []
        for row, (file, packed) in enumerate(zip(files, maps, strict=True)):
            tensors[str(row)] = packed.values
            if packed.scales is not None:
                tensors[f"{row}.scales"] = packed.scales
            table.append([*file, *packed.image_size, packed.digest()])
        content = save(tensors, {"maps": json.dumps(table)})
        path = folder / _name_of(content[: 8 + int.from_bytes(content[:8], "little")])
        with replacing(path) as unfinished:
            unfinished.write_bytes(content)
        return cls.open(path)

    def read(self, row: int) -> PackedMap:
        """Read one map.

        Raises:
            ValueError, SafetensorError: It is damaged.
        """
        names = self.content.keys()
        scales = self.content.get_tensor(f"{row}.scales") if f"{row}.scales" in names else None
        height, width, digest = self.details[row]
        packed = PackedMap(self.content.get_tensor(str(row)), scales, (height, width))
        if packed.values.ndim != 3 or (scales is not None and scales.shape != packed.values.shape[:2]):
            raise ValueError(f"the dense map of {self.files[row].path} has the shape {packed.values.shape}")
        if packed.digest() != digest:
            raise ValueError(f"the dense map of {self.files[row].path} is not that of its hash")
        return packed


class StoredMap(NamedTuple):
    """The place where the dense map of an image lies.

    Attributes:
        block: The open block that has the map.
        row: The row of the map in that block, from 0 on.
    """

    block: MapBlock
    row: int


def _name_of(header: bytes) -> str:
    return f"dense-{hashlib.sha256(header).hexdigest()[:32]}.safetensors"
