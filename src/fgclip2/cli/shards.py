"""`fgclip2 data shards`: write records as tar shards."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common
from .data import (
    FORMAT_HELP,
    FollowLinks,
    ImageColumn,
    LabelColumn,
    LanguageColumn,
    LongCaptionColumn,
    ShortCaptionColumn,
    check_images_folder,
    checked_format,
)

if TYPE_CHECKING:
    from ..data.readers import Columns

EXAMPLES = """
fgclip2 data shards FineHARD/jsonfiles shards --images-folder FineHARD/images
fgclip2 data shards pairs.csv 图文对.tsv 分片 --images-folder images --images-folder 图片 --on-error skip
"""
_WORTH_A_PROCESS = 8000  # records, which are written in about the time that a process takes to start
_ONE_FOR_EACH = "May be repeated, one for each source."

_Source = tuple[str, str, str | None, str | None]  # path, format, folder of images, language


def shards(
    sources: Annotated[list[str], typer.Argument(help="Files or folders of records, which are joined.")],
    output: Annotated[Path, typer.Argument(help="Folder of the shards: new, empty, or begun by the same command.")],
    format: Annotated[
        list[str] | None, typer.Option(help=f"{FORMAT_HELP} {_ONE_FOR_EACH}  [default: as the files look]")
    ] = None,
    images_folder: Annotated[
        list[Path] | None,
        typer.Option(help=f"Folder with the images. {_ONE_FOR_EACH}  [default: that of the records]"),
    ] = None,
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Number of records of each shard.")] = 1000,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Number of processes that write.  [default: one for each {_WORTH_A_PROCESS} records, and core]"
        ),
    ] = None,
    on_error: Annotated[
        str,
        typer.Option(
            help="raise: stop at what is wrong with a record. skip: leave it out, and list it in left_out.jsonl."
        ),
    ] = "raise",
    image_column: ImageColumn = None,
    short_caption_column: ShortCaptionColumn = None,
    long_caption_column: LongCaptionColumn = None,
    language_column: LanguageColumn = None,
    label_column: LabelColumn = None,
    language: Annotated[
        list[str] | None,
        typer.Option(help=f"Language of all records, en or zh. {_ONE_FOR_EACH}  [default: that of each, or detected]"),
    ] = None,
    follow_links: FollowLinks = False,
    as_json: common.AsJson = False,
) -> None:
    """Write records as tar shards, by all cores, and go on where a run was killed.

    Images stay as they are, byte for byte; their sizes are beside them. The same command goes on after the shards that
    are whole, and gives the same files as a run that nothing has interrupted, on any number of processes.
    """
    from ..data import concatenate, write_shards
    from ..data.formats import open_records
    from ..data.readers import Columns
    from ..data.shard_writing import ERRORS_NAME

    columns = Columns(image_column, short_caption_column, long_caption_column, language_column, label_column)
    records_of = _check_sources(sources, format, images_folder, language, columns, follow_links)
    start = time.perf_counter()
    dataset = concatenate([open_records(*source, columns, follow_links) for source in records_of])
    origin = _origin(records_of, columns)
    with common.kept_when_interrupted(f"whole shards stay in {output}, and the same command goes on"):
        written = write_shards(
            dataset,
            output,
            samples_per_shard,
            processes or min(os.cpu_count() or 1, -(-len(dataset) // _WORTH_A_PROCESS)),
            on_error,  # type: ignore[arg-type]  # checked there
            origin,
            show_progress_bar=None,
        )
    seconds = time.perf_counter() - start
    records = sum(shard.samples for shard in written)
    left_out = len(dataset) - records
    if as_json:
        result = {"output": str(output), "shards": len(written), "records": records, "left_out": left_out}
        common.print_json({**result, "seconds": seconds})
        return
    typer.echo(f"{records} records in {len(written)} shards in {output}, in {seconds:.1f} s")
    if left_out:
        typer.echo(f"{left_out} records are left out; {output / ERRORS_NAME} says which, and why")


def _check_sources(
    sources: list[str],
    formats: list[str] | None,
    images_folders: list[Path] | None,
    languages: list[str] | None,
    columns: Columns,
    follow_links: bool,
) -> list[_Source]:
    """Return path, format, folder of images and language of each source, if the options go together."""
    from ..data.formats import for_each_source
    from ..data.readers import Columns

    paths = [common.with_home(source) for source in sources]
    formats = [
        checked_format(path, given, follow_links)
        for path, given in zip(paths, for_each_source("--format", formats, len(paths)), strict=True)
    ]
    if columns != Columns() and "pairs" not in formats:
        raise typer.BadParameter(
            f"only the format pairs has columns, got {', '.join(formats)}: leave them out", param_hint="--…-column"
        )
    folders = for_each_source("--images-folder", [str(folder) for folder in images_folders or ()], len(paths))
    for format, folder in zip(formats, folders, strict=True):
        check_images_folder(format, folder)
    return list(zip(paths, formats, folders, for_each_source("--language", languages, len(paths)), strict=True))


def _origin(sources: list[_Source], columns: Columns) -> dict[str, Any]:
    """Return what the records are made of: places, columns, and how large and how new the files are."""
    from ..data.readers.files import SUFFIXES

    paths, formats, folders, _ = zip(*sources, strict=True)
    files = []
    for path in (Path(path) for path in paths if "://" not in path):  # what an address leads to has no time of change
        suffixes = (*SUFFIXES, ".parquet", ".tar")
        found = sorted(file for file in path.iterdir() if file.suffix in suffixes) if path.is_dir() else [path]
        files += [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in found]
    state = hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]
    return {
        "sources": [path if "://" in path else str(Path(path).absolute()) for path in paths],
        "formats": list(formats),
        "images_folders": [folder and str(Path(folder).absolute()) for folder in folders],
        "columns": asdict(columns),
        "files": f"{len(files)} files, of sizes and times of change {state}",
    }
