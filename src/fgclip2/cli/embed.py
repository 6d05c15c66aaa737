"""`fgclip2 embed`: write vectors of images or texts to a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..checks import check_choice, one_of
from ..files import replacing
from . import common

if TYPE_CHECKING:
    import numpy as np

    from ..embedding import Embedder

SUFFIXES = (".npy", ".safetensors", ".jsonl")

EXAMPLES = """
fgclip2 embed photos dog.png --output images.npy
fgclip2 embed 照片 狗.png --output 图像.safetensors --skip-errors
fgclip2 embed --text "a dog" --text "一只狗" --output -
"""


def embed(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="File to write: .npy, .safetensors, .jsonl, or - for JSONL on stdout."),
    ],
    images: Annotated[list[Path] | None, typer.Argument(help="Image files, and folders of images.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Text to embed instead of images; may be repeated.")] = None,
    texts_file: Annotated[
        Path | None, typer.Option(help="UTF-8 file with one text on each line, or - for stdin.")
    ] = None,
    walk_type: Annotated[
        str, typer.Option(help="Text head: auto, short, long, or box (to compare with regions).")
    ] = "auto",
    max_patches: common.MaxPatches = None,
    batch_size: common.BatchSize = 32,
    skip_errors: common.SkipErrors = False,
    model: common.Model = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
) -> None:
    """Write vectors of images or texts to a file.

    The vectors are L2-normalised float32, in the order of the inputs. A safetensors file has the tensor `embeddings`,
    and the inputs as JSON in the metadata `names`. A line of JSONL has `image` or `text`, and `embedding`.
    """
    if sum(map(bool, (images, text, texts_file))) != 1:
        raise typer.BadParameter("give either image files, --text or --texts-file", param_hint="images")
    to_stdout = str(output) == "-"
    if not to_stdout and output.suffix not in SUFFIXES:
        raise typer.BadParameter(f"must be a file {one_of(SUFFIXES)}, or -, got {output}", param_hint="--output")
    if to_stdout and as_json:
        raise typer.BadParameter("leave it out, it would mix with the JSONL of --output -", param_hint="--json")
    if not to_stdout and not output.resolve().parent.is_dir():
        raise ValueError(f"{output}: there is no folder {output.parent}")  # now rather than after the work
    budget = common.parse_max_patches(max_patches)
    from ..embedding.fgclip2 import ROLE_OF_WALK

    check_choice("--walk-type", walk_type, ROLE_OF_WALK)
    role = ROLE_OF_WALK[walk_type]
    texts = text or (common.read_lines(texts_file) if texts_file else [])
    inputs: Sequence[Any] = texts if not images else list_images(images)
    embedder = common.load_embedder(model, device)
    skipped: list[Any] = []
    if images and skip_errors:
        vectors, skipped = embedder.encode_images(inputs, budget, batch_size, on_error="skip")
    elif images:
        vectors = embedder.encode_images(inputs, budget, batch_size)
    else:
        vectors = embedder.encode_texts(inputs, role=role, batch_size=batch_size)
    left_out = common.report_skipped(inputs, skipped)
    indices = {index for index, _ in skipped}
    names = [str(name) for index, name in enumerate(inputs) if index not in indices]
    write_vectors(output, "image" if images else "text", names, vectors, embedder)
    summary = {"model": embedder.name, "output": str(output), "count": len(names), "embedding_size": vectors.shape[1]}
    if as_json:
        common.print_json({**summary, "skipped": left_out})
    else:
        typer.echo(f"{len(names)} vectors of length {vectors.shape[1]} in {output}", err=to_stdout)


def list_images(paths: Sequence[Path]) -> list[Path]:
    """Return image files, with folders replaced by the images in them."""
    from ..search.scan import scan_folder

    expanded: list[Path] = []
    for path in paths:
        if not path.is_dir():
            expanded.append(path)
            continue
        found, unusable, _ = scan_folder(path.resolve())
        for name, reason in unusable:
            typer.echo(f"skipped {path / name}: {reason}", err=True)
        expanded += [path / file.path for file in found]
    if not expanded:
        raise ValueError(f"there are no images in {', '.join(map(str, paths))}")
    return expanded


def write_vectors(output: Path, kind: str, names: list[str], vectors: np.ndarray, embedder: Embedder) -> None:
    """Write vectors to a file in the format of its suffix, or to stdout for `-`."""
    lines = (
        json.dumps({kind: name, "embedding": vector.tolist()}, ensure_ascii=False)
        for name, vector in zip(names, vectors, strict=True)
    )
    if str(output) == "-":
        for line in lines:
            typer.echo(line)
        return
    with replacing(output) as unfinished:
        if output.suffix == ".npy":
            import numpy as np

            with unfinished.open("wb") as file:
                np.save(file, vectors)
        elif output.suffix == ".safetensors":
            from safetensors.numpy import save_file

            facts = {"model": embedder.name, "fingerprint": embedder.fingerprint}
            save_file({"embeddings": vectors}, unfinished, {"kind": kind, "names": json.dumps(names), **facts})
        else:
            with unfinished.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(f"{line}\n" for line in lines)
