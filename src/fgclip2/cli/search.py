"""`fgclip2 search`: search a folder of images by text or image."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common

if TYPE_CHECKING:
    from ..search import ImageIndex

UNUSABLE_SHOWN = 5

EXAMPLES = """
fgclip2 search photos "a dog on the beach" --top-k 5
fgclip2 search 照片 "海滩上的狗" "红苹果"
fgclip2 search 照片 --image 狗.png
"""


def search(
    folder: Annotated[Path, typer.Argument(help="Folder of images, with its subfolders.")],
    queries: Annotated[
        list[str] | None, typer.Argument(help="Texts to search by; without any, the index is only brought up to date.")
    ] = None,
    image: Annotated[list[Path] | None, typer.Option(help="Image to search by; may be repeated.")] = None,
    top_k: common.TopK = 10,
    index: Annotated[
        Path | None, typer.Option(help="Folder that the index is kept in.  [default: FOLDER/.fgclip2_index]")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the index anew instead of bringing it up to date.")
    ] = False,
    max_patches: common.MaxPatches = None,
    batch_size: common.BatchSize = 32,
    model: common.Model = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
) -> None:
    """Search a folder of images by texts or images.

    The folder is indexed first; the index is kept, and later only new and changed files are embedded. The score of a
    hit is its cosine with the query.
    """
    budget = common.parse_max_patches(max_patches)
    from ..search import ImageIndex

    embedder = common.load_embedder(model, device)
    built = ImageIndex.build(folder, embedder, index, budget, batch_size, rebuild)
    if built.report is not None:
        report = built.report
        typer.echo(
            f"{len(built)} images: {report.added} new, {report.updated} changed, {report.removed} removed, "
            f"{report.unusable} not usable",
            err=True,
        )
        for path, reason in built.unusable[:UNUSABLE_SHOWN]:
            typer.echo(f"  {path}: {reason}", err=True)
        if len(built.unusable) > UNUSABLE_SHOWN:
            typer.echo(f"  and {len(built.unusable) - UNUSABLE_SHOWN} more (--json lists all)", err=True)
    texts, images = queries or [], image or []
    results = [
        *_results(built, folder, "text", texts, built.search(texts, embedder, top_k) if texts else []),
        *_results(built, folder, "image", images, built.search(images, embedder, top_k) if images else []),
    ]
    if as_json:
        counts = {"images": len(built), **asdict(built.report)} if built.report else {}
        unusable = [file._asdict() for file in built.unusable]
        state = {**counts, "unusable": unusable}
        common.print_json({"model": embedder.name, "folder": str(folder), "index": state, "results": results})
        return
    for result in results:
        typer.echo(result["query"])
        for hit in result["hits"]:
            typer.echo(f"  {hit['score']:.4f}  {hit['path']}")


def _results(
    index: ImageIndex, folder: Path, kind: str, queries: list[Any], hits: list[list[Any]]
) -> list[dict[str, Any]]:
    """Return the hits of each query, with paths below the folder as the user named it."""
    return [
        {
            "kind": kind,
            "query": str(query),
            "hits": [{"path": str(folder / hit.path.relative_to(index.folder)), "score": hit.score} for hit in found],
        }
        for query, found in zip(queries, hits, strict=True)
    ]
