"""`fgclip2 index`: make the index of a folder, an archive or a table of images, or bring it up to date."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .._imports import require
from ..files import printable
from . import common
from .index_options import (
    Cache,
    CompareContents,
    Dense,
    Folder,
    FollowLinks,
    IdColumn,
    ImageColumn,
    IndexFolder,
    KeptRegions,
    MetadataFile,
    Rebuild,
    ShowProblems,
    Verify,
    Video,
)
from .video import describe_videos, parse_sampling, update_videos

if TYPE_CHECKING:
    from ..embedding import Embedder
    from ..search import ImageIndex

TYPES_SHOWN = 5

EXAMPLES = """
fgclip2 index photos
fgclip2 index 照片 --index 索引
fgclip2 index 照片 --show-problems
fgclip2 index photos --dense int8
fgclip2 index 视频 --video scenes
fgclip2 index 照片 --cache hnsw
fgclip2 index photos --verify
fgclip2 index 照片.zip --regions grid
fgclip2 index photos --metadata photos.csv
fgclip2 index 商品.parquet --id-column 货号
"""


def index(
    folder: Folder,
    index: IndexFolder = None,
    show_problems: ShowProblems = False,
    rebuild: Rebuild = False,
    follow_links: FollowLinks = False,
    compare_contents: CompareContents = False,
    video: Video = None,
    dense: Dense = None,
    cache: Cache = None,
    verify: Verify = False,
    regions: KeptRegions = None,
    metadata: MetadataFile = None,
    id_column: IdColumn = None,
    image_column: ImageColumn = None,
    max_patches: common.MaxPatches = None,
    max_pixels: common.MaxPixels = None,
    batch_size: common.BatchSize = 32,
    model: common.Model = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
) -> None:
    """Index images of a folder, an archive or a Parquet file, or bring the index up to date.

    Only new and changed files are embedded. What is done is saved every 10 seconds, so an interrupted run goes on where
    it was. With --show-problems or --verify nothing is updated; --verify ends with 1 if something is damaged.

    Dense maps (--dense) are large. Images that have none yet run through the model again, and from then on this command
    and `fgclip2 search` make those of new images by themselves. So it is with videos (--video), which need the extra
    `video`: `fgclip2 search` finds stretches of them.

    Caches (--cache) are made from the index, and made anew by this command when it has changed; a search passes over
    those of a former state. They may be deleted at any time.
    """
    budget = common.parse_max_patches(max_patches)
    sampling = parse_sampling(video)
    if show_problems or verify:
        name = "--verify" if verify else "--show-problems"
        made = {"--dense": dense, "--cache": cache, "--regions": regions, "--metadata": metadata, "--video": video}
        for option in (option for option, value in made.items() if value):
            raise typer.BadParameter(f"leave it out with {name}, which updates nothing", param_hint=option)
    _check_kinds(dense, cache, regions)
    if verify:
        _verify(folder, index, follow_links, as_json)
        return
    if show_problems:
        _show_problems(folder, index, follow_links, as_json)
        return
    embedder = common.load_embedder(model, device, max_pixels=max_pixels)
    _check_abilities(embedder, dense, regions, budget)
    from ..search import ImageIndex

    options = (budget, batch_size, rebuild, None, follow_links, compare_contents, dense)
    more: dict[str, Any] = {"regions": regions, "metadata": metadata}
    of_tables: dict[str, Any] = {**more, "id_column": id_column, "image_column": image_column}
    built = ImageIndex.build(folder, embedder, index, *options, **of_tables)
    if cache == "none":
        built.delete_caches()
    else:
        _make_caches(built, cache)
    if not as_json:
        report(built, folder, index)
    videos = update_videos(folder, embedder, sampling, index, budget, batch_size, rebuild, follow_links, **more)
    if as_json:
        state = {**describe(built), **describe_videos(videos)}
        common.print_json({"model": embedder.name, "folder": str(folder), "index": state})


def _check_kinds(dense: str | None, cache: str | None, regions: str | None) -> None:
    """Refuse kinds of dense maps, caches and regions that there are not, or that nothing here can make."""
    from ..search.caches import KINDS as CACHES
    from ..search.dense_maps import KINDS
    from ..search.store import KINDS_OF_REGIONS

    for option, choice, kinds in (
        ("--dense", dense, KINDS),
        ("--cache", cache, CACHES),
        ("--regions", regions, KINDS_OF_REGIONS),
    ):
        if choice not in (None, *kinds, "none"):
            raise typer.BadParameter(f"must be {', '.join(kinds)} or none, got {choice!r}", param_hint=option)
    if cache in CACHES:
        require("faiss", "search")  # now rather than after the work


def _check_abilities(embedder: Embedder, dense: str | None, regions: str | None, budget: int | str | None) -> None:
    """Refuse dense maps and regions that the model can't make; say on stderr how much space dense maps take."""
    from ..search.dense_maps import describe_size

    if dense not in (None, "none"):
        embedder.require_dense_features()
        typer.echo(f"dense maps as {dense} take {describe_size(str(dense), embedder, budget)}", err=True)
    if regions not in (None, "none"):
        embedder.require_regions()


