"""`fgclip2 init`: write a checkpoint to start training from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common

if TYPE_CHECKING:
    from ..modeling.configuration_fgclip2 import FGClip2Config
    from ..modeling.tokenization_fgclip2 import FGClip2Tokenizer
    from ..training.initialization import StartWeights

EXAMPLES = """
fgclip2 init google/siglip2-base-patch16-naflex start
fgclip2 init google/siglip2-large-patch16-256 start --num-patches 256
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
    "scratch": "no source",
}


def init(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="[SOURCE] OUTPUT", help="Folder or hub id to start from, if any, and the new folder."),
    ],
    num_patches: Annotated[
        int | None,
        typer.Option(min=1, help="Resize the position grid to so many entries.  [default: the source's]"),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the source on the hub.")] = None,
    preset: Annotated[str | None, typer.Option(help="From scratch: tiny, base, large or so400m.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="From scratch: JSON with text_config and vision_config, as in a config.json.")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Folder or tokenizer.json.  [default: the source's]")] = None,
    texts: Annotated[
        list[Path] | None,
        typer.Option(help="From scratch: UTF-8 files, one text per line, to train a tokenizer on; may be repeated."),
    ] = None,
    vocab_size: Annotated[int, typer.Option(help="Largest vocabulary to train with --texts.")] = 32000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random weights.")] = 0,
    as_json: common.AsJson = False,
) -> None:
    """Write a checkpoint to start training from.

    SOURCE is SigLIP 2 (NaFlex or of fixed resolution) or FG-CLIP 2; without it, weights are random and sizes come from
    --preset or --config.
    """
    source, output = _check_usage(paths, preset, config, tokenizer, texts, num_patches, revision)

    from transformers.utils import logging

    from ..files import new_folder
    from ..training import initialization

    logging.disable_progress_bar()
    with new_folder(output) as staging:  # before the work: a taken name should not cost it
        if source is not None:
            start = initialization.initialize_from_checkpoint(source, num_patches, tokenizer, revision)
        else:
            sizes = initialization.read_sizes(config) if config else initialization.preset_config(preset or "")
            vocabulary = tokenizer or _train_tokenizer(texts or [], sizes, vocab_size)
            start = initialization.initialize_from_scratch(sizes, vocabulary, seed)
        # In shards, for older releases of safetensors hold one once more in memory while they write it.
        start.model.save_pretrained(staging, max_shard_size="2GB")
        start.processor.save_pretrained(staging)
    result = _describe(source, output, start)
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


def _train_tokenizer(texts: list[Path], sizes: FGClip2Config, vocab_size: int) -> FGClip2Tokenizer:
    from ..modeling.tokenization_fgclip2 import FGClip2Tokenizer
    from ..tokenization.train_tokenizer import TextFiles, train_tokenizer

    trained = train_tokenizer(TextFiles(texts), vocab_size).backend_tokenizer
    lengths = sizes.text_config.max_position_embeddings, sizes.text_config.longtext_len
    return FGClip2Tokenizer(tokenizer_object=trained, short_length=lengths[0], long_length=lengths[1])


def _describe(source: str | None, output: Path, start: StartWeights) -> dict[str, Any]:
    total = sum(start.parameters.values())
    return {
        "source": source,
        "kind": start.kind,
        "output": str(output),
        "parameters": {**start.parameters, "total": total},
        "bytes": 4 * total,
        "left_out": start.left_out,
        "vocabulary": start.model.config.text_config.vocab_size,
        "position_grid": start.model.config.vision_config.num_patches,
        "text_lengths": [start.processor.tokenizer.short_length, start.processor.tokenizer.long_length],
    }


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
    typer.echo(f"next: {_next_step(result['kind'])} (fgclip2 train --help)")


def _next_step(kind: str) -> str:
    if kind == "fgclip2":
        return "use it as it is, or train it further"
    if kind == "scratch":
        return "train it; it knows nothing yet"
    return "train it; short texts and whole images work already, long texts and regions hardly"
