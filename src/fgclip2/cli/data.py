"""`fgclip2 data`: look after training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import printable
from . import common

if TYPE_CHECKING:
    from ..data.records import RecordDataset
    from ..data.shard_files import Shard
    from ..data.validation import Report

EXAMPLES = """
fgclip2 data validate FineHARD/jsonfiles --images-folder FineHARD/images
fgclip2 data validate pairs.csv --images open --json
fgclip2 data validate 图文对.tsv --images-folder 图片 --image-column 路径 --short-caption-column 描述
"""

# Options of all commands that read records.
FORMAT_HELP = "Format: finehard, fineregion-cn, ccmb, flickr30k-cna, zero, pairs, folder or shards."
ImageColumn = Annotated[
    str | None, typer.Option(help="Column or key of the image, in pairs.  [default: image, else filepath]")
]
ShortCaptionColumn = Annotated[
    str | None,
    typer.Option(help="Column or key of short captions, in pairs.  [default: short_caption, caption, else title]"),
]
LongCaptionColumn = Annotated[
    str | None,
    typer.Option(help="Column or key of long captions, in pairs.  [default: long_caption, else caption]"),
]
LanguageColumn = Annotated[str | None, typer.Option(help="Column or key of languages, in pairs.  [default: language]")]
LabelColumn = Annotated[
    str | None,
    typer.Option(help="Column or key of labels, 1 where image and caption match, else 0, in pairs."),
]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Read what links in the folders lead to outside them too.")
]


def validate(
    path: Annotated[str, typer.Argument(help="File or folder of records, image folder, or tar shards.")],
    format: Annotated[
        str | None,
        typer.Option(help=f"{FORMAT_HELP}  [default: as the files look]"),
    ] = None,
    images_folder: Annotated[
        Path | None, typer.Option(help="Folder with the images.  [default: that of the records]")
    ] = None,
    images: Annotated[
        str,
        typer.Option(
            help="Check of the images: none (no check), exists (they must be there) or open (they are decoded)."
        ),
    ] = "exists",
    image_column: ImageColumn = None,
    short_caption_column: ShortCaptionColumn = None,
    long_caption_column: LongCaptionColumn = None,
    language_column: LanguageColumn = None,
    label_column: LabelColumn = None,
    language: Annotated[
        str | None, typer.Option(help="Language of all records, en or zh.  [default: that of each, or detected]")
    ] = None,
    follow_links: FollowLinks = False,
    show: Annotated[int, typer.Option(min=0, help="Number of problems to list; --json lists all.")] = 20,
    threads: Annotated[int, typer.Option(min=1, help="Number of threads that read and decode.")] = 8,
    as_json: common.AsJson = False,
) -> None:
    """Read a data set whole and list what is wrong with it.

    It also counts what the data set holds. The exit code is 1 if anything is wrong.
    """
    from ..data import validation
    from ..data.formats import open_records
    from ..data.readers import Columns
    from ..data.shard_files import list_shards

    path = common.with_home(path)
    format = checked_format(path, format, follow_links)
    columns = Columns(image_column, short_caption_column, long_caption_column, language_column, label_column)
    if columns != Columns() and format != "pairs":
        raise typer.BadParameter(
            f"only the format pairs has columns, and this is {format}: leave them out", param_hint="--…-column"
        )
    check_images_folder(format, images_folder)
    dataset: RecordDataset | list[Shard]
    if format == "shards":
        dataset = list_shards(path, count=False, follow_links=follow_links)
    else:
        dataset = open_records(path, format, images_folder, language, columns, follow_links)
    report = validation.validate(dataset, images, threads, language=language)  # type: ignore[arg-type]  # checked there
    if as_json:
        common.print_json({"path": path, "format": format, "images": images, **report.as_dict()})
    else:
        _print(report, show)
    if report.problems:
        raise ValueError(
            f"{path} has {len(report.problems)} problems, in {report.unusable} of {report.records} records: mend them, "
            "or train with on_error='skip', which leaves such records out"
        )


def checked_format(path: str, format: str | None, follow_links: bool) -> str:
    """Return a format that is one, or as the files look, which is said on stderr."""
    from ..checks import one_of
    from ..data.formats import FORMATS
    from ..data.validation import guess_format

    if format is None:
        format, reason = guess_format(path, follow_links)
        typer.echo(f"format: {format} (by {reason})", err=True)
    if format not in FORMATS:
        raise typer.BadParameter(f"must be {one_of(FORMATS)}, got {format!r}", param_hint="--format")
    return format


def check_images_folder(format: str, images_folder: str | Path | None) -> None:
    """Raise if a folder of images is given for a format that has its images in itself."""
    from ..data.formats import WITH_IMAGES

    if images_folder is not None and format in WITH_IMAGES:
        raise typer.BadParameter(
            f"the format {format} has its images in itself, got {images_folder}: leave it out",
            param_hint="--images-folder",
        )


def _print(report: Report, show: int) -> None:
    languages = ", ".join(f"{language} {count}" for language, count in report.languages.items())
    rows: list[tuple[str, Any]] = [
        ("records", report.records),
        ("  languages", languages),
        ("  with short captions", report.short_captions),
        ("  with long captions", report.long_captions),
        ("  with regions", report.with_regions),
        ("  of an image that occurs before", report.repeated_images),
        ("regions", report.regions),
        ("  with long texts", report.long_region_texts),
        ("  with hard negatives", report.regions_with_hard_negatives),
        ("hard negatives", report.hard_negatives),
        ("problems", len(report.problems)),
        *((f"  {field}", count) for field, count in report.problems_by_field.items()),
    ]
    for name, value in rows:
        typer.echo(f"{name:<36}{value}")
    for problem in report.problems[:show]:
        typer.echo(printable(str(problem)))
    if len(report.problems) > show:
        typer.echo(f"… and {len(report.problems) - show} more (--json has all, --show N lists N)")
