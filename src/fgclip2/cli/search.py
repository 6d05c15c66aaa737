"""`fgclip2 search`: search images by text or image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..files import printable
from . import common
from .html import Html, check_html, write_page
from .index import describe, report
from .index_options import CompareContents, Folder, FollowLinks, IndexFolder, NoUpdate, Rebuild
from .queries import Boxes, Combine, Images, Negatives, NegativeWeight, Texts, Weights, read_queries
from .search_options import (
    Approximate,
    Candidates,
    Explain,
    Rerank,
    SearchedRegions,
    Where,
    check_regions,
    check_reranking,
)
from .search_results import draw_hits, image_hits, print_results, video_hits
from .video import describe_videos, update_videos

if TYPE_CHECKING:
    from ..embedding import Embedder
    from ..search import ImageIndex, VideoIndex
    from ..search.queries import Query

EXAMPLES = """
fgclip2 search photos "a dog on the beach" --top-k 5
fgclip2 search 照片 "海滩上的狗" "红苹果" --no-update
fgclip2 search 照片 --image 狗.png
fgclip2 search 照片 "海滩上的狗" --no-update --approximate
fgclip2 search 照片 --image 街道.jpg --box 10,20,200,180
fgclip2 search photos "a tiger" "老虎" --combine --not "a cage"
fgclip2 search photos "at night" --image street.jpg --combine --weight 0.5 --weight 1
fgclip2 search 照片 "草地上的黑狗和红色的球" --rerank phrases --candidates 50 --html 结果.html
fgclip2 search photos "a black dog and a red ball" --rerank phrases --top-k 3 --explain pictures
fgclip2 search 照片 "草地上的黑狗" --model r2d2-large --rerank model
fgclip2 search photos "a red car" --where "camera = 'X100' and year > 2020"
fgclip2 search 照片.zip "红色的汽车" --regions best
fgclip2 search 视频 "一只猫跳上桌子" --rerank phrases --where "year > 2020"
"""


def search(
    folder: Folder,
    queries: Texts = None,
    image: Images = None,
    box: Boxes = None,
    combine: Combine = False,
    weight: Weights = None,
    negatives: Negatives = None,
    not_weight: NegativeWeight = None,
    top_k: common.TopK = 10,
    rerank: Rerank = None,
    candidates: Candidates = None,
    explain: Explain = None,
    html: Html = None,
    approximate: Approximate = False,
    calibration: common.CalibrationFile = None,
    min_probability: common.MinProbability = None,
    prevalence: common.Prevalence = None,
    where: Where = None,
    regions: SearchedRegions = None,
    index: IndexFolder = None,
    no_update: NoUpdate = False,
    rebuild: Rebuild = False,
    follow_links: FollowLinks = False,
    compare_contents: CompareContents = False,
    max_patches: common.MaxPatches = None,
    max_pixels: common.MaxPixels = None,
    batch_size: common.BatchSize = 32,
    model: common.Model = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
) -> None:
    """Search images of a folder, an archive or a Parquet file by texts or images.

    The images are indexed first, as by `fgclip2 index`; the index is kept, and later only new and changed files are
    embedded. The score of a hit is its cosine with the query. An image that is searched by, and its copies, are left
    out of its hits. With --regions, the box of the found region (x1, y1, x2, y2 in pixels) stands behind the path.

    Each text and image is a query of its own; with --combine they are one: the sum of their vectors, each times its
    --weight. That of --not is subtracted from every query.

    Where the index has videos (`fgclip2 index --video`), the best stretches of these come after the images, each from
    its first to its last second. --where, --regions and --rerank are for them, too: of regions, it is the best one of
    the best frame of a stretch, also with --regions all; re-ranked are best frames, which are decoded again.

    With --rerank phrases, the score by which hits are ordered comes first, then the cosine; below a hit stand the
    phrases of the query, each with its cosine and the box (x1, y1, x2, y2 in pixels) where it fits best. Candidates are
    read again for it, unless the index has dense maps (`fgclip2 index --dense`). With --rerank model, which needs a
    model with a ranking stage, there are no phrases, and candidates are always read again.

    Where there is a calibration for the index (`fgclip2 calibrate`), the probability that a hit matches its text stands
    behind the cosine, as p. One match among all images, or all regions, of the index is expected, unless --prevalence
    says else. Of a text of which no hit reaches --min-probability it says that nothing here matches; the hits stay.

    With --explain OUT, OUT/1-02-dog.png shows them on the second hit of the first query, dog.jpg; older pictures of
    these names are lost.
    """
    budget = common.parse_max_patches(max_patches)
    if no_update and (rebuild or compare_contents):
        raise typer.BadParameter("leave it out, or --rebuild and --compare-contents", param_hint="--no-update")
    asked = read_queries(queries or [], image or [], box or [], combine, weight or [], negatives or [], not_weight)
    check_reranking(folder, [said["kind"] for said, _ in asked], rerank, candidates, explain)
    check_html(html)
    check_regions(regions, rerank, image or [], approximate)
    from ..search import ImageIndex, VideoIndex

    # A stored index first, for it may lack, and a model takes seconds.
    stored = ImageIndex.load(folder, index, follow_links) if no_update else None
    embedder = common.load_embedder(model, device, max_pixels=max_pixels)
    least = common.use_calibration(embedder, calibration, min_probability, prevalence)
    if stored is None:
        settings = (budget, batch_size, rebuild, None, follow_links, compare_contents)
        images = ImageIndex.build(folder, embedder, index, *settings)
        report(images, folder, index)
        videos = update_videos(folder, embedder, None, index, budget, batch_size, rebuild, follow_links)
    else:
        images, videos = stored, VideoIndex.load(folder, index, follow_links)
    if not len(images):
        typer.echo(
            f"{printable(folder)} has no images to search: name a folder with .jpg, .png or .webp files", err=True
        )
    texts: list[Any] = [query for said, query in asked if said["kind"] == "text"]
    role, patches = "region_phrase" if regions else "auto", images.settings["max_num_patches"]
    common.tell_missing_curves(embedder, texts, role, patches, calibration, min_probability, prevalence)
    how: dict[str, Any] = {"approximate": approximate, "regions": regions}
    if rerank:
        how |= {"rerank": rerank, "batch_size": batch_size, **({"candidates": candidates} if candidates else {})}
    results = _search(folder, asked, images, videos, embedder, top_k, where, how)
    if explain is not None:
        draw_hits(explain, results, images, embedder.max_pixels)
    for result in results:
        if any(hit["probability"] is not None for hit in result["hits"]):
            result["nothing_matches"] = common.shows_no_match(result["hits"], least)
    if html is not None:
        write_page(html, ("Search results", "搜索结果"), results, embedder.max_pixels, images)
    if as_json:
        state = {**describe(images), **describe_videos(videos)}
        common.print_json({"model": embedder.name, "folder": str(folder), "index": state, "results": results})
    else:
        print_results(results, least)


def _search(
    folder: Path,
    asked: Sequence[tuple[dict[str, Any], Query]],
    images: ImageIndex,
    videos: VideoIndex | None,
    embedder: Embedder,
    top_k: int,
    where: str | None,
    how: dict[str, Any],
) -> list[dict[str, Any]]:
    """Search images and videos, and return what the output says of each query and its hits.

    Args:
        folder: As the user named it.
        asked: See [`read_queries`].
        images, videos: The indexes; `None`: there are no videos.
        embedder, top_k: See [`ImageIndex.search`].
        where: The condition, for both: a column that only one of them has is null in the other.
        how: `approximate` and `regions`; and those options of re-ranking that are for texts only.
    """
    if videos is not None and how["regions"] and videos.regions is None:
        typer.echo(
            "videos are left out, for they have no regions: fgclip2 index --video scenes --regions grid", err=True
        )
        videos = None
    of_images: dict[str, Any] = {"approximate": how["approximate"], "regions": how["regions"]}
    of_videos: dict[str, Any] = {"regions": "best" if how["regions"] else None}
    if where is not None:
        columns = images.columns | (videos.columns if videos is not None else {})
        of_images["allowed"] = images.matches(where, columns)
        if videos is not None:
            of_videos["allowed"] = videos.matches(where, columns)
    of_texts = {name: how[name] for name in ("rerank", "batch_size", "candidates") if name in how}
    results: list[dict[str, Any]] = []
    for is_text, group in groupby(asked, lambda one: one[0]["kind"] == "text"):  # the texts come first
        said, queries = zip(*group, strict=True)
        more = of_texts if is_text else {}
        found: Any = images.search(queries, embedder, top_k, **of_images, **more)  # a list for each query
        its: list[dict[str, Any]] = [
            {**query, "hits": image_hits(folder, images, hits)} for query, hits in zip(said, found, strict=True)
        ]
        if videos is not None:
            found = videos.search(queries, embedder, top_k, **of_videos, **more)
            for result, hits in zip(its, found, strict=True):
                result["videos"] = video_hits(folder, videos, hits)
        results += its
    return results
