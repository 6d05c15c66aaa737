"""`fgclip2 embed`: write vectors of images or texts to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .._imports import require
from ..checks import check_choice, one_of
from . import bulk_options, common

SUFFIXES = (".npy", ".npz", ".safetensors", ".jsonl", ".parquet")

EXAMPLES = """
fgclip2 embed photos --output images.npz
fgclip2 embed photos dog.png --output images.npy --skip-errors
fgclip2 embed 照片 狗.png --output 图像.parquet
fgclip2 embed --text "a dog" --text "一只狗" --output -
fgclip2 embed tables --engine local --image-column picture --output vectors
fgclip2 embed 表格 --engine local --kind text --text-column 标题 --output 向量
"""


def embed(
    context: typer.Context,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .npz, .npy, .safetensors, .jsonl or .parquet (with the extra parquet), or - for JSONL "
            "on stdout. With --engine a new folder, or one that such a run began; also an address, e.g. s3://…",
        ),
    ],
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Image files, and folders of images. With --engine one folder of images, of .parquet files or of "
            ".tar shards, or one such file; also an address, e.g. s3://…"
        ),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="Text to embed instead of images; may be repeated.")] = None,
    texts_file: Annotated[
        Path | None, typer.Option(help="UTF-8 file with one text on each line, or - for stdin.")
    ] = None,
    walk_type: Annotated[
        str, typer.Option(help="Text head: auto, short, long, or box (to compare with regions).")
    ] = "auto",
    max_patches: common.MaxPatches = None,
    max_pixels: common.MaxPixels = None,
    batch_size: common.BatchSize = 32,
    skip_errors: common.SkipErrors = False,
    model: common.Model = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
    engine: bulk_options.Engine = None,
    kind: bulk_options.Kind = "image",
    id_column: bulk_options.IdColumn = "id",
    image_column: bulk_options.ImageColumn = "image",
    text_column: bulk_options.TextColumn = "text",
    boxes_column: bulk_options.BoxesColumn = "boxes",
    images_folder: bulk_options.ImagesFolder = None,
    backend: bulk_options.Backend = "torch",
    precision: bulk_options.Precision = None,
    dtype: bulk_options.Dtype = None,
    workers: bulk_options.Workers = None,
    cpus_per_worker: bulk_options.CpusPerWorker = 4,
    rows_per_file: bulk_options.RowsPerFile = 1024,
    address: bulk_options.Address = None,
    object_store: bulk_options.ObjectStore = 1024,
) -> None:
    """Write vectors of images or texts to a file.

    The vectors are L2-normalised float32, in the order of the inputs. The inputs stand beside them: in .npz the array
    `names` beside `embeddings`, in a safetensors file the metadata `names`, as JSON, beside `embeddings`, in .jsonl and
    .parquet `image` or `text` beside `embedding` in each row. A .npy file has vectors only.

    Images in folders that can't be used are left out and reported, as search does; files that you name are an error.
    The work is kept in OUTPUT.parts while it lasts, and a run that was ended goes on when it is started again.

    With --engine, all cores and accelerators embed the rows of a large input. OUTPUT then is a folder with the tables
    `vectors` (id, embedding) and `errors` (id, error), in which each row is exactly once, however often the run is
    ended and started again (extra parquet, or ray).
    """
    bulk_options.check_used(context, engine)
    budget = common.parse_max_patches(max_patches)
    if engine is None:
        files = [common.given_path(Path(image)) for image in images or []]
        target = common.given_path(Path(output))
        options = (walk_type, budget, max_pixels, batch_size, skip_errors, model, device, as_json)
        _embed_to_file(target, files, text, texts_file, *options)
        return
    if text or texts_file or len(images or []) != 1:
        raise typer.BadParameter("give one folder, file or address with --engine", param_hint="images")
    (place,) = images or []
    settings = {
        **{"kind": kind, "model": model, "backend": backend, "precision": precision, "dtype": dtype},
        **{"max_num_patches": budget, "max_pixels": max_pixels, "walk_type": walk_type, "batch_size": batch_size},
        **{"id_column": id_column, "image_column": image_column, "text_column": text_column},
        **{"boxes_column": boxes_column, "images_folder": images_folder},
    }
    running = {
        **{"workers": workers, "cpus_per_worker": cpus_per_worker, "rows_per_file": rows_per_file},
        **{"address": address, "object_store_mebibytes": object_store},
    }
    bulk_options.run(place, output, engine, settings, device, as_json, **running)


def _embed_to_file(
    output: Path,
    images: list[Path],
    text: list[str] | None,
    texts_file: Path | None,
    walk_type: str,
    budget: int | str | None,
    max_pixels: int | None,
    batch_size: int,
    skip_errors: bool,
    model: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Embed what one process embeds, see [`embed`]."""
    _check_usage(images, text, texts_file, output, as_json)
    to_stdout = str(output) == "-"
    from ..embedding import parts as parts_of_work
    from ..embedding.fgclip2 import ROLE_OF_WALK
    from ..embedding.vector_files import json_lines, write_vectors

    check_choice("--walk-type", walk_type, ROLE_OF_WALK)
    role = ROLE_OF_WALK[walk_type]
    texts = text or (common.read_lines(texts_file) if texts_file else [])
    for one in texts:
        if not one.strip():
            raise ValueError(f"the text {one!r} is empty: give what to embed, or leave it out")
    if texts_file and not texts:
        raise ValueError(f"{texts_file} has no texts: put one on each line")
    files, refused = list_images(images)
    names: Sequence[Any] = files if images else texts
    keys = [*map(parts_of_work.file_key, files)] if images else [*map(parts_of_work.text_key, texts)]
    embedder = common.load_embedder(model, device, max_pixels=max_pixels)
    facts = {"kind": "image" if images else "text", "model": embedder.name, "fingerprint": embedder.fingerprint}
    settings = {"dtype": str(embedder.dtype), "max_num_patches": budget, "role": role}
    origin = {"kind": facts["kind"], "fingerprint": embedder.fingerprint, **settings}
    parts = parts_of_work.VectorParts(None if to_stdout else output.with_name(f"{output.name}.parts"), origin)
    if done := sum(key in parts.rows for key in keys):
        typer.echo(f"{done} of {len(keys)} vectors are there from a run that was ended, in {parts.folder}", err=True)
    kept = "nothing was written" if to_stdout else f"what is done stays in {parts.folder}; the same command goes on"
    reasons: dict[str, str] = {}
    with common.kept_when_interrupted(kept), parts:
        if images:
            on_error = "skip" if skip_errors or any(path.is_dir() for path in images) else "raise"
            paths = dict(zip(keys, files, strict=True))
            reasons = parts_of_work.add_images(parts, paths, embedder, budget, batch_size, on_error)
        else:
            parts_of_work.add_texts(parts, texts, embedder, role, batch_size)
    failed = [(name, reasons[key]) for name, key in zip(names, keys, strict=True) if key in reasons]
    for file, reason in failed:
        if file in images and not skip_errors:
            others = "" if to_stdout else f"; the vectors of the others stay in {parts.folder} for the next run"
            raise ValueError(f"{reason}: mend it, leave it out or pass --skip-errors{others}")
    left_out = common.report_skipped([*refused, *failed])
    used = [(str(name), parts.rows[key]) for name, key in zip(names, keys, strict=True) if key not in reasons]
    if not used:
        raise ValueError(f"none of {len(left_out)} images can be used")
    used_names, vectors = zip(*used, strict=True)
    if to_stdout:
        for line in json_lines(facts["kind"], used_names, vectors):
            typer.echo(line)
    else:
        write_vectors(output, used_names, vectors, facts)
        parts.remove()
    size = embedder.embedding_size
    if as_json:
        summary = {"model": embedder.name, "output": str(output), "count": len(used), "embedding_size": size}
        common.print_json({**summary, "skipped": left_out})
    else:
        typer.echo(f"{len(used)} vectors of length {size} in {output}", err=to_stdout)
    if left_out and output.suffix == ".npy":
        typer.echo(f"{output} doesn't say which image a vector is of; an .npz file has the names beside them", err=True)


