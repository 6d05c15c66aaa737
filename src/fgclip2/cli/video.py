"""The videos of a folder in `fgclip2 index` and `fgclip2 search`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import printable

if TYPE_CHECKING:
    from ..embedding import Embedder
    from ..search import VideoHit, VideoIndex

Video = Annotated[
    str | None,
    typer.Option(
        metavar="scenes|SECONDS|none",
        help="Index videos too, by a frame where the picture changes (scenes) or every so many seconds; none removes "
        "them from the index.  [default: as the index has them]",
    ),
]


def parse_sampling(value: str | None) -> str | float | None:
    """Return how frames are sampled as [`VideoIndex.build`] takes it, or `"none"`."""
    if value in (None, "scenes", "none"):
        return value
    from ..search.video import check_sampling

    try:
        seconds = float(value or "")
        check_sampling(seconds)
    except ValueError as error:
        message = f"must be scenes, none or seconds from 0.01 on, got {value!r}"
        raise typer.BadParameter(message, param_hint="--video") from error
    return seconds


def describe_videos(videos: VideoIndex | None) -> dict[str, Any]:
    """Return the state of an index of videos for the JSON output, to go beside that of the images; empty without."""
    if videos is None:
        return {}
    counts = asdict(videos.report) if videos.report else {}
    unusable = [file._asdict() for file in videos.unusable]
    numbers = {"videos": videos.video_count, "frames": len(videos), "sampling": videos.sampling}
    return {"video": {**numbers, **counts, "unusable": unusable}}


def update_videos(
    folder: Path,
    embedder: Embedder,
    sampling: str | float | None,
    index_folder: Path | None,
    max_num_patches: int | str | None,
    batch_size: int,
    rebuild: bool,
    follow_links: bool,
) -> VideoIndex | None:
    """Bring the index of the videos up to date, make it or remove it, and say so on stderr; `None` where there is none.

    Args:
        sampling: What [`parse_sampling`] returns.
        folder, embedder, index_folder, max_num_patches, batch_size, rebuild, follow_links: See [`VideoIndex.build`].
    """
    from ..search import VideoIndex

    if sampling == "none":
        VideoIndex.remove(folder, index_folder, follow_links)
        return None
    if sampling is None and not VideoIndex.exists(folder, index_folder, follow_links):
        return None
    options = (max_num_patches, batch_size, rebuild, None, follow_links)
    videos = VideoIndex.build(folder, embedder, sampling, index_folder, *options)
    done = videos.report
    if done is not None:
        typer.echo(
            f"{videos.video_count} videos with {len(videos)} frames: {done.added} new, {done.updated} changed, "
            f"{done.removed} removed, {done.unusable} not usable",
            err=True,
        )
    return videos


def video_hits(folder: Path, videos: VideoIndex, hits: list[VideoHit]) -> list[dict[str, Any]]:
    """Return the found stretches for the output, with paths below the folder as the user named it."""
    return [{**hit._asdict(), "path": str(folder / hit.path.relative_to(videos.folder))} for hit in hits]


def print_video_hits(hits: list[dict[str, Any]]) -> None:
    from ..search.video_index import clock

    for hit in hits:
        typer.echo(f"  {hit['score']:.4f}  {printable(hit['path'])}  {clock(hit['start'])} - {clock(hit['end'])}")