def _show_problems(folder: Path, index_folder: Path | None, follow_links: bool, as_json: bool) -> None:
    """List what can't be used, as of the last update."""
    from ..search import ImageIndex, VideoIndex

    videos = VideoIndex.load(folder, index_folder, follow_links)
    state = {**describe(ImageIndex.load(folder, index_folder, follow_links)), **describe_videos(videos)}
    if as_json:
        common.print_json({"folder": str(folder), "index": state})
        return
    for file in [*state["unusable"], *state.get("video", {}).get("unusable", [])]:
        typer.echo(f"{printable(file['path'])}: {printable(file['reason'])}")
    for line in _count_left_out(state["left_out"]):
        typer.echo(line)


def _verify(folder: Path, index_folder: Path | None, follow_links: bool, as_json: bool) -> None:
    """List what is damaged of an index, and end with an error if something is."""
    from ..search import ImageIndex

    damaged = ImageIndex.verify(folder, index_folder, follow_links)
    if as_json:
        common.print_json({"folder": str(folder), "damaged": [file._asdict() for file in damaged]})
    else:
        for file in damaged:
            typer.echo(f"{file.name}: {printable(file.reason)}: {file.remedy}")
        if not damaged:
            typer.echo("nothing is damaged", err=True)
    if damaged:
        raise ValueError(f"{len(damaged)} damaged: behind each stands what to do")


def _make_caches(index: ImageIndex, kind: str | None) -> None:
    """Make a cache, or without a kind those anew that are of a former state of the index."""
    for its in [kind] if kind else index.stale_caches:
        typer.echo(f"making the cache {its} of {len(index)} images", err=True)
        index.build_cache(its)


def describe(index: ImageIndex) -> dict[str, Any]:
    """Return the state of an index for the JSON output."""
    counts = asdict(index.report) if index.report else {}
    unusable = [file._asdict() for file in index.unusable]
    state = {"images": len(index), **counts, "unusable": unusable, "left_out": index.left_out}
    if index.dense:
        state["dense"] = {"kind": index.dense, "images": len(index.maps), "bytes": index.dense_bytes}
    if index.caches:
        state["caches"] = index.caches
    if index.regions:
        state["regions"] = {"kind": index.regions, "count": index.region_count}
    return state


def report(index: ImageIndex, folder: Path, index_folder: Path | None) -> None:
    """Say on stderr what an update did, and how to see what it could not use."""
    done = index.report
    if done is not None:
        typer.echo(
            f"{len(index)} images: {done.added} new, {done.updated} changed, {done.removed} removed, "
            f"{done.unusable} not usable",
            err=True,
        )
    if index.dense:
        size = f"{index.dense_bytes / 1e6:,.1f} MB"
        typer.echo(f"dense maps as {index.dense} of {len(index.maps)} images, {size}", err=True)
    if index.regions:
        typer.echo(f"{index.region_count} regions ({index.regions})", err=True)
    if index.unusable:
        place = ["--index", str(index_folder)] if index_folder else []
        command = shlex.join(["fgclip2", "index", str(folder), *place, "--show-problems"])
        files = "1 file" if len(index.unusable) == 1 else f"{len(index.unusable)} files"
        typer.echo(f"{files} can't be used: `{printable(command)}`", err=True)
    for line in _count_left_out(index.left_out):
        typer.echo(line, err=True)


def _count_left_out(left_out: dict[str, int]) -> list[str]:
    """Return a line about files of other types, or none; the most frequent types are named."""
    if not left_out:
        return []
    ranked = sorted(left_out.items(), key=lambda item: -item[1])
    named = [f"{count} {printable(suffix) or 'without a suffix'}" for suffix, count in ranked[:TYPES_SHOWN]]
    if len(ranked) > TYPES_SHOWN:
        named.append(f"{sum(count for _, count in ranked[TYPES_SHOWN:])} others")
    total = sum(left_out.values())
    return [f"{total} {'file is' if total == 1 else 'files are'} left out, not of an image type: {', '.join(named)}"]
