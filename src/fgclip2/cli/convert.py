"""`fgclip2 convert`: rewrite an official checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common

EXAMPLES = """
fgclip2 convert fg-clip2-base converted
fgclip2 convert 模型/fg-clip2-base 模型/转换后
"""


def convert(
    folder: Annotated[Path, typer.Argument(help="Checkpoint folder in the official layout.")],
    output: Annotated[Path | None, typer.Argument(help="New folder to write.  [default: FOLDER-fgclip2]")] = None,
    as_json: common.AsJson = False,
) -> None:
    """Rewrite an official checkpoint for transformers.

    The Auto classes of transformers give the right classes for the new folder. The old one stays as it is.
    """
    from ..hub import convert_checkpoint

    target = output or folder.with_name(f"{folder.resolve().name}-fgclip2")
    written = convert_checkpoint(folder, target)
    if as_json:
        common.print_json({"source": str(folder), "output": str(written)})
    else:
        typer.echo(written)
