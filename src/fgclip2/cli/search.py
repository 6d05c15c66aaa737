"""`fgclip2 search`: search images by text or image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import check_writable, printable, replacing
from . import common
from .html import Html, check_html, write_page
from .index import CompareContents, Folder, FollowLinks, IndexFolder, Rebuild, describe, report
from .queries import Boxes, Combine, Images, Negatives, NegativeWeight, Texts, Weights, read_queries
from .video import describe_videos, print_video_hits, update_videos, video_hits

if TYPE_CHECKING:
    from ..search import ImageIndex

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
"""


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
Where = Annotated[
    str | None,
    typer.Option(
        help='Condition in SQL on metadata that hits must fulfil, such as "year > 2020"; texts stand in single quotes.'
    ),
]
Regions = Annotated[
    str | None,
    typer.Option(
        help="Search the regions of the index (fgclip2 index --regions), with texts as region phrases: best finds the "
        "best region of each image, all each region."
    ),
]
Explain = Annotated[
    Path | None,
    typer.Option(help="Folder for a picture of each hit of --rerank phrases, with their boxes; made if it is missing."),
]


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
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate",
            help="Compare few of the images, by a cache that `fgclip2 index --cache hnsw` has made: for large indexes.",
        ),
    ] = False,
    calibration: common.CalibrationFile = None,
    min_probability: common.MinProbability = None,
    prevalence: common.Prevalence = None,
    where: Where = None,
    regions: Regions = None,
    index: IndexFolder = None,
    no_update: Annotated[
        bool, typer.Option("--no-update", help="Search the index as it is, without looking for changes.")
    ] = False,
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
    its first to its last second; --rerank, --regions and --where leave them as they are.

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
    _check_reranking(folder, [said["kind"] for said, _ in asked], rerank, candidates, explain)
    check_html(html)
    _check_regions(regions, rerank, image or [], approximate)
    from ..search import ImageIndex, VideoIndex

    # A stored index first, for it may lack, and a model takes seconds.
    stored = ImageIndex.load(folder, index, follow_links) if no_update else None
    embedder = common.load_embedder(model, device, max_pixels=max_pixels)
    least = common.use_calibration(embedder, calibration, min_probability, prevalence)
    if stored is None:
        settings = (budget, batch_size, rebuild, None, follow_links, compare_contents)
        searched = ImageIndex.build(folder, embedder, index, *settings)
        report(searched, folder, index)
        videos = update_videos(folder, embedder, None, index, budget, batch_size, rebuild, follow_links)
    else:
        searched, videos = stored, VideoIndex.load(folder, index, follow_links)
    if not len(searched):
        typer.echo(
            f"{printable(folder)} has no images to search: name a folder with .jpg, .png or .webp files", err=True
        )
    texts: list[Any] = [query for said, query in asked if said["kind"] == "text"]
    role, patches = "region_phrase" if regions else "auto", searched.settings["max_num_patches"]
    common.tell_missing_curves(embedder, texts, role, patches, calibration, min_probability, prevalence)
    options_of_texts: dict[str, Any] = {}
    if rerank:
        options_of_texts = {
            "rerank": rerank,
            "batch_size": batch_size,
            **({"candidates": candidates} if candidates else {}),
        }
    results = []
    for is_text, group in groupby(asked, lambda one: one[0]["kind"] == "text"):  # the texts come first
        said, its = zip(*group, strict=True)
        its_options = {"approximate": approximate, "where": where, **(options_of_texts if is_text else {})}
        found: Any = searched.search(its, embedder, top_k, regions=regions, **its_options)  # a list for each query
        results += _results(searched, folder, said, found)
    if videos is not None:
        for result, (_, query) in zip(results, asked, strict=True):
            result["videos"] = video_hits(folder, videos, videos.search(query, embedder, top_k))
    if explain is not None:
        _draw_hits(explain, results, searched, embedder.max_pixels)
    for result in results:
        if any(hit["probability"] is not None for hit in result["hits"]):
            result["nothing_matches"] = common.shows_no_match(result["hits"], least)
    if html is not None:
        write_page(html, ("Search results", "搜索结果"), results, embedder.max_pixels, searched)
    if as_json:
        state = {**describe(searched), **describe_videos(videos)}
        common.print_json({"model": embedder.name, "folder": str(folder), "index": state, "results": results})
    else:
        _print_results(results, least)


