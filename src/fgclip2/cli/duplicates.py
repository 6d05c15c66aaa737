"""`fgclip2 duplicates`: list the near-duplicates of an image folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import printable
from . import common
from .html import Html, check_html, write_page
from .index import describe, report
from .index_options import CompareContents, Folder, FollowLinks, IndexFolder, NoUpdate

if TYPE_CHECKING:
    from ..search import Duplicate

EXAMPLES = """
fgclip2 duplicates photos
fgclip2 duplicates 照片 --threshold 0.98 --html 重复.html
fgclip2 duplicates photos --no-update --json
"""


def duplicates(
    folder: Folder,
    threshold: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Lowest cosine of an image with the largest file of its group.")
    ] = 0.95,
    html: Html = None,
    index: IndexFolder = None,
    no_update: NoUpdate = False,
    follow_links: FollowLinks = False,
    compare_contents: CompareContents = False,
    max_patches: common.MaxPatches = None,
    max_pixels: common.MaxPixels = None,
    batch_size: common.BatchSize = 32,
    model: common.Model = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
) -> None:
    """List the near-duplicates of a folder of images.

    Nothing is deleted or changed. The folder is indexed first, as by `fgclip2 index`. A group is of a file and those
    whose cosine with it is at least --threshold: the largest file comes first, then the others with their cosines, the
    most similar first. Files of a group need not be near-duplicates of each other, but each is one of the first. Models
    differ in what a cosine means: look at some groups (--html shows them) before you rely on a threshold.
    """
    budget = common.parse_max_patches(max_patches)
    if no_update and compare_contents:
        raise typer.BadParameter("leave it out, or --compare-contents", param_hint="--no-update")
    check_html(html)
    from ..search import ImageIndex, find_duplicates

    if no_update:
        searched = ImageIndex.load(folder, index, follow_links)
    else:
        embedder = common.load_embedder(model, device, max_pixels=max_pixels)
        options = (budget, batch_size, False, None, follow_links, compare_contents)
        searched = ImageIndex.build(folder, embedder, index, *options)
        report(searched, folder, index)

    def said_of(image: Duplicate) -> dict[str, Any]:
        path = folder / image.path.relative_to(searched.folder)
        return {"path": str(path), "id": image.id, "bytes": image.size, "score": image.score}

    groups = [
        {"images": [said_of(group.best), *map(said_of, group.others)]} for group in find_duplicates(searched, threshold)
    ]
    if html is not None:
        results = [{"query": f"{number}.", "hits": group["images"]} for number, group in enumerate(groups, 1)]
        write_page(html, ("Near-duplicates", "近似重复的图像"), results, max_pixels, searched)
    if as_json:
        common.print_json(
            {"folder": str(folder), "index": describe(searched), "threshold": threshold, "groups": groups}
        )
        return
    for number, group in enumerate(groups, 1):
        typer.echo(f"{number}.")
        for image in group["images"]:
            typer.echo(f"  {image['score']:.4f}  {image['bytes']:>12,}  {printable(image['path'])}")
    count = sum(len(group["images"]) - 1 for group in groups)
    typer.echo(f"{count} near-duplicates in {len(groups)} groups at a cosine of {threshold:g}", err=True)
