"""`fgclip2 bench`: list, check, run and report benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common

if TYPE_CHECKING:
    from ..benchmarks.catalogue import Benchmark
    from ..benchmarks.checking import Check
    from ..benchmarks.models import BenchmarkModel

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
fgclip2 bench run flickr30k-cna Flickr30k-CNA --model OFA-Sys/chinese-clip-vit-base-patch16
fgclip2 bench run coco-boxes coco --set max_num_patches=1024 --set templates=none
fgclip2 bench run image-folder 照片 --language zh
torchrun --nproc-per-node 8 -m fgclip2.cli bench run lit-cn LIT-CN --model qihoo360/fg-clip2-so400m
"""
REPORT_EXAMPLES = """
fgclip2 bench report bench_results
fgclip2 bench report bench_results --language zh --output 结果
"""

Name = Annotated[str, typer.Argument(help="Of `fgclip2 bench list`, or bundled: all that start with it.")]
DataPath = Annotated[
    Path | None, typer.Argument(help="The data set as its owners publish it; none for bundled, which is fetched.")
]
Images = Annotated[Path | None, typer.Option(help="Folder or zip archive of the images.  [default: in PATH]")]
BUNDLED = "bundled"
_SHOWN = 3  # records left out that are printed; the result file has them all


def list_benchmarks(as_json: common.AsJson = False) -> None:
    """List the benchmarks.

    Each has a name, what it measures, its language and where to get it; --json also says how the presets differ.
    """
    from ..benchmarks.bundled import BUNDLED as BUNDLED_ROWS
    from ..benchmarks.catalogue import BENCHMARKS, COMMON_DIFFERENCES

    rows = [
        {
            "name": each.name,
            "task": each.kind.replace("_", " "),
            "language": each.language,
            "source": each.source,
            "differences": [*COMMON_DIFFERENCES, *each.differences],
        }
        for each in (*BENCHMARKS.values(), *BUNDLED_ROWS)
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
    open_images: Annotated[bool, typer.Option("--open", help="Decode every image.")] = False,
    show: Annotated[int, typer.Option(min=0, help="How many problems to list.")] = 20,
    as_json: common.AsJson = False,
) -> None:
    """Read a data set whole and list what is wrong with it.

    It also prints what the data set holds and what was published of it.

    Exit code 1 if anything is wrong or missing.
    """
    from ..benchmarks.checking import check as check_data

    benchmarks = find_benchmarks(name, path, images)
    folder = path or fetch_bundled()
    checks = {benchmark.name: check_data(benchmark, folder, images, open_images) for benchmark in benchmarks}
    if as_json:
        common.print_json({"benchmarks": [{"name": each, **_as_dict(found)} for each, found in checks.items()]})
    wrong = []
    for each, found in checks.items():
        if not as_json:
            _print_check(each, found, show, path is None)
        its = [f"{here} {key} in place of {published}" for key, (here, published) in found.missing.items()]
        if found.problems:
            its.append(f"{len(found.problems)} problems")
        if its:
            wrong.append(f"{each}: {', '.join(its)}")
    if wrong:
        raise ValueError(f"{folder}: {'; '.join(wrong)}")


def run(
    name: Name,
    path: DataPath = None,
    images: Images = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Folder or hub id of FG-CLIP 2 or another model; untrained: a control.  "
            "[default: the one in the package]",
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch of a model of the hub.")] = None,
    device: common.Device = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16, or auto: by the device.")] = "auto",
    preset: Annotated[str, typer.Option(help="paper, or released: as its authors' scripts do.")] = "paper",
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting; the result says so.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="en or zh, of names of classes.")] = None,
    output: Annotated[Path, typer.Option(help="Folder of result files.")] = Path("bench_results"),
    cache: Annotated[
        Path | None, typer.Option(help="Where embeddings are kept, for a killed run to go on.  [default: user's cache]")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep no embeddings.")] = False,
    items: Annotated[bool, typer.Option("--items", help="Also store a number for each item, such as ranks.")] = False,
    controls: Annotated[
        bool, typer.Option("--controls", help="With bundled: also an untrained model and nearest pixels.")
    ] = False,
) -> None:
    """Measure a model on a data set.

    The numbers are printed, and stored with every setting.

    Under torchrun the processes share the work. A run that was killed goes on where it was.
    """
    from .. import distributed
    from ..benchmarks.models import UNTRAINED, load_model
    from ..benchmarks.runner import check_writable

    if controls and name != BUNDLED:
        raise typer.BadParameter("works with bundled", param_hint="--controls")
    if revision and (model in (None, UNTRAINED) or Path(model).is_dir()):
        raise typer.BadParameter("works with a model of the hub", param_hint="--revision")
    if cache and no_cache:
        raise typer.BadParameter("does not go with --cache", param_hint="--no-cache")
    changes = _parse_changes(change)
    benchmarks = find_benchmarks(name, path, images)
    for benchmark in benchmarks:
        benchmark.changed_settings(preset, changes)  # none must fail after hours for the others
    check_writable(output)
    common.hide_loading_bars()
    distributed.start_process_group()
    options = {"images": images, "preset": preset, "changes": changes, "language": language, "with_items": items}
    options["cache"] = None if no_cache else cache or _default_cache()
    folder = path or fetch_bundled()
    for each in (model, UNTRAINED) if controls else (model,):
        loaded = load_model(each, common.split_devices(device), dtype, None if each == UNTRAINED else revision)
        for benchmark in benchmarks:
            _run_one(benchmark, folder, loaded, output, options)
    if controls and distributed.rank() == 0:
        _run_pixels(folder, output)
    distributed.end_process_group()


