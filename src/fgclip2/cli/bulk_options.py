"""The options of `fgclip2 embed --engine`, and its call."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..checks import check_choice
from . import common

Engine = Annotated[
    str | None,
    typer.Option(
        metavar="local|ray",
        help="Embed a large input in bulk: local uses all cores and devices of this machine, ray Ray Data, also on a "
        "cluster.",
    ),
]
Kind = Annotated[str, typer.Option(help="With --engine: what is embedded, image, text or region (boxes of images).")]
IdColumn = Annotated[str, typer.Option(help="With --engine: the column of ids of a table, texts or whole numbers.")]
ImageColumn = Annotated[str, typer.Option(help="With --engine: the column of images, encoded or as paths.")]
TextColumn = Annotated[str, typer.Option(help="With --engine: the column of texts.")]
BoxesColumn = Annotated[str, typer.Option(help="With --engine: the column of boxes, lists of (x1, y1, x2, y2).")]
ImagesFolder = Annotated[
    str | None, typer.Option(help="With --engine: folder or address that paths in a column start from.")
]
Backend = Annotated[
    str, typer.Option(help="With --engine: what runs the model, torch, or onnx or openvino for exported graphs.")
]
Precision = Annotated[str | None, typer.Option(help="With --engine: precision of graphs.  [default: fp32]")]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="With --engine: what torch computes in, float32, bfloat16 or float16.  [default: float32 on CPUs, else "
        "bfloat16]"
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="With --engine: number of workers.  [default: one on each accelerator, or all cores]"),
]
CpusPerWorker = Annotated[int, typer.Option(min=1, help="With --engine: cores of a worker on the CPU.")]
RowsPerFile = Annotated[int, typer.Option(min=1, help="With --engine: rows in a file of the output.")]

Address = Annotated[
    str | None,
    typer.Option(help="With --engine ray: address of a cluster, e.g. auto or 10.0.0.1:6379.  [default: this machine]"),
]
ObjectStore = Annotated[
    int,
    typer.Option(min=75, help="With --engine ray on this machine: MiB of memory for rows on their way."),
]


OF_BULK = (
    *("kind", "id_column", "image_column", "text_column", "boxes_column", "images_folder"),
    *("backend", "precision", "dtype", "workers", "cpus_per_worker", "rows_per_file", "address", "object_store"),
)
OF_RAY = ("address", "object_store")


def check_used(context: typer.Context, engine: str | None) -> None:
    """Raise a `typer.BadParameter` for an option on the command line that would have no effect.

    Args:
        context: Of `fgclip2 embed`.
        engine: Value of `--engine`.
    """
    unused = {
        **dict.fromkeys(OF_BULK if engine is None else (), "works with --engine only"),
        **dict.fromkeys(OF_RAY if engine == "local" else (), "works with --engine ray only"),
        **dict.fromkeys(() if engine is None else ("skip_errors",), "with --engine errors are always rows of a table"),
    }
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in unused and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"leave it out: {unused[parameter.name]}", param_hint=parameter.opts[0])


def run(
    place: str,
    output: str,
    engine: str,
    settings: dict[str, Any],
    device: str | None,
    as_json: bool,
    **running: Any,
) -> None:
    """Run [`embed_in_bulk`] and print what the output holds.

    Args:
        place, output, engine: Of [`embed_in_bulk`]; a path may begin with `~`.
        settings: Those of [`BulkSettings`], with `walk_type` in place of `role`.
        device: Devices with commas between them.
        as_json: Print JSON.
        running: Other arguments of [`embed_in_bulk`].
    """
    from ..bulk import BulkSettings, embed_in_bulk
    from ..embedding.fgclip2 import ROLE_OF_WALK

    walk_type = settings.pop("walk_type")
    check_choice("--walk-type", walk_type, ROLE_OF_WALK)
    given = {name: value for name, value in settings.items() if value is not None}
    if model := given.get("model"):
        given["model"] = common.with_home(model)
    chosen = BulkSettings(role=ROLE_OF_WALK[walk_type], **given)
    place, output = common.with_home(place), common.with_home(output)
    with common.kept_when_interrupted(f"what is done stays in {output}; the same command goes on"):
        report = embed_in_bulk(place, output, chosen, engine, common.split_devices(device), **running)
    if as_json:
        common.print_json({"output": output, **report._asdict()})
        return
    rate = report.new / report.seconds
    typer.echo(
        f"{report.vectors} rows with vectors and {report.errors} with errors in {output}; {report.new} of them now, "
        f"in {report.seconds:.0f} s, {rate:.1f} rows/s"
    )
