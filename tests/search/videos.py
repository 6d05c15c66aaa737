"""Small videos that tests encode themselves."""

from collections.abc import Sequence
from pathlib import Path

import av
from PIL import Image

RED, GREEN, BLUE, WHITE = (220, 20, 20), (20, 130, 20), (20, 20, 220), (240, 240, 240)


def plain(color: tuple[int, int, int], size: tuple[int, int] = (96, 64)) -> Image.Image:
    return Image.new("RGB", size, color)


def write_video(
    path: Path, pictures: Sequence[Image.Image], seconds: float = 2, rate: int = 4, codec: str = "mpeg4"
) -> Path:
    """Write a video that shows each picture for some seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            for _ in range(round(seconds * rate)):
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return path