def _check_usage(
    images: list[Path], text: list[str] | None, texts_file: Path | None, output: Path, as_json: bool
) -> None:
    """Raise what is wrong with the arguments, now rather than after the work."""
    if sum(map(bool, (images, text, texts_file))) != 1:
        raise typer.BadParameter("give either image files, --text or --texts-file", param_hint="images")
    if str(output) == "-":
        if as_json:
            raise typer.BadParameter("leave it out, it would mix with the JSONL of --output -", param_hint="--json")
        return
    if output.suffix not in SUFFIXES:
        raise typer.BadParameter(f"must be a file {one_of(SUFFIXES)}, or -, got {output}", param_hint="--output")
    if output.suffix == ".parquet":
        require("pyarrow", "parquet")
    common.check_output(output)


def list_images(paths: Sequence[Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return image files, folders being replaced by the images in them, and what in these can't be used, and why."""
    from ..search.scan import scan_folder

    expanded: list[Path] = []
    refused: list[tuple[Path, str]] = []
    for path in paths:
        if not path.is_dir():
            expanded.append(path)
            continue
        found = scan_folder(path.resolve())
        refused += [(path / name, reason) for name, reason in found.unusable]
        expanded += [path / file.path for file in found.images]
    if paths and not expanded:
        raise ValueError(f"there are no images in {', '.join(map(str, paths))}")
    return expanded, refused
