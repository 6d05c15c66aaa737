"""Small pictures in tables, shards and folders, and the checkpoint in the package."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from fgclip2 import Embedder
from fgclip2.bulk.settings import BulkSettings
from fgclip2.bulk.worker import Worker


def picture(seed: int, size: tuple[int, int] = (48, 32)) -> bytes:
    """A smooth PNG of a size (width, height)."""
    colors = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(colors).resize(size, Image.Resampling.BICUBIC).save(stream, "PNG")
    return stream.getvalue()


def write_table(path: Path, **columns: Iterable) -> str:
    """Write a Parquet file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return str(path)


def write_shard(path: Path, members: dict[str, bytes]) -> str:
    """Write a tar and return its path."""
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def boxes_json(*boxes: list[float]) -> bytes:
    return json.dumps({"boxes": boxes}).encode()


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return Embedder.from_pretrained(device="cpu")


@pytest.fixture(scope="session")
def make_worker(embedder):
    """Make the worker of settings."""

    def make(**settings) -> Worker:
        return Worker(BulkSettings(**settings), embedder.fingerprint)

    return make
