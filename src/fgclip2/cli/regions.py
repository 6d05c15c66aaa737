"""`fgclip2 regions`: label boxes of an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..files import read_json
from . import common

EXAMPLES = """
fgclip2 regions street.jpg --boxes "[[10,20,200,180]]" --labels "dog,car,red umbrella"
fgclip2 regions 街道.jpg --box 10,20,200,180 --box 220,40,300,160 --labels "狗,汽车,红色的伞"
"""


def regions(
    image: Annotated[Path, typer.Argument(help="Image file with the boxes.")],
    boxes: Annotated[
        str | None, typer.Option(help='JSON, or a file of it: [[x1, y1, x2, y2], ...] or {"boxes": [...]}, in pixels.')
    ] = None,
    box: Annotated[list[str] | None, typer.Option(help="One box in pixels, as x1,y1,x2,y2; may be repeated.")] = None,
    box_format: Annotated[str, typer.Option(help="Form of a box: xyxy, or xywh (x, y, width, height).")] = "xyxy",
    labels: common.Labels = None,
    labels_file: common.LabelsFile = None,
    template: common.Templates = None,
    top_k: common.TopK = 3,
    max_patches: common.MaxPatches = None,
    model: common.Model = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
) -> None:
    """Label boxes of an image.

    The score of a label is its share among the given labels, by a softmax, so the scores of a box sum to 1.
    """
    corners = read_boxes(boxes, box)
    names = common.read_labels(labels, labels_file)
    budget = common.parse_max_patches(max_patches)
    embedder = common.load_embedder(model, device)
    scores = embedder.classify_regions(
        image, corners, names, template or "{}", box_format=box_format, max_num_patches=budget
    )
    results = [
        {"box": corner, "labels": common.rank_labels(names, row, top_k)}
        for corner, row in zip(corners, scores, strict=True)
    ]
    if as_json:
        common.print_json({"model": embedder.name, "image": str(image), "box_format": box_format, "regions": results})
        return
    for result in results:
        typer.echo(f"[{', '.join(f'{value:g}' for value in result['box'])}]")
        common.print_labels(result["labels"])


def read_boxes(boxes: str | None, box: list[str] | None) -> list[Any]:
    """Return the boxes of `--boxes`, which are JSON or a file of it, or of `--box`; exactly one must be given."""
    if (boxes is None) == (not box):
        raise typer.BadParameter("give either --boxes or --box", param_hint="--boxes")
    if boxes is None:
        try:
            return [[float(value) for value in text.replace("，", ",").split(",")] for text in box or []]
        except ValueError as error:
            raise ValueError(f"--box must be four numbers, e.g. 10,20,200,180: {error}") from error
    if boxes.lstrip().startswith(("[", "{")):
        try:
            content = json.loads(boxes)
        except ValueError as error:
            raise ValueError(f"--boxes must be JSON, [[x1, y1, x2, y2], ...], or a file of it: {error}") from error
    else:
        content = read_json(boxes)
    found = content.get("boxes") if isinstance(content, dict) else content
    if not isinstance(found, list):
        raise ValueError(f"--boxes {boxes}: there must be a list of boxes, [[x1, y1, x2, y2], ...]")
    return found
