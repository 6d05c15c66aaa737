"""`fgclip2 serve`: answer programs over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._imports import require
from ..serving.limits import Limits
from . import common

EXAMPLES = """
fgclip2 serve
fgclip2 serve --folder 照片 --port 8080
fgclip2 serve --model qihoo360/fg-clip2-base --host 0.0.0.0 --keys-file keys.txt --workers 2
fgclip2 serve --model exported --backend onnx --allow-url https://images.example.org/products/
"""

DEFAULT = Limits()


def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is all, which needs API keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with a model of its own.")] = 1,
    threads: Annotated[
        int, typer.Option(min=1, help="Batches that a process computes at a time; they share its cores.")
    ] = 2,
    folder: Annotated[
        Path | None, typer.Option(help="Folder of images whose index is searched.  [default: there is no search]")
    ] = None,
    index: Annotated[
        Path | None, typer.Option(help="Folder of the index.  [default: .fgclip2_index inside the folder]")
    ] = None,
    model: common.Model = None,
    device: common.Device = None,
    backend: Annotated[
        str, typer.Option(help="Run the model by torch, or by onnx or openvino from a folder with exported graphs.")
    ] = "torch",
    precision: Annotated[
        str | None, typer.Option(help="Precision of exported graphs.  [default: fp32 if it is there]")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What clients call the model.  [default: the checkpoint's name]")
    ] = None,
    calibration: common.CalibrationFile = None,
    max_patches: common.MaxPatches = None,
    batch_size: common.BatchSize = 32,
    keys_file: Annotated[
        Path | None,
        typer.Option(help="File with one API key on each line.  [default: FGCLIP2_API_KEYS, with commas between keys]"),
    ] = None,
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="Answer everyone who can reach the service.")
    ] = False,
    allow_url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX",
            help="Fetch images whose addresses begin so, from public hosts; may be repeated.  "
            "[default: none are fetched]",
        ),
    ] = None,
    max_body: Annotated[int, typer.Option(help="Most bytes of a body, or of an image that is fetched.")] = (
        DEFAULT.body_bytes
    ),
    max_pixels: Annotated[int, typer.Option(help="Most pixels of an image, by its header.")] = DEFAULT.pixels,
    max_images: Annotated[int, typer.Option(help="Most images of a request.")] = DEFAULT.images,
    max_texts: Annotated[
        int, typer.Option(help="Most texts of a request, labels in all their templates counted.")
    ] = DEFAULT.texts,
    max_text_characters: Annotated[int, typer.Option(help="Most characters of a text.")] = DEFAULT.text_characters,
    max_boxes: Annotated[int, typer.Option(help="Most boxes of an image.")] = DEFAULT.boxes,
    max_hits: Annotated[int, typer.Option(help="Most hits and candidates of a search.")] = DEFAULT.hits,
    timeout: Annotated[
        float, typer.Option(help="Most seconds until the body of a request is there, and then until its answer.")
    ] = DEFAULT.seconds,
    max_waiting: Annotated[
        int, typer.Option(help="Most texts, images and searches that wait for the model; others are told to come back.")
    ] = DEFAULT.waiting,
    max_held: Annotated[
        int, typer.Option(help="Most bytes of all bodies and fetched images that are held at a time.")
    ] = (DEFAULT.held_bytes),
    max_connections: Annotated[int, typer.Option(help="Most open connections.")] = DEFAULT.connections,
    cached_texts: Annotated[
        int, typer.Option(help="Most texts whose vectors are kept for later requests; 0: none.")
    ] = DEFAULT.cached_texts,
) -> None:
    """Answer programs over HTTP: embeddings in the form of OpenAI's API, regions, labels, search.

    The first requests are `curl localhost:8000/v1/models` and `curl localhost:8000/v1/embeddings -H "Content-Type:
    application/json" -d '{"input": ["一只狗", "a dog"]}'`; the description of all is at /openapi.json.

    Ctrl-C and SIGTERM end it when it has answered what it has accepted.
    """
    budget = common.parse_max_patches(max_patches)
    limits = Limits(
        body_bytes=max_body,
        pixels=max_pixels,
        images=max_images,
        texts=max_texts,
        text_characters=max_text_characters,
        boxes=max_boxes,
        hits=max_hits,
        seconds=timeout,
        waiting=max_waiting,
        held_bytes=max_held,
        connections=max_connections,
        cached_texts=cached_texts,
    )
    require("fastapi", "serve")
    require("uvicorn", "serve")
    require("prometheus_client", "serve")
    from ..serving.server import ServiceSettings, run_service

    settings = ServiceSettings(
        host=host,
        port=port,
        workers=workers,
        model=model,
        device=common.split_devices(device),
        backend=backend,
        precision=precision,
        name=name,
        calibration=calibration,
        max_num_patches=budget,
        batch_size=batch_size,
        threads=threads,
        folder=folder,
        index_folder=index,
        prefixes=tuple(allow_url or ()),
        keys_file=keys_file,
        without_keys=without_keys,
        limits=limits,
    )
    with common.kept_when_interrupted("what was accepted is answered"):
        run_service(settings)
