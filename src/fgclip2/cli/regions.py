"""`fgclip2 regions`: label boxes of images."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..files import printable
from . import common

if TYPE_CHECKING:
    import numpy as np

    from ..data.box_files import FileBox, ImageBoxes

EXAMPLES = """
fgclip2 regions street.jpg --boxes "[[10,20,200,180]]" --labels "dog,car,red umbrella"
fgclip2 regions 街道.jpg --box 10,20,200,180 --box 220,40,300,160 --labels "狗,汽车,红色的伞"
fgclip2 regions photos/*.jpg --boxes instances.json --labels-file labels.txt --min-cosine 0.1 --json
fgclip2 regions photos/*.jpg --boxes yolo_labels --labels "dog,狗"
"""


def regions(
    images: Annotated[list[Path], typer.Argument(help="Image files with the boxes.")],
    boxes: Annotated[
        str | None,
        typer.Option(
            help="JSON, [[x1, y1, x2, y2], ...] in pixels, maybe with a score behind; or a file of it, of COCO's "
            "instances or detections, or of YOLO (.txt); or a folder of YOLO's files, of the names of the images."
        ),
    ] = None,
    box: Annotated[list[str] | None, typer.Option(help="One box in pixels, as x1,y1,x2,y2; may be repeated.")] = None,
    box_format: Annotated[
        str | None,
        typer.Option(
            help="Form of a box in a list: xyxy, or xywh (x, y, width, height). Files of COCO and YOLO say it.  "
            "[default: xyxy]"
        ),
    ] = None,
    image_ids: Annotated[
        Path | None,
        typer.Option(
            help="File of COCO's instances whose images say what the image ids of detections in --boxes are.  "
            "[default: the names of the images are the ids]"
        ),
    ] = None,
    labels: common.Labels = None,
    labels_file: common.LabelsFile = None,
    template: common.Templates = None,
    top_k: common.TopK = 3,
    min_cosine: Annotated[
        float | None,
        typer.Option(min=-1.0, max=1.0, help="Leave out labels whose cosine with the region is below this."),
    ] = None,
    calibration: common.CalibrationFile = None,
    min_probability: common.MinProbability = None,
    prevalence: common.Prevalence = None,
    max_patches: common.MaxPatches = None,
    max_pixels: common.MaxPixels = None,
    batch_size: common.BatchSize = 32,
    skip_errors: common.SkipErrors = False,
    model: common.Model = None,
    device: common.Device = None,
    as_json: common.AsJson = False,
) -> None:
    """Label boxes of images.

    The score of a label is its share among the given labels, by a softmax, so the scores of a box sum to 1: one of them
    is high even if none fits. The cosine says whether it fits: set --min-cosine by what right labels of yours have.

    Where there is a calibration (`fgclip2 calibrate`), the probability that a label fits stands behind the cosine, as
    p, and a box of which no label reaches --min-probability is none of these.

    A line of YOLO is `class x_center y_center width height`, and maybe a score: the centre and the size of a box as
    fractions of the width and height of the image.
    """
    names = common.read_labels(labels, labels_file)
    budget = common.parse_max_patches(max_patches)
    common.refuse_folders(images)
    found = read_boxes(boxes, box, images, image_ids)
    if found.box_format is not None and box_format is not None:
        raise typer.BadParameter(f"{boxes} has boxes of its own form: leave it out", param_hint="--box-format")
    form = found.box_format or box_format or "xyxy"
    from ..embedding import fill_templates

    embedder = common.load_embedder(model, device, max_pixels=max_pixels)
    least = common.use_calibration(embedder, calibration, min_probability, prevalence)
    phrases = embedder.encode_labels(names, template or "{}", role="region_phrase")
    texts = fill_templates(names, (template or ["{}"])[:1])
    common.tell_missing_curves(embedder, texts, "region_phrase", budget, calibration, min_probability, prevalence)
    on_error = "skip" if skip_errors else "raise"
    rows = [[one.box for one in of_image] for of_image in found.boxes]
    try:
        encoded = embedder.encode_regions(images, rows, form, budget, batch_size, on_error=on_error)
    except ValueError as error:
        raise ValueError(_with_source(str(error), images, found.boxes)) from error
    vectors, skipped = encoded if isinstance(encoded, tuple) else (encoded, [])
    left_out = common.report_skipped(common.without_indices(images, skipped))
    used = sorted(set(range(len(images))) - {index for index, _ in skipped})
    results: list[dict[str, Any]] = []
    for index, of_image in zip(used, vectors, strict=True):
        cosines = embedder.similarity(of_image, phrases)  # (boxes, labels)
        probabilities = common.match_probabilities(embedder, cosines, texts, "region_phrase", budget)
        scored = zip(found.boxes[index], embedder.region_shares(cosines), cosines, strict=True)
        labelled = [
            _label(
                one,
                names,
                shares,
                row,
                None if probabilities is None else probabilities[number],
                top_k,
                min_cosine,
                least,
            )
            for number, (one, shares, row) in enumerate(scored)
        ]
        results.append({"image": str(images[index]), "regions": labelled})
    if as_json:
        only = results[0] if len(images) == len(results) == 1 else {}
        everything = {"box_format": form, "results": results, "skipped": left_out}
        common.print_json({"model": embedder.name, **only, **everything})
        return
    for result in results:
        if len(images) > 1:
            typer.echo(printable(result["image"]))
        if not result["regions"]:
            typer.echo("  no boxes", err=True)
        for region in result["regions"]:
            typer.echo(f"[{', '.join(f'{value:g}' for value in region['box'])}]")
            for label in region["labels"]:
                probability = common.probability_column(label)
                typer.echo(f"  {label['score']:<10.4g} {label['cosine']:<8.4f} {probability}{label['label']}")
            if not region["labels"]:
                typer.echo(f"  no label has a cosine of {min_cosine:g} or more")
            if region.get("none_of_these"):
                typer.echo(f"  none of these: no label has a probability of {least:g}")


def read_boxes(boxes: str | None, box: list[str] | None, images: list[Path], image_ids: Path | None) -> ImageBoxes:
    """Return the boxes of `--boxes`, which are JSON or in files, or of `--box`; exactly one must be given."""
    from ..data import box_files

    if (boxes is None) == (not box):
        raise typer.BadParameter("give either --boxes or --box", param_hint="--boxes")
    if boxes is None:
        return box_files.boxes_of_json(list(map(common.parse_box, box or [])), "--box", images, image_ids)
    if boxes.lstrip().startswith(("[", "{")):
        try:
            content = json.loads(boxes)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"--boxes must be JSON, [[x1, y1, x2, y2], ...], or a file of it: {error}") from error
        return box_files.boxes_of_json(content, f"--boxes {boxes:.60}", images, image_ids)
    return box_files.read_boxes(common.given_path(Path(boxes)), images, image_ids)


def _with_source(message: str, images: list[Path], boxes: list[list[FileBox]]) -> str:
    """Put the place of a box in its file, or its image, before a message of the embedder, which knows indices only."""
    found = re.match(r"boxes\[(\d+)\](?:\[(\d+)\])?", message)
    if not found:
        return message
    image, box = found.groups()
    source = images[int(image)] if box is None else boxes[int(image)][int(box)].source
    return f"{source}: {message}" if source else message


def _label(
    box: FileBox,
    names: Sequence[str],
    shares: np.ndarray,
    cosines: np.ndarray,
    probabilities: np.ndarray | None,
    top_k: int,
    min_cosine: float | None,
    least: float,
) -> dict[str, Any]:
    """Return what the command says of a box; `shares`, `cosines` and `probabilities` are of the labels, (labels,)."""
    corners, score = box.box[:4], box.box[4:]
    ranked = common.rank_labels(names, shares, len(names), cosine=cosines, probability=probabilities)
    kept = [label for label in ranked[:top_k] if min_cosine is None or label["cosine"] >= min_cosine]
    found = {"box": corners, **({"box_score": score[0]} if score else {}), **box.details, "labels": kept}
    return found if probabilities is None else {**found, "none_of_these": common.shows_no_match(ranked, least)}
