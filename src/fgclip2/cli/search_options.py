"""Options of `fgclip2 search` that say how it searches, and what does not go together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..files import check_writable, printable

Rerank = Annotated[
    str | None,
    typer.Option(
        help="Put the first hits of texts in a new order: phrases looks for each phrase in the images, model compares "
        "the pairs as R2D2, or FG-CLIP 2 with a ranking stage, was trained to."
    ),
]
Candidates = Annotated[
    int | None, typer.Option(min=1, help="Number of first hits that --rerank looks at.  [default: 20]")
]
Explain = Annotated[
    Path | None,
    typer.Option(help="Folder for a picture of each hit of --rerank phrases, with their boxes; made if it is missing."),
]
Approximate = Annotated[
    bool,
    typer.Option(
        "--approximate",
        help="Compare few of the images, by a cache that `fgclip2 index --cache hnsw` has made: for large indexes.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        help='Condition in SQL on metadata that hits must fulfil, such as "year > 2020"; texts stand in single quotes.'
    ),
]
SearchedRegions = Annotated[
    str | None,
    typer.Option(
        "--regions",
        help="Search the regions of the index (fgclip2 index --regions), with texts as region phrases: best finds the "
        "best region of each image, all each region.",
    ),
]


def check_reranking(
    folder: Path, kinds: Sequence[str], rerank: str | None, candidates: int | None, explain: Path | None
) -> None:
    """Refuse options of re-ranking that don't go together, and pictures that can't be kept.

    Args:
        folder: The searched one, in which no pictures may be kept.
        kinds: Of the queries, see [`read_queries`].
        rerank, candidates, explain: The options.
    """
    if rerank not in (None, "phrases", "model"):
        raise typer.BadParameter(f"must be phrases or model, got {rerank!r}", param_hint="--rerank")
    if rerank and "text" not in kinds:
        raise typer.BadParameter(
            "needs a text: searches by images and by combined queries are not re-ranked", param_hint="--rerank"
        )
    if candidates and not rerank:
        raise typer.BadParameter("works with --rerank", param_hint="--candidates")
    if explain is None:
        return
    if rerank != "phrases":
        raise typer.BadParameter("needs --rerank phrases, whose hits it shows", param_hint="--explain")
    if explain.resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"--explain {printable(explain)} lies in the searched folder, whose pictures would be searched next "
            "time: give a folder outside it"
        )
    check_writable(explain)  # now rather than after the work


def check_regions(regions: str | None, rerank: str | None, images: Sequence[Path], approximate: bool) -> None:
    """Refuse a search of regions that does not go together with the other options."""
    if regions not in (None, "best", "all"):
        raise typer.BadParameter(f"must be best or all, got {regions!r}", param_hint="--regions")
    if regions and rerank:
        raise typer.BadParameter("leave out --rerank, which orders whole images", param_hint="--regions")
    if regions and approximate:
        raise typer.BadParameter("leave it out: all regions are compared", param_hint="--approximate")
    if regions and images:
        raise typer.BadParameter("leave out --image: regions are searched by texts", param_hint="--regions")
