"""`fgclip2 export`: write a checkpoint that loads without this package."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from . import common

EXAMPLES = """
fgclip2 export exported
fgclip2 export 导出 --model 我的模型
fgclip2 export merged --model my-adapter
fgclip2 export to_share --format hub --results docs/bundled_benchmark
fgclip2 export 发布 --format hub --model 我的模型 --license apache-2.0 --push 我的用户名/模型
fgclip2 export 图 --format onnx --precision fp32 --precision int8
"""


def export(
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    model: common.Model = None,
    format: Annotated[
        str,
        typer.Option(
            help="Write for transformers (its Auto classes and pipelines, and sentence-transformers), for the hub (the "
            "same with more on its card, loaded by these libraries before it is kept), or as onnx (graphs for run times "
            "without torch)."
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
            help="For onnx, once for each: fp32 (default), fp16, int8 (weights in 8 bit), int8-fast (texts only).",
        ),
    ] = None,
    square_side: Annotated[
        int | None,
        typer.Option(help="Side in pixels of plain squares (onnx only).  [default: by the model's patch budget]"),
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
    """
    from ..assets import embedded_checkpoint
    from ..benchmarks.report import headline_scores
    from ..benchmarks.results import read_results
    from ..checkpoints import locate_checkpoint
    from ..checks import one_of
    from ..embedding.fingerprint import checkpoint_fingerprint, model_fingerprint
    from ..embedding.loading import choose_family, load_checkpoint
    from ..hub.card import stated_license
    from ..hub.formats import FORMATS

    if format not in FORMATS:
        raise typer.BadParameter(f"must be {one_of(FORMATS)}, got {format!r}", param_hint="--format")
    options = {
        "license": license,
        "base_model": base_model,
        "datasets": datasets,
        "results": results,
        "push": push,
        "private": private,
        "precisions": precisions,
        "square_side": square_side,
        "compared_items": compared_items,
    }
    given: dict[str, Any] = {option: value for option, value in options.items() if value not in (None, [])}
    known = inspect.signature(FORMATS[format]).parameters
    for option in given.keys() - known.keys():
        flag = {"datasets": "--dataset", "precisions": "--precision"}.get(option, f"--{option.replace('_', '-')}")
        raise typer.BadParameter(f"does not go with --format {format}: leave it out", param_hint=flag)
    if private is not None and push is None:
        raise typer.BadParameter("works with --push", param_hint="--private")
    measured = read_results(results) if results else []
    name = model or str(embedded_checkpoint())
    source, hub_arguments = locate_checkpoint(name)
    # As it is stored, not as an embedder computes: an export should not grow.
    family = choose_family(source, "fgclip2 export", **hub_arguments)
    loaded, processor = load_checkpoint(source, family, **hub_arguments)
    if license is None and "license" in known:
        given["license"] = stated_license(source, **hub_arguments) if model else "apache-2.0"
    if measured:
        fingerprint = checkpoint_fingerprint(model_fingerprint(loaded), loaded.config, processor)
        given["results"] = headline_scores(measured, fingerprint)
        if not given["results"]:
            raise ValueError(f"--results has {len(measured)} results, and none of the whole of a benchmark by {name}")
    written = FORMATS[format](loaded, processor, folder, **given)
    if as_json:
        common.print_json({"model": name, "format": format, "output": str(written)})
    else:
        typer.echo(written)
