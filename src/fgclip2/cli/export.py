"""`fgclip2 export`: write a checkpoint that loads without this package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common

EXAMPLES = """
fgclip2 export exported
fgclip2 export 导出 --model 我的模型
"""


def export(
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    model: common.Model = None,
    as_json: common.AsJson = False,
) -> None:
    """Write a checkpoint that loads without this package.

    The folder has the code beside the weights, and transformers loads it with trust_remote_code=True.
    """
    from ..assets import embedded_checkpoint
    from ..checkpoints import locate_checkpoint
    from ..hub import export_checkpoint
    from ..modeling.modeling_fgclip2 import FGClip2Model
    from ..modeling.processing_fgclip2 import FGClip2Processor

    name = model or str(embedded_checkpoint())
    source, hub_arguments = locate_checkpoint(name)
    # In the stored dtype: an export should not grow.
    loaded = FGClip2Model.from_pretrained(source, dtype="auto", **hub_arguments)
    written = export_checkpoint(loaded, FGClip2Processor.from_pretrained(source, **hub_arguments), folder)
    if as_json:
        common.print_json({"model": name, "output": str(written)})
    else:
        typer.echo(written)
