"""The option `--html` of commands that list images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import printable, replacing
from . import common

if TYPE_CHECKING:
    from PIL import Image

    from ..search import ImageIndex

Html = Annotated[
    Path | None,
    typer.Option(help="File for a page of the results with small pictures, which needs no other file and no network."),
]


def check_html(html: Path | None) -> None:
    """Refuse a page that could not be written, before the work."""
    if html is not None:
        if html.suffix.lower() not in (".html", ".htm"):
            raise typer.BadParameter(f"must end with .html, got {printable(html)!r}", param_hint="--html")
        common.check_output(html)


def write_page(
    html: Path,
    title: tuple[str, str],
    results: Sequence[dict[str, Any]],
    max_pixels: int | None,
    index: ImageIndex,
) -> None:
    """Write the results of a command as a page, and say where on stderr.

    Args:
        html: The file, which is replaced.
        title: In English and in Chinese.
        results: See [`sections_of_results`].
        max_pixels: Images of more pixels have no picture; `None`: Pillow's limit.
        index: Gives the images by the ids of the hits.
    """
    from ..modeling.inputs import MAX_PIXELS
    from ..search.html import render_results, sections_of_results

    def load(hit: dict[str, Any]) -> Image.Image:
        return picture_of_hit(hit, index, max_pixels or MAX_PIXELS)

    sections = sections_of_results(results, load)
    with replacing(html) as unfinished:
        unfinished.write_text(render_results(title, sections), encoding="utf-8", errors="backslashreplace")
    typer.echo(f"page: {printable(html)}", err=True)


def picture_of_hit(hit: dict[str, Any], index: ImageIndex, max_pixels: int) -> Image.Image:
    """Return the image of a hit, or the best frame of a stretch of a video, upright and RGB.

    Raises:
        ValueError, OSError: It can't be read any more, or has more than `max_pixels`.
    """
    from ..embedding.inputs import load_input
    from ..search.video import read_frame

    if "time" in hit:
        return read_frame(Path(hit["path"]), hit["time"], max_pixels)
    try:
        return load_input(0, index.image(hit["id"]), max_pixels)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("images[0]: ")) from error
