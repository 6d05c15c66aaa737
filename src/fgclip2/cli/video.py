"""The videos of a folder in `fgclip2 index` and `fgclip2 search`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ..embedding import Embedder
    from ..search import VideoIndex


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
    regions = {"regions": videos.regions} if videos.regions else {}
    return {"video": {**numbers, **regions, **counts, "unusable": unusable}}


def update_videos(
    folder: Path,
    embedder: Embedder,
    sampling: str | float | None,
    index_folder: Path | None,
    max_num_patches: int | str | None,
    batch_size: int,
    rebuild: bool,
    follow_links: bool,
    regions: str | None = None,
    metadata: Path | None = None,
) -> VideoIndex | None:
    """Bring the index of the videos up to date, make it or remove it, and say so on stderr; `None` where there is none.

    Args:
        sampling: What [`parse_sampling`] returns.
        regions: Those that the images are to have. Frames have none that are given.
        folder, embedder, index_folder, max_num_patches, batch_size, rebuild, follow_links, metadata: See
            [`VideoIndex.build`].
    """
    from ..search import VideoIndex

    if sampling == "none":
        VideoIndex.remove(folder, index_folder, follow_links)
        return None
    if sampling is None and not VideoIndex.exists(folder, index_folder, follow_links):
        return None
    options = (max_num_patches, batch_size, rebuild, None, follow_links)
    if regions == "given":
        typer.echo("videos get no regions: boxes of one frame say nothing of the next", err=True)
        regions = None
    more: dict[str, Any] = {"regions": regions, "metadata": metadata}
    videos = VideoIndex.build(folder, embedder, sampling, index_folder, *options, **more)
    done = videos.report
    if done is not None:
        typer.echo(
            f"{videos.video_count} videos with {len(videos)} frames: {done.added} new, {done.updated} changed, "
            f"{done.removed} removed, {done.unusable} not usable"
            + (f"; regions of each frame ({videos.regions})" if videos.regions else ""),
            err=True,
        )
    return videos
