"""`fgclip2 init`: write a checkpoint to start training from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import common

EXAMPLES = """
fgclip2 init google/siglip2-base-patch16-naflex start
fgclip2 init google/siglip2-large-patch16-256 start --num-patches 256
fgclip2 init openai/clip-vit-base-patch16 start
fgclip2 init --preset tiny --texts captions.txt --texts 描述.txt 起点
fgclip2 init --config 尺寸.json --tokenizer 我的分词器 起点
"""

ORIGINS = {
    "copied": "copied",
    "resized": "resized (position grid of images)",
    "stretched": "stretched (positions of long texts)",
    "copied_heads": "new, copied from a head (long texts, boxes, dense features)",
    "random": "random",
}
SOURCE_NAMES = {
    "siglip": "SigLIP 2 of fixed resolution",
    "siglip2": "SigLIP 2 NaFlex",
    "fgclip2": "FG-CLIP 2",
    "clip": "CLIP",
    "fgclip": "FG-CLIP",
    "scratch": "no source",
}


def init(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="[SOURCE] OUTPUT", help="Folder or hub id to start from, if any, and the new folder."),
    ],
    num_patches: Annotated[
        int | None,
        typer.Option(min=1, help="Number of entries to resize the position grid to.  [default: the source's]"),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the source on the hub.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Sizes of a model from scratch: tiny, base, large or so400m.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Sizes of a model from scratch: JSON with text_config and vision_config."),
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Folder or tokenizer.json.  [default: the source's]")] = None,
    texts: Annotated[
        list[Path] | None,
        typer.Option(help="UTF-8 file, one text per line, to train a tokenizer on, from scratch; may be repeated."),
    ] = None,
    vocab_size: Annotated[int, typer.Option(help="Largest vocabulary to train with --texts.")] = 32000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random weights.")] = 0,
    as_json: common.AsJson = False,
) -> None:
    """Write a checkpoint to start training from.

    SOURCE is SigLIP 2 (NaFlex or of fixed resolution) or FG-CLIP 2; or CLIP or FG-CLIP, to start FG-CLIP, the first
    version. Without it, weights are random and sizes come from --preset or --config.
    """
    source, output = _check_usage(
        list(map(common.with_home, paths)), preset, config, tokenizer, texts, num_patches, revision
    )

    from transformers.utils import logging

    from ..training.initialization import read_sizes, write_start_weights

    logging.disable_progress_bar()
    start = write_start_weights(
        output,
        source,
        config=read_sizes(config) if config else preset,
        tokenizer=tokenizer,
        num_patches=num_patches,
        revision=revision,
        texts=texts or [],
        vocab_size=vocab_size,
        seed=seed,
    )
    result = {"source": source, "output": str(output), **start.describe()}
    if as_json:
        common.print_json(result)
    else:
        _print(result)


def _check_usage(
    paths: list[str],
    preset: str | None,
    config: Path | None,
    tokenizer: Path | None,
    texts: list[Path] | None,
    num_patches: int | None,
    revision: str | None,
) -> tuple[str | None, Path]:
    """Return source and output.

    Raises:
        typer.BadParameter: Arguments are missing or contradict each other.
    """
    from_scratch = preset is not None or config is not None
    if len(paths) != (1 if from_scratch else 2):
        wanted = (
            "only OUTPUT with --preset or --config" if from_scratch else "SOURCE and OUTPUT, or --preset or --config"
        )
        raise typer.BadParameter(f"got {' '.join(paths)}; give {wanted}", param_hint="[SOURCE] OUTPUT")
    if preset is not None and config is not None:
        raise typer.BadParameter("give one of --preset and --config", param_hint="--config")
    if not from_scratch and texts:
        raise typer.BadParameter("weights of a source need the source's vocabulary", param_hint="--texts")
    if from_scratch and (num_patches is not None or revision is not None):
        hint = "--num-patches" if num_patches is not None else "--revision"
        raise typer.BadParameter("only with SOURCE", param_hint=hint)
    if from_scratch and (tokenizer is None) == (not texts):
        raise typer.BadParameter("from scratch, give one of --tokenizer and --texts", param_hint="--tokenizer")
    return (None if from_scratch else paths[0]), Path(paths[-1])


def _print(result: dict[str, Any]) -> None:
    counts = result["parameters"]
    kind, source = SOURCE_NAMES[result["kind"]], result["source"]
    typer.echo(f"{result['output']}: from {kind}{f' ({source})' if source else ''}")
    for origin, meaning in ORIGINS.items():
        if origin in counts:
            typer.echo(f"  {counts[origin]:>13,} parameters {meaning}")
    typer.echo(f"  {counts['total']:>13,} in all, {result['bytes'] / 2**30:.2f} GiB in float32")
    if result["left_out"]:
        typer.echo(f"left out: {', '.join(result['left_out'])}")
    whole = "use it as it is, or train it further"
    next_steps = {"fgclip2": whole, "fgclip": whole, "scratch": "train it; it knows nothing yet"}
    otherwise = "train it; short texts and whole images work already, long texts and regions hardly"
    typer.echo(f"next: {next_steps.get(result['kind'], otherwise)} (fgclip2 train --help)")
