"""`fgclip2 bench`: list, check, run and report benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import check_writable, printable
from . import common

if TYPE_CHECKING:
    from ..benchmarks.checking import Check

LIST_EXAMPLES = """
fgclip2 bench list
fgclip2 bench list --json > 评测集.json
"""
CHECK_EXAMPLES = """
fgclip2 bench check boxclass-cn BoxClass-CN
fgclip2 bench check lit-cn LIT-CN --images 图像 --open
fgclip2 bench check bundled
"""
RUN_EXAMPLES = """
fgclip2 bench run bundled --controls
fgclip2 bench run boxclass-cn BoxClass-CN --model qihoo360/fg-clip2-base
fgclip2 bench run dci DCI --model qihoo360/fg-clip-large --preset fg-clip-v1
fgclip2 bench run flickr30k-cna Flickr30k-CNA --model OFA-Sys/chinese-clip-vit-base-patch16
fgclip2 bench run coco-boxes coco --set max_num_patches=1024 --set templates=none
fgclip2 bench run image-folder 照片 --language zh
fgclip2 bench run lit-cn LIT-CN --rerank phrases --candidates 50
fgclip2 bench run icr ICR --images IQR_IQM_ICR_ICM_images --model r2d2-large --preset r2d2
torchrun --nproc-per-node 8 -m fgclip2.cli bench run lit-cn LIT-CN --model qihoo360/fg-clip2-so400m
"""
REPORT_EXAMPLES = """
fgclip2 bench report bench_results
fgclip2 bench report bench_results --language zh --output 结果
"""

Name = Annotated[
    str, typer.Argument(help="Name of a benchmark of `fgclip2 bench list`; bundled stands for all that start with it.")
]
DataPath = Annotated[
    Path | None,
    typer.Argument(
        help="Folder of the data set as its owners publish it. Leave it out for bundled, whose data are fetched."
    ),
]
Images = Annotated[Path | None, typer.Option(help="Folder or zip archive of the images.  [default: in PATH]")]
FollowLinks = Annotated[
    bool,
    typer.Option(
        "--follow-links", help="Read images that links in the folders lead to outside them, if you trust these."
    ),
]
BUNDLED = "bundled"
_SHOWN = 3  # records left out that are printed; the result file has them all


def list_benchmarks(as_json: common.AsJson = False) -> None:
    """List the benchmarks.

    Each has a name, what it measures, its language and where to get it; --json also says how the presets differ.
    """
    from ..benchmarks.catalogue import BENCHMARKS, COMMON_DIFFERENCES
    from ..benchmarks.catalogue import BUNDLED as BUNDLED_ROWS

    rows = [
        {
            "name": benchmark.name,
            "task": benchmark.kind.replace("_", " "),
            "language": benchmark.language,
            "source": benchmark.source,
            "differences": [*COMMON_DIFFERENCES, *benchmark.differences],
        }
        for benchmark in (*BENCHMARKS.values(), *BUNDLED_ROWS)
    ]
    if as_json:
        common.print_json({"benchmarks": rows})
        return
    for row in rows:
        typer.echo(f"{row['name']:<26}{row['task']:<24}{row['language']:<4}{row['source']}")


def check(
    name: Name,
    path: DataPath = None,
    images: Images = None,
    open_images: Annotated[
        bool, typer.Option("--open", help="Decode every image, and compare boxes with its size.")
    ] = False,
    follow_links: FollowLinks = False,
    show: Annotated[int, typer.Option(min=0, help="How many problems to print.")] = 20,
    as_json: common.AsJson = False,
) -> None:
    """Read a data set whole and list what is wrong with it.

    It also prints what the data set holds and what was published of it.

    Exit code 1 if anything is wrong or missing.
    """
    from ..benchmarks.bundled import fetch_bundled, find_benchmarks
    from ..benchmarks.checking import check as check_data

    benchmarks = find_benchmarks(name, path, images)
    folder = path or fetch_bundled()
    checks = {
        benchmark.name: check_data(benchmark, folder, images, open_images, follow_links) for benchmark in benchmarks
    }
    if as_json:
        common.print_json({"benchmarks": [{"name": key, **found.as_dict()} for key, found in checks.items()]})
    else:
        for key, found in checks.items():
            _print_check(key, found, show, path is None)
    faults = [f"{key}: {', '.join(found.faults)}" for key, found in checks.items() if found.faults]
    if faults:
        raise ValueError(f"{folder}: {'; '.join(faults)}")


def run(
    name: Name,
    path: DataPath = None,
    images: Images = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Folder or hub id of FG-CLIP 2, FG-CLIP v1, R2D2 or another model; untrained is a control with random "
            "weights.  [default: the one in the package]",
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch of a model on the hub.")] = None,
    device: common.Device = None,
    dtype: Annotated[
        str, typer.Option(help="Compute in float32, bfloat16 or float16; auto chooses by the device.")
    ] = "auto",
    preset: Annotated[
        str,
        typer.Option(
            help="Settings: paper has those of FG-CLIP 2's paper, released those of its authors' scripts, fg-clip-v1 "
            "and r2d2 those of the scripts of FG-CLIP v1 and R2D2; r2d2 re-ranks by the model."
        ),
    ] = "paper",
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting; the result says so. May be repeated."),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Language of the names of classes: en or zh.  [default: the benchmark's]")
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            help="Measure re-ranking too, in retrieval and matching: phrases looks for each phrase in the images, "
            "model compares the pairs as R2D2, or FG-CLIP 2 with a ranking stage, was trained to."
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of first candidates that --rerank looks at in retrieval.  [default: the preset's, or 20]",
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the result files.")] = Path("bench_results"),
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder where embeddings are kept, so that a killed run goes on.  [default: user's cache]"),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep no embeddings.")] = False,
    follow_links: FollowLinks = False,
    items: Annotated[bool, typer.Option("--items", help="Store a number for each item too, such as ranks.")] = False,
    controls: Annotated[
        bool,
        typer.Option(
            "--controls", help="Measure an untrained model too, and of boxes nearest pixels; works with bundled."
        ),
    ] = False,
) -> None:
    """Measure a model on a data set.

    The numbers are printed, and stored with every setting.

    Under torchrun the processes share the work. A run that was killed goes on where it was.
    """
    from .. import distributed
    from ..benchmarks.bundled import fetch_bundled, find_benchmarks, run_pixels
    from ..benchmarks.encoding import default_cache
    from ..benchmarks.models import UNTRAINED
    from ..benchmarks.runner import check_reranking, run_all

    if controls and not name.startswith(BUNDLED):
        raise typer.BadParameter("works with bundled", param_hint="--controls")
    if revision and (model in (None, UNTRAINED) or Path(model).is_dir()):
        raise typer.BadParameter("works with a model of the hub", param_hint="--revision")
    if cache and no_cache:
        raise typer.BadParameter("does not go with --cache", param_hint="--no-cache")
    if candidates and not rerank and preset != "r2d2":
        raise typer.BadParameter("works with --rerank", param_hint="--candidates")
    changes = dict(map(_parse_change, change or []))
    benchmarks = find_benchmarks(name, path, images)
    for benchmark in benchmarks:
        benchmark.changed_settings(preset, changes)  # none must fail after hours for the others
        check_reranking(benchmark, rerank, preset)
    check_writable(output)
    common.hide_loading_bars()
    distributed.start_process_group()
    folder = path or fetch_bundled()
    used_cache = None if no_cache else cache or default_cache()
    kept = f"finished results are in {output}"
    if used_cache is not None:
        kept += f", embeddings in {used_cache}; the same command goes on"
    results = run_all(
        benchmarks,
        folder,
        (model, UNTRAINED) if controls else (model,),
        common.split_devices(device),
        dtype,
        revision,
        images=images,
        preset=preset,
        changes=changes,
        language=language,
        cache=used_cache,
        with_items=items,
        follow_links=follow_links,
        rerank=rerank,
        candidates=candidates,
    )
    with common.kept_when_interrupted(kept):
        for result in results:
            _store_and_print(result, output)
        if controls and distributed.rank() == 0 and any(row.kind == "region_classification" for row in benchmarks):
            _store_and_print(run_pixels(folder), output)
    distributed.end_process_group()


def report(
    results: Annotated[list[Path], typer.Argument(help="Result files, or folders with them.")],
    output: Annotated[Path, typer.Option(help="Name of the files to write, without suffix.")] = Path("bench_report"),
    language: Annotated[str, typer.Option(help="Language of the report: en or zh.")] = "en",
    plot: Annotated[bool, typer.Option(help="Draw a picture too, which needs matplotlib.")] = True,
) -> None:
    """Put results beside the published numbers.

    Writes Markdown, CSV and a plot.
    """
    from ..benchmarks import report as reports

    read = reports.read_results(results)
    written = [output.with_name(f"{output.name}{suffix}") for suffix in (".md", ".csv", ".png")]
    output.parent.mkdir(parents=True, exist_ok=True)
    written[0].write_text(reports.markdown(read, language), encoding="utf-8")
    reports.write_csv(read, written[1])
    if plot:
        reports.plot(read, written[2])
    for path in written if plot else written[:2]:
        typer.echo(str(path))


def _parse_change(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not (name and value):
        raise typer.BadParameter(f"{text!r} must be NAME=VALUE", param_hint="--set")
    return name, value


def _print_check(name: str, found: Check, show: int, is_fetched: bool) -> None:
    typer.echo(name)
    for key, (here, published) in found.counts.items():
        beside = "" if is_fetched else f"   published {published or 'not known':>9}"
        typer.echo(f"  {key:<12}{here:>9}{beside}")
    typer.echo(f"  {'problems':<12}{len(found.problems):>9}")
    for problem in found.problems[:show]:
        typer.echo(f"    {printable(str(problem))}")


def _store_and_print(result: dict[str, Any], output: Path) -> None:
    """Store a result and print it, also if one of the two fails; the first process does."""
    from .. import distributed
    from ..benchmarks.runner import result_path, write_result

    if distributed.rank() > 0:
        return
    path = result_path(output, result)
    try:
        write_result(result, path)
    finally:
        _print_result(result)
    typer.echo(f"  -> {path}")


def _print_result(result: dict[str, Any]) -> None:
    marks = "".join(f" {name}={value}" for name, value in result["changed"].items())
    typer.echo(f"{result['benchmark']}  {result['model']['name']}  {result['preset']}{marks}")
    for name, metric in result["metrics"].items():
        scale, sign = (1, "") if name.endswith("rank") else (100, "%")
        interval = metric["interval"]
        between = "" if interval is None else f"  [{scale * interval[0]:.2f}, {scale * interval[1]:.2f}]"
        value = f"{scale * metric['value']:.2f}{sign}"
        typer.echo(f"  {name:<28}{value:>10}{between}")
    counts = result["counts"]
    left_out = counts["unreadable"] + counts["problems"]
    typer.echo(f"  {counts['images']} images, {counts['items']} items, left out {left_out}")
    for problem in result["left_out"][:_SHOWN]:
        typer.echo(f"    {printable(problem['source'])}: {printable(problem['reason'])}")
    if left_out > _SHOWN:
        typer.echo(f"    and {left_out - _SHOWN} more")
    for name, published in result["published_counts"].items():
        if counts.get(name, published) != published:
            typer.echo(f"  not the published data set: {counts[name]} {name} in place of {published}")
