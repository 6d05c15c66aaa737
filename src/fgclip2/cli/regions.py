"""`fgclip2 regions`: label boxes of an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from . import common

EXAMPLES = """
fgclip2 regions street.jpg --boxes "[[10,20,200,180]]" --labels "dog,car,red umbrella"
fgclip2 regions 街道.jpg --box 10,20,200,180 --box 220,40,300,160 --labels "狗,汽车,红色的伞"
"""


def regions(
    image: Annotated[Path, typer.Argument(help="Image file.")],
    boxes: Annotated[
        str | None, typer.Option(help='JSON, or a file of it: [[x1, y1, x2, y2], ...] or {"boxes": [...]}, in pixels.')
    ] = None,
    box: Annotated[list[str] | None, typer.Option(help="One box, x1,y1,x2,y2; may be repeated.")] = None,
    box_format: Annotated[str, typer.Option(help="xyxy, or xywh (x, y, width, height).")] = "xyxy",
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

    The score of a label is its share among the labels given, by a softmax: the scores of a box sum to 1.
    """
    if (boxes is None) == (not box):
        raise typer.BadParameter("give one of --boxes and --box", param_hint="--boxes")
    names = common.read_labels(labels, labels_file)
    corners = [_parse_box(each) for each in box] if box else _read_boxes(boxes or "")
    budget = common.parse_max_patches(max_patches)
    embedder = common.load_embedder(model, device)
    scores = embedder.classify_regions(
        image, corners, names, template or "{}", box_format=box_format, max_num_patches=budget
    )
    results = [
        {"box": each, "labels": common.rank_labels(names, row, top_k)}
        for each, row in zip(corners, scores, strict=True)
    ]
    if as_json:
        common.print_json({"model": embedder.name, "image": str(image), "box_format": box_format, "regions": results})
        return
    for result in results:
        typer.echo(f"[{', '.join(f'{value:g}' for value in result['box'])}]")
        common.print_labels(result["labels"])


def _parse_box(text: str) -> list[float]:
    try:
        return [float(value) for value in text.replace("，", ",").split(",")]
    except ValueError as error:
        raise ValueError(f"--box {text!r}; allowed: four numbers, e.g. 10,20,200,180") from error


def _read_boxes(text: str) -> list[Any]:
    """Parse JSON given as text or as a file."""
    is_json = text.lstrip().startswith(("[", "{"))
    try:
        content = json.loads(text if is_json else Path(text).read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"--boxes {text}: not JSON ({error}); allowed: [[x1, y1, x2, y2], ...]") from error
    found = content.get("boxes") if isinstance(content, dict) else content
    if not isinstance(found, list):
        raise ValueError(f"--boxes {text}: no list of boxes; allowed: [[x1, y1, x2, y2], ...]")
    return found
