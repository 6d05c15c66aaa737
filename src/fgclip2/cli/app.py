"""`fgclip2 app`: try a checkpoint in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._imports import require
from . import common

EXAMPLES = """
fgclip2 app
fgclip2 app --folder 照片
fgclip2 app --model qihoo360/fg-clip2-base --folder photos --port 8080
"""


def app(
    folder: Annotated[
        Path | None,
        typer.Option(help="Folder of images, archive or Parquet file to search.  [default: the bundled pictures]"),
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="Folder of the index.  [default: .fgclip2_index inside the folder]")
    ] = None,
    model: common.Model = None,
    device: common.Device = None,
    calibration: common.CalibrationFile = None,
    max_patches: common.MaxPatches = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is all, for everyone who can reach it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")] = 7860,
) -> None:
    """Try a checkpoint in the browser: search, labels, boxes, heat maps and comparisons, in Chinese and English.

    It runs on this machine, sends nothing elsewhere, and shows no file but those of the folder. Ctrl-C ends it.
    """
    budget = common.parse_max_patches(max_patches)
    require("gradio", "app")
    require("gradio_image_annotation", "app")
    from ..app.server import is_local, listen, make_app, make_library, private_scratch, run_app

    listener, address = listen(host, port)  # before the work
    with listener, private_scratch() as scratch:
        embedder = common.load_embedder(model, device)
        if calibration is not None:
            embedder.use_calibration(calibration)
        library = make_library(folder, index, embedder, budget, scratch)
        application = make_app(embedder, budget, library, scratch, host)
        if not is_local(host):
            typer.echo(f"fgclip2: everyone who reaches {host} can use it, and see the pictures it searches", err=True)
        typer.echo(f"{address}  (Ctrl-C ends it)")
        with common.kept_when_interrupted("the app has ended"):
            run_app(application, listener)