def report(
    results: Annotated[list[Path], typer.Argument(help="Result files, or folders of them.")],
    output: Annotated[Path, typer.Option(help="Where to write, without suffix.")] = Path("bench_report"),
    language: Annotated[str, typer.Option(help="en or zh.")] = "en",
    plot: Annotated[bool, typer.Option(help="Draw a picture too; needs matplotlib.")] = True,
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


def _parse_changes(changes: list[str] | None) -> dict[str, str]:
    parsed = {}
    for change in changes or []:
        name, equals, value = change.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"{change!r}; allowed: NAME=VALUE", param_hint="--set")
        parsed[name] = value
    return parsed


def _as_dict(found: Check) -> dict[str, Any]:
    counts = {key: {"here": here, "published": published} for key, (here, published) in found.counts.items()}
    return {"counts": counts, "problems": [str(each) for each in found.problems]}


def _print_check(name: str, found: Check, show: int, is_fetched: bool) -> None:
    typer.echo(name)
    for key, (here, published) in found.counts.items():
        beside = "" if is_fetched else f"   published {published or 'not known':>9}"
        typer.echo(f"  {key:<12}{here:>9}{beside}")
    typer.echo(f"  {'problems':<12}{len(found.problems):>9}")
    for problem in found.problems[:show]:
        typer.echo(f"    {problem}")


def _default_cache() -> Path:
    from ..drawings.sources import default_cache

    return default_cache().parent / "benchmarks"


def find_benchmarks(name: str, path: Path | None, images: Path | None = None) -> list[Benchmark]:
    """The benchmarks of a name: of a data set at a path, or of the package's own without one.

    Raises:
        ValueError: There are none of that name, a path is missing, or there is one too much.
    """
    from ..benchmarks.bundled import BUNDLED as BUNDLED_ROWS
    from ..benchmarks.catalogue import find_benchmark

    rows = [row for row in BUNDLED_ROWS if name in (BUNDLED, row.name)]
    if rows and (path or images) is not None:
        raise ValueError(f"{name} takes no path and no images ({path or images}): its data are fetched")
    if not rows and name.startswith(BUNDLED):
        names = ", ".join(row.name for row in BUNDLED_ROWS)
        raise ValueError(f"there is no benchmark {name!r}; allowed: {BUNDLED}, {names}")
    if not rows and path is None:
        find_benchmark(name)
        raise ValueError(f"give the path of the data set of {name}; only {BUNDLED} has none")
    return rows or [find_benchmark(name)]


def fetch_bundled() -> Path:
    """The folder of the package's own data, fetched by the first process.

    Raises:
        OSError: They can't be fetched.
    """
    from .. import distributed
    from ..benchmarks.bundled import build_bundled
    from ..drawings.sources import default_cache

    folder = None
    if distributed.rank() == 0:
        try:
            folder = build_bundled(default_cache())
        except RuntimeError as error:  # a package can't be fetched
            raise OSError(str(error)) from error
    return distributed.gather_objects(folder)[0]


def _run_one(benchmark: Benchmark, folder: Path, model: BenchmarkModel, output: Path, options: dict[str, Any]) -> None:
    from ..benchmarks.runner import run as run_benchmark

    _finish(run_benchmark(benchmark, folder, model, **options), output)


def _run_pixels(folder: Path, output: Path) -> None:
    from ..benchmarks.bundled import run_pixels
    from ..drawings.sources import default_cache

    _finish(run_pixels(folder, default_cache()), output)


def _finish(result: dict[str, Any], output: Path) -> None:
    """Store a result and print it, also if one of the two fails."""
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
        typer.echo(f"    {problem['source']}: {problem['reason']}")
    if left_out > _SHOWN:
        typer.echo(f"    and {left_out - _SHOWN} more")
    for name, published in result["published_counts"].items():
        if counts.get(name, published) != published:
            typer.echo(f"  not the published data set: {counts[name]} {name} in place of {published}")
