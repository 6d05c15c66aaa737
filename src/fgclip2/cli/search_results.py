"""What `fgclip2 search` says of its hits: as JSON, as lines, and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..files import printable, replacing
from . import common
from .html import picture_of_hit

if TYPE_CHECKING:
    from ..search import ImageIndex, VideoIndex


def image_hits(folder: Path, images: ImageIndex, hits: Sequence[Any]) -> list[dict[str, Any]]:
    """Return found images for the output, with paths below the folder as the user named it."""
    return [
        {
            "path": str(folder / hit.path.relative_to(images.folder)),
            "id": hit.id,
            "score": hit.score,
            "probability": hit.probability,
            **_details(hit),
        }
        for hit in hits
    ]


def video_hits(folder: Path, videos: VideoIndex, hits: Sequence[Any]) -> list[dict[str, Any]]:
    """Return found stretches of videos for the output, with paths below the folder as the user named it."""
    return [
        {
            "path": str(folder / hit.path.relative_to(videos.folder)),
            "score": hit.score,
            "time": hit.time,
            "start": hit.start,
            "end": hit.end,
            **_details(hit),
        }
        for hit in hits
    ]


def _details(hit: Any) -> dict[str, Any]:
    """Return what not every hit has: metadata, the box of a region, and what re-ranking has found."""
    from ..search import RerankedSearchHit, RerankedVideoHit

    details: dict[str, Any] = {"metadata": hit.metadata} if hit.metadata else {}
    if isinstance(hit, (RerankedSearchHit, RerankedVideoHit)):
        return {**details, "reranked": hit.reranked, "phrases": [match._asdict() for match in hit.phrases]}
    return {**details, "box": list(hit.box)} if hit.box else details


def print_results(results: Sequence[dict[str, Any]], least: float) -> None:
    """Print a line for each hit, below its query.

    Args:
        results: Each with `query`, `hits` and maybe `videos`.
        least: The least probability of a match.
    """
    for result in results:
        typer.echo(printable(result["query"]))
        for hit in result["hits"]:
            _print_hit(hit)
        if result.get("nothing_matches"):
            found = "region" if "box" in result["hits"][0] else "image"
            typer.echo(f"  nothing here matches: no {found} has a probability of {least:g}")
        for hit in result.get("videos", []):
            _print_hit(hit)


def _print_hit(hit: dict[str, Any]) -> None:
    from ..search.frames import clock

    new_score = f"{hit['reranked']:.4f}  " if "reranked" in hit else ""
    stretch = f"  {clock(hit['start'])} - {clock(hit['end'])}" if "start" in hit else ""
    region = f"  [{_edges(hit['box'])}]" if "box" in hit else ""
    place = f"{printable(hit['path'])}{stretch}{region}"
    typer.echo(f"  {new_score}{hit['score']:.4f}  {common.probability_column(hit)}{place}")
    for phrase in hit.get("phrases", ()):
        typer.echo(f"    {phrase['cosine']:.4f}  [{_edges(phrase['box'])}]  {printable(phrase['text'])}")
    if "picture" in hit:
        typer.echo(f"    {printable(hit['picture'])}")


def _edges(box: Sequence[float]) -> str:
    return ", ".join(f"{edge:.0f}" for edge in box)


def draw_hits(folder: Path, results: Sequence[dict[str, Any]], index: ImageIndex, max_pixels: int) -> None:
    """Write a picture of each re-ranked hit, and add its path to the hit as `picture`.

    One that can't be read any more, or can't be written, is told of on stderr; the others are drawn.
    """
    from ..embedding import PhraseMatch
    from ..visualization import overlay_phrases

    for number, result in enumerate(results, 1):
        for place, hit in enumerate([*result["hits"], *result.get("videos", [])], 1):
            if "phrases" not in hit:  # of a search by an image
                continue
            output = folder / f"{number}-{place:02}-{Path(hit['path']).stem}.png"
            try:
                phrases = [PhraseMatch(**phrase) for phrase in hit["phrases"]]
                picture = overlay_phrases(picture_of_hit(hit, index, max_pixels), phrases)
                folder.mkdir(parents=True, exist_ok=True)
                with replacing(output) as unfinished:
                    picture.save(unfinished, "PNG")
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error).removeprefix(f"{hit['path']}: ")
                typer.echo(f"{printable(hit['path'])} is not drawn: {printable(reason)}", err=True)
            else:
                hit["picture"] = str(output)
