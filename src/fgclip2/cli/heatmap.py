"""`fgclip2 heatmap`: show where in an image a text applies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..files import printable, replacing
from . import common

EXAMPLES = """
fgclip2 heatmap street.jpg "a red umbrella" --output umbrella.png
fgclip2 heatmap 街道.jpg "红色的伞" --output 伞.png --max-patches 4096
"""


def heatmap(
    image: Annotated[Path, typer.Argument(help="Image file to look at.")],
    text: Annotated[str, typer.Argument(help="Text to look for in the image.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Picture to write, in the format of its suffix, e.g. .png or .jpg.")
    ],
    opacity: Annotated[float, typer.Option(min=0.0, max=1.0, help="Opacity of the colours over the image.")] = 0.55,
    max_patches: common.MaxPatches = None,
    max_pixels: common.MaxPixels = None,
    model: common.Model = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
) -> None:
    """Show where in an image a text applies.

    Writes the image with colours over it: red where the text applies most, and blue where it applies least.
    """
    budget = common.parse_max_patches(max_patches)
    if not text.strip():
        raise ValueError(f"the text {text!r} is empty: give what to look for in the image")
    common.refuse_folders([image])
    common.check_output(output)
    if output.exists() and image.exists() and output.samefile(image):
        raise ValueError(
            f"{printable(str(output))} is the image itself, which would be lost: give --output another name"
        )
    from PIL import Image

    from ..modeling.inputs import load_image
    from ..visualization import overlay_heatmap

    picture_format = Image.registered_extensions().get(output.suffix.lower())
    if picture_format not in Image.SAVE:  # now rather than after the work
        raise ValueError(f"{output}: unknown file extension {output.suffix!r}; use .png, .jpg or .webp")
    embedder = common.load_embedder(model, device, max_pixels=max_pixels)
    upright = load_image(image, embedder.max_pixels)
    values = embedder.heatmap(upright, text, max_num_patches=budget)
    with replacing(output) as unfinished:
        overlay_heatmap(upright, values, opacity).save(unfinished, picture_format)
    row, column = divmod(int(values.argmax()), values.shape[1])
    result = {
        "model": embedder.name,
        "image": str(image),
        "text": text,
        "output": str(output),
        "size": [upright.width, upright.height],
        "lowest": float(values.min()),
        "highest": float(values.max()),
        "highest_at": [column, row],
    }
    if as_json:
        common.print_json(result)
    else:
        typer.echo(f"{printable(output)}: highest {result['highest']:.4f} at x={column}, y={row}")
