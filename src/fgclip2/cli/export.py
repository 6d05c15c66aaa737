"""`fgclip2 export`: write a checkpoint that loads without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common

EXAMPLES = """
fgclip2 export exported
fgclip2 export 导出 --model 我的模型
fgclip2 export merged --model my-adapter
"""


def export(
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    model: common.Model = None,
    format: Annotated[
        str,
        typer.Option(
            help="What the folder is for: transformers (its Auto classes and pipelines, and sentence-transformers)."
        ),
    ] = "transformers",
    as_json: common.AsJson = False,
) -> None:
    """Write a checkpoint that loads without this package.

    The folder has the code beside the weights, and transformers loads it with trust_remote_code=True. An adapter is
    merged into its base model.
    """
    from ..assets import embedded_checkpoint
    from ..checkpoints import locate_checkpoint
    from ..checks import one_of
    from ..embedding.loading import choose_family, load_checkpoint
    from ..hub.formats import FORMATS

    if format not in FORMATS:
        raise typer.BadParameter(f"must be {one_of(FORMATS)}, got {format!r}", param_hint="--format")
    name = model or str(embedded_checkpoint())
    source, hub_arguments = locate_checkpoint(name)
    # As it is stored, not as an embedder computes: an export should not grow.
    family = choose_family(source, "fgclip2 export", **hub_arguments)
    loaded, processor = load_checkpoint(source, family, **hub_arguments)
    written = FORMATS[format](loaded, processor, folder)
    if as_json:
        common.print_json({"model": name, "format": format, "output": str(written)})
    else:
        typer.echo(written)
