"""Time another loader beside plain decoding and resizing, in an environment that has it.

    .cache/loaders/bin/python -m scripts.perf.other_loaders litdata FILES WORK WIDTH HEIGHT RUNS

Apart from `loader.py`, which runs it, since LitData brings torchvision: transformers would import that, and it need not
fit the build of torch that is here. Prints the seconds of both, run by run, as JSON.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from .measuring import seconds_in_turn

Size = tuple[int, int]  # width and height in pixels


def decode_and_resize(paths: Sequence[Path], size: Size) -> None:
    for path in paths:
        resized(Image.open(path).convert("RGB"), size)


def resized(image: Image.Image, size: Size) -> Image.Image:
    return image.resize(size, Image.Resampling.BILINEAR)


def webdataset_reader(paths: Sequence[Path], folder: Path, size: Size) -> Callable[[], None]:
    import webdataset

    folder.mkdir()
    with tarfile.open(folder / "0.tar", "w") as shard:
        for path in paths:
            shard.add(path, path.name)

    def read() -> None:
        samples: Any = webdataset.WebDataset(str(folder / "0.tar"), shardshuffle=False).decode("pil").to_tuple("jpg")
        for (image,) in samples:
            resized(image, size)

    return read


def litdata_reader(paths: Sequence[Path], folder: Path, size: Size) -> Callable[[], None]:
    import litdata

    litdata.optimize(read_file, [str(path) for path in paths], str(folder), chunk_bytes="64MB", num_workers=1)

    def read() -> None:
        for content in litdata.StreamingDataset(str(folder)):
            resized(Image.open(io.BytesIO(content)).convert("RGB"), size)

    return read


def read_file(path: str) -> bytes:
    """Return what LitData, in a process of its own, puts into its chunks."""
    return Path(path).read_bytes()


READERS = {"webdataset": webdataset_reader, "litdata": litdata_reader}


def main() -> None:
    package, files, work, width, height, runs = sys.argv[1:]
    paths, size = sorted(Path(files).glob("*.jpg")), (int(width), int(height))
    plain, read = partial(decode_and_resize, paths, size), READERS[package](paths, Path(work), size)
    plain(), read()
    print(json.dumps(seconds_in_turn(plain, read, int(runs), time.process_time)))


if __name__ == "__main__":
    main()