def _check_reranking(
    folder: Path, kinds: list[str], rerank: str | None, candidates: int | None, explain: Path | None
) -> None:
    """Refuse options of re-ranking that don't go together, and pictures that can't be kept; see [`search`]."""
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


def _check_regions(regions: str | None, rerank: str | None, images: list[Path], approximate: bool) -> None:
    """Refuse a search of regions that does not go together with the other options."""
    if regions not in (None, "best", "all"):
        raise typer.BadParameter(f"must be best or all, got {regions!r}", param_hint="--regions")
    if regions and rerank:
        raise typer.BadParameter("leave out --rerank, which orders whole images", param_hint="--regions")
    if regions and approximate:
        raise typer.BadParameter("leave it out: all regions are compared", param_hint="--approximate")
    if regions and images:
        raise typer.BadParameter("leave out --image: regions are searched by texts", param_hint="--regions")


def _print_results(results: list[dict[str, Any]], least: float) -> None:
    for result in results:
        typer.echo(printable(result["query"]))
        for hit in result["hits"]:
            new_score = f"{hit['reranked']:.4f}  " if "reranked" in hit else ""
            probability = common.probability_column(hit)
            region = f"  [{_edges(hit['box'])}]" if "box" in hit else ""
            typer.echo(f"  {new_score}{hit['score']:.4f}  {probability}{printable(hit['path'])}{region}")
            for phrase in hit.get("phrases", ()):
                typer.echo(f"    {phrase['cosine']:.4f}  [{_edges(phrase['box'])}]  {printable(phrase['text'])}")
            if "picture" in hit:
                typer.echo(f"    {printable(hit['picture'])}")
        if result.get("nothing_matches"):
            found = "region" if "box" in result["hits"][0] else "image"
            typer.echo(f"  nothing here matches: no {found} has a probability of {least:g}")
        print_video_hits(result.get("videos", []))


def _edges(box: Sequence[float]) -> str:
    return ", ".join(f"{edge:.0f}" for edge in box)


def _results(
    index: ImageIndex, folder: Path, queries: Sequence[dict[str, Any]], hits: list[list[Any]]
) -> list[dict[str, Any]]:
    """Return what is said of each query and its hits, with paths below the folder as the user named it."""
    from ..search import RerankedSearchHit

    return [
        {
            **query,
            "hits": [
                {
                    "path": str(folder / hit.path.relative_to(index.folder)),
                    "id": hit.id,
                    "score": hit.score,
                    "probability": hit.probability,
                    **({"metadata": hit.metadata} if hit.metadata else {}),
                    **(
                        {"reranked": hit.reranked, "phrases": [match._asdict() for match in hit.phrases]}
                        if isinstance(hit, RerankedSearchHit)
                        else {"box": list(hit.box)}
                        if hit.box
                        else {}
                    ),
                }
                for hit in found
            ],
        }
        for query, found in zip(queries, hits, strict=True)
    ]


def _draw_hits(folder: Path, results: list[dict[str, Any]], index: ImageIndex, max_pixels: int) -> None:
    """Write a picture of each re-ranked hit, and add its path to the hit as `picture`.

    One that can't be read any more, or can't be written, is told of on stderr; the others are drawn.
    """
    from ..embedding import PhraseMatch
    from ..modeling.inputs import load_image
    from ..visualization import overlay_phrases

    for number, result in enumerate(results, 1):
        for place, hit in enumerate(result["hits"], 1):
            if "phrases" not in hit:  # of a search by an image
                continue
            output = folder / f"{number}-{place:02}-{Path(hit['path']).stem}.png"
            try:
                image: Any = index.image(hit["id"])
                picture = overlay_phrases(
                    load_image(image() if callable(image) else image, max_pixels),
                    [PhraseMatch(**phrase) for phrase in hit["phrases"]],
                )
                folder.mkdir(parents=True, exist_ok=True)
                with replacing(output) as unfinished:
                    picture.save(unfinished, "PNG")
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error).removeprefix(f"{hit['path']}: ")
                typer.echo(f"{printable(hit['path'])} is not drawn: {printable(reason)}", err=True)
            else:
                hit["picture"] = str(output)
