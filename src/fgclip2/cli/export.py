"""`fgclip2 export`: write a checkpoint that loads without this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import printable
from . import common

if TYPE_CHECKING:
    from ..calibration import Calibration

EXAMPLES = """
fgclip2 export exported
fgclip2 export 导出 --model 我的模型
fgclip2 export merged --model my-adapter
fgclip2 export to_share --format hub --results docs/bundled_benchmark
fgclip2 export 发布 --format hub --model 我的模型 --license apache-2.0 --push 我的用户名/模型
fgclip2 export to_share --format hub --onnx fp32 --onnx int8
fgclip2 export 图 --format onnx --precision fp32 --precision int8
fgclip2 export web --format transformers.js
"""


def export(
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    model: common.Model = None,
    format: Annotated[
        str,
        typer.Option(
            help="Write for transformers (its Auto classes and pipelines, and sentence-transformers), for the hub (the "
            "same with more on its card, loaded by these libraries before it is kept), as onnx (graphs for run times "
            "without torch), for transformers.js (JavaScript, in Node.js and in browsers), or for immich (a server for "
            "photo libraries)."
        ),
    ] = "transformers",
    license: Annotated[
        str | None,
        typer.Option(help="Licence of the weights, as the hub writes it.  [default: that of the model's own card]"),
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Hub id of the model that this one was made from, for the card.")
    ] = None,
    datasets: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Hub id of data that it was trained on, for the card; may be repeated."),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(help="Result file of fgclip2 bench run, or folder of them, for the card; may be repeated."),
    ] = None,
    onnx: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRECISION",
            help="Write ONNX graphs too, e.g. fp32, into the folder onnx beside the weights (of transformers or hub); "
            "may be repeated.",
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="REPO_ID", help="Upload to this repository, with the token in HF_TOKEN (hub only)."),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Let --push make a new repository private.  [default: private]"),
    ] = None,
    precisions: Annotated[
        list[str] | None,
        typer.Option(
            "--precision",
            help="Precision of graphs: fp32, fp16, int8 (weights in 8 bit), int8-fast (onnx only, texts only); may be "
            "repeated.  [default: fp32; for transformers.js fp32 and int8]",
        ),
    ] = None,
    square_side: Annotated[
        int | None,
        typer.Option(
            help="Side in pixels of plain squares, in graphs.  [default: as many patches as the processor's budget (at "
            "most, for a square), and 256 where the budget is auto, as official checkpoints have it]"
        ),
    ] = None,
    compared_items: Annotated[
        int | None,
        typer.Option(help="Images, and texts, to compare with torch, 0: none (onnx only).  [default: 200]"),
    ] = None,
    as_json: common.AsJson = False,
) -> None:
    """Write a checkpoint that loads without this package.

    The folder has the code beside the weights, and transformers loads it with trust_remote_code=True; or it has graphs
    for ONNX run times. An adapter is merged into its base model. Nothing is uploaded without --push.

    The calibration.json that `fgclip2 calibrate` made of the checkpoint, if it lies beside it, is taken along by
    transformers, hub and onnx.
    """
    given = options_of_format(
        format,
        license=license,
        base_model=base_model,
        datasets=datasets,
        results=results,
        onnx=onnx,
        push=push,
        private=private,
        precisions=precisions,
        square_side=square_side,
        compared_items=compared_items,
    )
    name, written = write_folder(format, model, folder, given)
    if as_json:
        common.print_json({"model": name, "format": format, "output": str(written)})
    else:
        typer.echo(written)


def options_of_format(format: str, **options: Any) -> dict[str, Any]:
    """Return the options that were given, as the function of the format takes them.

    Raises:
        typer.BadParameter: There is no such format, or an option does not go with it or with the other options.
    """
    from ..checks import one_of
    from ..hub.formats import FORMATS

    if format not in FORMATS:
        raise typer.BadParameter(f"must be {one_of(FORMATS)}, got {format!r}", param_hint="--format")
    given = {option: value for option, value in options.items() if value not in (None, [])}
    flags = {"datasets": "--dataset", "precisions": "--precision", "private": "--private"}
    if options["private"] is False:
        flags["private"] = "--public"
    for option in given:
        if option not in FORMATS[format].options:
            having = " or ".join(f"--format {name}" for name, known in FORMATS.items() if option in known.options)
            raise typer.BadParameter(
                f"works with {having}, got --format {format}",
                param_hint=flags.get(option, f"--{option.replace('_', '-')}"),
            )
    if "private" in given and "push" not in given:
        raise typer.BadParameter("works with --push", param_hint=flags["private"])
    return given


def write_folder(format: str, model: str | None, folder: Path, options: dict[str, Any]) -> tuple[str, Path]:
    """Load a checkpoint and write it; return its name and the folder.

    Args:
        format: A name in `FORMATS`.
        model: The checkpoint, as `--model` names it.
        folder: Where to write.
        options: What [`options_of_format`] returned.
    """
    from ..assets import embedded_checkpoint
    from ..benchmarks.results import read_results
    from ..checkpoints import locate_checkpoint
    from ..embedding.loading import choose_family, load_checkpoint
    from ..hub.card import stated_license
    from ..hub.formats import FORMATS
    from ..hub.publish import check_push

    measured = read_results(options["results"]) if "results" in options else []
    name = model or str(embedded_checkpoint())
    source, hub_arguments = locate_checkpoint(name)
    if "license" in FORMATS[format].options and "license" not in options:
        options["license"] = stated_license(source, **hub_arguments) if model else "apache-2.0"
    if "push" in options:  # before anything large is fetched
        check_push(options["push"], options["license"], "onnx" in options)
    # As it is stored, not as an embedder computes: an export should not grow.
    family = choose_family(source, "fgclip2 export", **hub_arguments)
    loaded, processor = load_checkpoint(source, family, **hub_arguments)
    if measured:
        options["results"] = scores_of_model(measured, loaded, processor, name)
    if FORMATS[format].takes_calibration:
        options["calibration"] = calibration_beside(source, loaded, processor, **hub_arguments)
    return name, FORMATS[format].write(loaded, processor, folder, **options)


def calibration_beside(source: str, model: Any, processor: Any, **hub_arguments: Any) -> Calibration | None:
    """Return the calibration that lies beside a checkpoint, `None` if there is none.

    One of other weights, or that can't be read, is left where it is, which is said on stderr.
    """
    from ..calibration import CALIBRATION_FILE, Calibration
    from ..hub.onnx.folder import fingerprint_and_name
    from ..modeling.weights import find_file

    path = find_file(source, CALIBRATION_FILE, **hub_arguments)
    if path is None:
        return None
    try:
        calibration = Calibration.load(path)
        calibration.require_model(*fingerprint_and_name(model, processor))
    except ValueError as error:
        typer.echo(f"{printable(str(path))} is not taken along: {error}", err=True)
        return None
    return calibration


def scores_of_model(measured: Sequence[dict[str, Any]], model: Any, processor: Any, name: str) -> list[Any]:
    """Return what the card of a model says of its results.

    Raises:
        ValueError: None of them is of the whole of a benchmark by this model.
    """
    from ..benchmarks.report import headline_scores, model_title
    from ..embedding.fingerprint import checkpoint_fingerprint, model_fingerprint

    fingerprint = checkpoint_fingerprint(model_fingerprint(model), model.config, processor)
    scores = headline_scores(measured, fingerprint)
    if not scores:
        models = ", ".join(sorted(set(map(model_title, measured))))
        raise ValueError(
            f"--results has {len(measured)} results, and none of the whole of a benchmark by {name} "
            f"({fingerprint[:8]}): they are by {models}"
        )
    return scores
