"""`fgclip2 convert`: rewrite an official checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import common

EXAMPLES = """
fgclip2 convert fg-clip2-base converted
fgclip2 convert 模型/fg-clip2-base 模型/转换后
fgclip2 convert R2D2-ViT-L.pth r2d2 --vocabulary vocab.txt
"""


def convert(
    folder: Annotated[Path, typer.Argument(help="Checkpoint folder in the official layout, or a .pth file of R2D2.")],
    output: Annotated[Path | None, typer.Argument(help="New folder to write.  [default: FOLDER-fgclip2]")] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="Of R2D2: BERT's vocab.txt that it was trained with.", show_default=False)
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="Of R2D2: base, large, prd2, or a config.json.  [default: the sizes in the file]", show_default=False
        ),
    ] = None,
    as_json: common.AsJson = False,
) -> None:
    """Rewrite an official checkpoint for transformers.

    The Auto classes of transformers give the right classes for the new folder. The old one stays as it is.
    """
    from ..hub import convert_checkpoint, convert_r2d2

    if not folder.exists():
        raise FileNotFoundError(f"there is no {folder}")
    target = output or folder.with_name(f"{folder.resolve().name}-fgclip2")
    result: dict[str, Any] = {"source": str(folder), "output": str(target)}
    if folder.is_file():
        if vocabulary is None:
            raise ValueError(f"{folder} is a file, and has no vocabulary: pass --vocabulary vocab.txt")
        left_out = convert_r2d2(folder, target, vocabulary, config)
        result["left_out"] = left_out
        typer.echo(f"{len(left_out)} tensors are not needed: {target / 'README.md'} lists them", err=True)
    elif vocabulary or config:
        raise ValueError(f"--vocabulary and --config are for a .pth file of R2D2, and {folder} is none: leave them out")
    else:
        convert_checkpoint(folder, target)
    if as_json:
        common.print_json(result)
    else:
        typer.echo(target)
