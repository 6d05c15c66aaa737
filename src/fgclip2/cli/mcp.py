"""`fgclip2 mcp`: tools for language models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._imports import require
from . import common

EXAMPLES = """
fgclip2 mcp --root photos
fgclip2 mcp --root 照片 --root 素材 --model qihoo360/fg-clip2-base
"""


def mcp(
    root: Annotated[
        list[Path],
        typer.Option(help="Folder whose images may be read, and searched if it has an index; may be repeated."),
    ],
    model: common.Model = None,
    device: common.Device = None,
    calibration: common.CalibrationFile = None,
    max_pixels: common.MaxPixels = None,
) -> None:
    """Offer search, labels, regions and comparison of images as tools of the Model Context Protocol, over stdio.

    A program with a language model starts this command; it ends when that closes its input. Make indexes before, by
    `fgclip2 index`.
    """
    require("mcp", "mcp")
    embedder = common.load_embedder(model, device, max_pixels=max_pixels)
    if calibration is not None:
        embedder.use_calibration(calibration)
    from ..serving.tools import make_server

    make_server(embedder, root).run("stdio")
